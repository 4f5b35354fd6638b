"""Words from tokens: the same words as in the text, however any tokenizer cuts it."""

import itertools
import unicodedata

import numpy as np
import pytest
from evaluation_items import fold, letter_encoder
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizer_cases import hard_texts, pair_encoder, small_encoder

from tokenmill.pipeline.decontaminate.words import run_hash, token_table, words_of

characters = st.characters(exclude_categories=("Cs",))
texts = st.lists(
    st.text(st.one_of(st.sampled_from("aAbB 1.'é\u0301ß中の한ไ—“”_\n"), characters), max_size=20),
    max_size=4,
)


@pytest.fixture(scope="module", params=["byte_bpe", "pairs"])
def byte_level(request, tmp_path_factory):
    """A byte-level tokenizer, one that ends tokens inside characters everywhere among them."""
    if request.param == "pairs":
        encoder = pair_encoder()
    else:
        encoder = small_encoder("byte_bpe", tmp_path_factory.mktemp("tokenizer"))
    return encoder, token_table(encoder.library, encoder.vocab_size)


@pytest.fixture(scope="module")
def wordpiece():
    encoder = letter_encoder()
    return encoder, token_table(encoder.library, encoder.vocab_size)


def words_and_hashes(tokenizer, documents):
    """For each document the hashes of its words, from its tokens."""
    encoder, table = tokenizer
    ids, ends = encoder.encode(documents)
    for start, stop in itertools.pairwise([0, *ends]):
        prefixes, firsts = words_of(table, ids[start:stop])
        count = len(prefixes) - 1
        assert firsts[count] == stop - start
        assert (np.diff(firsts) >= 0).all()
        yield [
            int(run_hash(prefixes, i, i + 1, np.uint64(0xD6E8FEB86659FD93))) for i in range(count)
        ]


def assert_same_words(tokenizer, documents):
    """Documents have as many words as their texts, and words have one hash exactly where they are
    equal."""
    # Tokenizers may bring characters into their composed form.
    documents = [unicodedata.normalize("NFC", text) for text in documents]
    hash_of: dict[str, int] = {}
    for text, hashes in zip(documents, words_and_hashes(tokenizer, documents), strict=True):
        words = fold(text).split(" ") if fold(text) else []
        assert len(hashes) == len(words), ascii(text)
        for word, hashed in zip(words, hashes, strict=True):
            assert hash_of.setdefault(word, hashed) == hashed, ascii(text)
    assert len(set(hash_of.values())) == len(hash_of)


def test_byte_level_tokens_give_the_words_of_hard_texts(byte_level):
    assert_same_words(byte_level, hard_texts(600, seed=3))


@settings(max_examples=200)
@given(documents=texts)
def test_byte_level_tokens_give_the_words_of_any_text(byte_level, documents):
    assert_same_words(byte_level, documents)


@settings(max_examples=200)
@given(
    documents=st.lists(st.text("aAbBçéзя中の12 '-.\n\u00a0ßï", max_size=30), max_size=4),
)
def test_word_pieces_give_the_words_of_what_their_vocabulary_knows(wordpiece, documents):
    documents = [text.replace("з", "я") for text in documents]
    assert_same_words(wordpiece, documents)


def test_what_a_vocabulary_does_not_know_is_no_word(wordpiece):
    (hashes,) = words_and_hashes(wordpiece, ["mill ж mill жж mill"])
    assert len(hashes) == 3
    assert len(set(hashes)) == 1


def test_one_text_has_the_same_hashes_by_any_tokenizer(byte_level, wordpiece):
    documents = ["The miller's DAUGHTER re-read it", "daughter", "the", "Ça va, naïve Zoë?"]
    expected = list(words_and_hashes(wordpiece, documents))
    assert list(words_and_hashes(byte_level, documents)) == expected
    assert [len(hashes) for hashes in expected] == [7, 1, 1, 4]
    assert expected[0][3] == expected[1][0]
    assert expected[0][0] == expected[2][0]


def test_a_document_of_more_words_than_tokens_is_read_whole():
    encoder = pair_encoder()
    table = token_table(encoder.library, encoder.vocab_size)
    ids, _ = encoder.encode(["のはがを" * 50])
    prefixes, _ = words_of(table, ids)
    assert len(prefixes) - 1 == 200


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Don't re-read: it's 10 €", "don t re read it s 10"),
        ("naïve nai\u0308ve NAÏVE", "naive naive naive"),
        ("snake_case CamelCase x2", "snake case camelcase x2"),
        ("小さい猫", "小 さ い 猫"),
        ("한국어 Straße İ", "한국어 straße i"),
        ("\U00020000\U0001f600a", "\U00020000 a"),
        ("... !", ""),
    ],
)
def test_what_counts_of_a_text(text, words):
    assert fold(text) == words
