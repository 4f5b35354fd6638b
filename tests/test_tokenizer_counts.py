import unicodedata

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizer_cases import hard_texts

from tokenmill.tokenizer import count_characters, count_words, counts
from tokenmill.tokenizer.words import Splitter


def test_a_small_text_is_counted_by_eye():
    words = Splitter().split(["It's 12 o'clock.\n", "", "\u2026 \u4f60\u597d\xa0!"])
    characters, symbols = count_characters(words)
    assert count_words(words).tolist() == [3, 0, 2]
    assert characters.tolist() == [14, 0, 4]
    assert symbols.tolist() == [3, 0, 2]


@settings(deadline=None)
@given(st.lists(st.text()))
@example(["x" * 300 + "\u3000!" * 100])
def test_counts_are_those_of_a_look_at_each_character(texts):
    check_counts(texts)


def test_counts_are_right_on_hard_texts_batch_after_batch():
    splitter = Splitter()
    for seed in range(3):
        check_counts(hard_texts(300, seed), splitter)


def check_counts(texts, splitter=None):
    words = (splitter or Splitter()).split(texts)
    characters, symbols = count_characters(words)
    for text, found, odd, num_words in zip(
        texts, characters, symbols, count_words(words), strict=True
    ):
        seen = [character for character in text if not character.isspace()]
        assert found == len(seen)
        assert odd == sum(unicodedata.category(character)[0] not in "LMN" for character in seen)
        spaced = text.replace("\t", " ").replace("\n", " ").replace("\r", " ")
        assert num_words == len([word for word in spaced.split(" ") if word])


@pytest.mark.parametrize("character", ["\u0301", "\u2167", "\xbd", "\u0e33"])
def test_marks_and_numbers_are_no_symbols(character):
    characters, symbols = count_characters(Splitter().split([character]))
    assert (characters[0], symbols[0]) == (1, 0)


def test_no_code_point_outside_the_table_is_a_letter_mark_number_or_space():
    outside = set(range(0x110000)) - set(counts._ASSIGNED)
    kinds = {unicodedata.category(chr(point))[0] for point in outside}
    assert not kinds & set("LMNZ")
