import json
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizer_cases import (
    HARD_PARTS,
    PROSE,
    hard_texts,
    pair_encoder,
    small_encoder,
    with_added_tokens,
)
from tokenizers import Tokenizer, models, pre_tokenizers

from tokenmill.tokenizer import Encoder


def places_by_library(library, texts):
    """The first token that ends after each word's first character, counted over all texts."""
    places, before = [], 0
    for text in texts:
        encoding = library.encode(text, add_special_tokens=False)
        starts = [match.start() for match in re.finditer(r"[^ \t\n\r]+", text)]
        if text[-1] in " \t\n\r":
            starts.append(len(text))  # the last word is empty
        ends = np.array([0, *(end for _, end in encoding.offsets)])[1:]
        reached = np.maximum.accumulate(ends)
        places += [before + int((reached <= start).sum()) for start in starts]
        before += len(encoding)
    return places


def assert_places_as_library(encoder, texts):
    texts = [text for text in texts if text]
    words = encoder.split(texts)
    pairs = np.arange(len(words.word_ids))
    (ids, ends), places = encoder.encode_with_places(words, pairs)
    assert ids.tolist() == encoder.encode_words(words)[0].tolist()
    assert ends.tolist() == encoder.encode_words(words)[1].tolist()
    assert places.tolist() == places_by_library(encoder.library, texts)
    some = pairs[::3]
    assert encoder.encode_with_places(words, some)[1].tolist() == places[some].tolist()


def split_at_spaces():
    """A tokenizer without remembered words: its spaces are tokens of the word that they end."""
    vocabulary = {word: number for number, word in enumerate(["[UNK]", "the ", "mill ", "on"])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, "[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    return Encoder(json.loads(tokenizer.to_str()), "spaces")


@pytest.fixture(scope="module", params=["wordpiece", "byte_bpe", "pairs", "added", "library"])
def encoder(request, tmp_path_factory):
    if request.param in ("pairs", "library"):
        return pair_encoder() if request.param == "pairs" else split_at_spaces()
    if request.param == "added":
        plain = small_encoder("byte_bpe", tmp_path_factory.mktemp("tokenizer"))
        return Encoder(with_added_tokens(plain), "added")
    return small_encoder(request.param, tmp_path_factory.mktemp("tokenizer"))


def test_words_begin_with_the_token_that_the_librarys_offsets_say(encoder):
    assert (encoder.fallback is not None) == (encoder.name == "spaces")
    assert_places_as_library(encoder, [*hard_texts(600, seed=7), PROSE, " " + PROSE + "\n"])


@given(st.lists(st.lists(st.sampled_from(HARD_PARTS)).map("".join) | st.text(), max_size=5))
@settings(deadline=None)
def test_the_words_of_any_text_begin_there(encoder, texts):
    assert_places_as_library(encoder, texts)


def test_a_gap_that_is_tokens_of_its_own_belongs_before_the_word(tmp_path):
    encoder = small_encoder("byte_bpe", tmp_path)
    words = encoder.split(["on\n\nThe"])
    (ids, _), places = encoder.encode_with_places(words, np.array([0, 1]))
    tokens = [encoder.library.id_to_token(number) for number in ids]
    assert tokens[places[1] - 1] == "\u010a"
    assert "".join(tokens[places[1] :]) == "The"
