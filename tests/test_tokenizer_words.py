import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizer_cases import hard_texts

from tokenmill.errors import SourceError
from tokenmill.tokenizer.find_words import LONG
from tokenmill.tokenizer.word_table import MAX_BYTES, WordTable, fold
from tokenmill.tokenizer.words import Splitter

GAPS = " \t\n\r"
ANY_TEXT = st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from(GAPS + "ab"))


def pairs_of(text):
    """The gaps and words of a text, character by character."""
    pairs = []
    at = 0
    while at < len(text):
        word = at
        while word < len(text) and text[word] in GAPS:
            word += 1
        end = word
        while end < len(text) and text[end] not in GAPS:
            end += 1
        pairs.append((text[at:word], text[word:end]))
        at = end
    return pairs


def test_a_text_becomes_gaps_and_words():
    words = Splitter().split(["The cat\n\nsat. ", "", "sat."])
    texts = [words.words[number].decode() for number in words.word_ids]
    gaps = [words.gaps[number].decode() for number in words.gap_ids]
    assert texts == ["The", "cat", "sat.", "", "sat."]
    assert gaps == ["", " ", "\n\n", " ", ""]
    assert words.ends.tolist() == [4, 4, 5]
    assert words.word_ids[2] == words.word_ids[4]
    assert words.word_bytes().tolist() == [3, 3, 4, 0, 4]
    assert words.gap_bytes().tolist() == [0, 1, 2, 1, 0]


@settings(deadline=None)
@given(st.lists(ANY_TEXT))
@example(["\x00 \x85\xa0 \u3000", "\r", "a\rb", "\x1c \x0b", "\U0001f600 \ufeff", " ", ""])
@example(["x" * 257, " " * 257 + "y" * 256, "z" * 255 + " " * 256])
def test_gaps_and_words_joined_are_the_text(texts):
    words = Splitter().split(texts)
    assert words.join().to_pylist() == texts
    assert [len(pairs_of(text)) for text in texts] == np.diff(words.ends, prepend=0).tolist()


@settings(deadline=None)
@given(st.lists(ANY_TEXT))
def test_words_are_cut_at_gaps_and_nowhere_else(texts):
    words = Splitter().split(texts)
    ours = zip(words.gaps.texts(words.gap_ids), words.words.texts(words.word_ids), strict=True)
    assert list(ours) == [pair for text in texts for pair in pairs_of(text)]


def test_a_line_of_30_mb_is_split_and_joined():
    text = "mill " * 3_000_000 + "x" * 15_000_000
    words = Splitter().split([text])
    assert len(words.words) == 2  # the empty word and "mill"
    assert words.word_ids[-1] == LONG
    assert words.join()[0].as_py() == text


def test_words_of_one_batch_keep_their_numbers_in_the_next():
    splitter = Splitter()
    first = splitter.split(hard_texts(300, seed=1))
    again = splitter.split(hard_texts(300, seed=1))
    assert again.word_ids.tolist() == first.word_ids.tolist()
    assert again.gap_ids.tolist() == first.gap_ids.tolist()


def test_a_full_table_starts_anew_and_old_words_stay_readable():
    splitter = Splitter(max_words=3)
    first = splitter.split(["a b c d e"])
    second = splitter.split(["f a"])
    assert second.words is not first.words
    assert first.join().to_pylist() == ["a b c d e"]
    assert second.join().to_pylist() == ["f a"]


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.string_view()])
def test_every_kind_of_string_array_is_read_where_it_lies(kind):
    texts = ["not this", "a b", "", "c", "nor this"]
    array = pa.array(texts).cast(kind)
    assert Splitter().split(array[1:4]).join().to_pylist() == texts[1:4]
    chunked = pa.chunked_array([array[:2], array[2:]])
    assert Splitter().split(chunked).join().to_pylist() == texts
    assert Splitter().split(pa.chunked_array([], kind)).join().to_pylist() == []


def test_nulls_and_bytes_and_broken_utf8_are_refused():
    with pytest.raises(SourceError, match="1 are null"):
        Splitter().split(pa.array(["a", None]))
    with pytest.raises(SourceError, match="expected an array of strings, found binary"):
        Splitter().split(pa.array([b"a"]))
    broken = pa.Array.from_buffers(
        pa.string(), 1, [None, pa.py_buffer(np.array([0, 2], np.int32)), pa.py_buffer(b"\xc3(")]
    )
    with pytest.raises(SourceError, match="UTF8"):
        Splitter().split(broken)
    with pytest.raises(SourceError, match="surrogates"):
        Splitter().split(["\ud800"])


@settings(deadline=None)
@given(st.lists(st.binary(max_size=MAX_BYTES)))
def test_equal_bytes_have_one_number_and_others_another(strings):
    table = WordTable(capacity=1)
    numbers = [table.add(string) for string in strings]
    known = {b"": 0}
    for string, number in zip(strings, numbers, strict=True):
        assert number == known.setdefault(string, len(known))
        assert table[number] == string
    assert len(table) == len(known)
    assert table.lengths.tolist() == [len(string) for string in known]


def test_a_hash_is_the_same_in_every_table():
    first, second = WordTable(), WordTable(capacity=1)
    second.add(b"between")
    a, b = first.add(b"tokenization"), second.add(b"tokenization")
    assert first.hashes[a] == second.hashes[b] != first.hashes[0]


def test_what_is_kept_for_each_word_is_computed_once():
    asked = []

    def sizes(arena, starts):
        asked.append(len(starts) - 1)
        return np.diff(starts)

    table = WordTable()
    table.add(b"two")
    assert table.per_word(sizes).tolist() == [0, 3]
    table.add(b"three")
    assert table.per_word(sizes).tolist() == [0, 3, 5]
    assert table.per_word(sizes).tolist() == [0, 3, 5]
    assert asked == [2, 1]


def test_two_strings_with_one_hash_have_two_numbers():
    first, second = np.frombuffer(b"tokenizetokenmill"[:16], np.uint64)
    other = np.frombuffer(b"mixtures", np.uint64)[0]
    # A key folds chunks by exclusive or, so the second chunk can undo what the first one did.
    undone = second ^ fold(np.uint64(0), first) ^ fold(np.uint64(0), other)
    strings = [
        np.array(chunks, np.uint64).tobytes() for chunks in [(first, second), (other, undone)]
    ]
    table = WordTable()
    numbers = [table.add(string) for string in strings]
    assert table.hashes[numbers[0]] == table.hashes[numbers[1]]
    assert numbers == [1, 2]
    assert [table[number] for number in numbers] == strings
