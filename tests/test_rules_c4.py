"""C4's rules leave the text and give the reasons that datatrove's filters give."""

from dataclasses import replace

import pytest
from datatrove.data import Document
from datatrove.pipeline.filters import C4ParagraphFilter, C4QualityFilter
from datatrove.utils.text import split_into_sentences
from hypothesis import example, given, settings
from hypothesis import strategies as st
from line_cases import (
    CITATIONS,
    MARKS,
    PHRASES,
    english_words,
    real_texts,
    reasons_of,
    string_array,
    texts_of,
)
from spacy.pipeline import Sentencizer

from tokenmill.errors import RecipeError
from tokenmill.pipeline.rules.c4 import C4Rule, edit_c4, measure_c4
from tokenmill.pipeline.rules.sentences import SENTENCE_ENDS

DATATROVE_NAMES = {
    "": "",
    "drop_lorem_ipsum": "lorem_ipsum",
    "drop_curly_bracket": "curly_bracket",
    "min_sentences": "too_few_sentences",
}
RULES = st.builds(
    C4Rule,
    remove_citations=st.booleans(),
    keep_only_terminal_punctuation=st.booleans(),
    min_words_per_line=st.sampled_from([None, 1, 2, 3]),
    max_word_length=st.sampled_from([None, 2, 1000]),
    drop_javascript_lines=st.booleans(),
    drop_policy_lines=st.booleans(),
    drop_lorem_ipsum=st.booleans(),
    drop_curly_bracket=st.booleans(),
)
TEXTS = texts_of(MARKS, CITATIONS, PHRASES)


def as_datatrove_filters(text: str, rule: C4Rule) -> tuple[str, str]:
    """The reason to drop a text, and what is left of it."""
    off = -1
    document = Document(text=text, id="")
    verdict = C4QualityFilter(
        remove_citations=rule.remove_citations,
        filter_no_terminal_punct=rule.keep_only_terminal_punctuation,
        min_num_sentences=off if rule.min_sentences is None else rule.min_sentences,
        min_words_per_line=off if rule.min_words_per_line is None else rule.min_words_per_line,
        max_word_length=off if rule.max_word_length is None else rule.max_word_length,
        filter_lorem_ipsum=rule.drop_lorem_ipsum,
        filter_javascript=rule.drop_javascript_lines,
        filter_curly_bracket=rule.drop_curly_bracket,
        filter_policy=rule.drop_policy_lines,
    ).filter(document)
    return "" if verdict is True else verdict[1], document.text


def check_against_datatrove(texts: list[str], rule: C4Rule) -> None:
    edited = edit_c4(string_array(texts), rule)
    edited.texts.validate(full=True)
    english = english_words(edited.texts)
    signals = edited.signals | measure_c4(english)
    reasons = reasons_of(rule, signals, len(texts))
    for text, reason, left in zip(texts, reasons, edited.texts.to_pylist(), strict=True):
        expected, text_left = as_datatrove_filters(text, rule)
        assert DATATROVE_NAMES[reason] == expected, text
        if not expected:
            assert left == text_left


def test_a_small_page_loses_what_is_no_sentence():
    page = """Home | About
    It rained all night.[2]  \r
    Please turn JavaScript on.
    So it goes.
    Read our Privacy Policy now.
    The end is ...
    "Is it?" asked Ann."""
    edited = edit_c4(string_array([page]), C4Rule())
    assert edited.texts.to_pylist() == ['It rained all night.\nSo it goes.\n"Is it?" asked Ann.']
    assert edited.num_edits.tolist() == [7]  # four lines left, three lost white space
    found = {name: values.tolist() for name, values in edited.signals.items()}
    assert found == {
        "c4_long_paragraphs": [0], "c4_lorem_ipsum": [0], "c4_curly_bracket": [0],
        "c4_long_word_lines": [0], "c4_unpunctuated_lines": [2], "c4_short_lines": [0],
        "c4_javascript_lines": [1], "c4_policy_lines": [1],
    }  # fmt: skip
    english = english_words(edited.texts)
    assert measure_c4(english)["c4_sentences"].tolist() == [4]


@settings(deadline=None, max_examples=500)
@given(st.lists(TEXTS, max_size=4), RULES)
@example(["a [1] b.\n[2]\n[3] [4] [5]\n c d e\xa0[6]", "[7] [8] [9]", "\n\n"], C4Rule())
@example(["...", "....", "[1] It rains.", "\u3000[] It rains.\n"], C4Rule(min_words_per_line=1))
@example(["coo\u212aie policy [1] {.\nlorem ipsum it is.", "a b c \u0130 use coo[]kies."], C4Rule())
def test_lines_that_stay_are_those_that_datatrove_keeps(texts, rule):
    edited = edit_c4(string_array(texts), rule)
    edited.texts.validate(full=True)
    without_sentences = replace(rule, min_sentences=None)
    reasons = reasons_of(without_sentences, edited.signals, len(texts))
    for text, reason, left, num_edits in zip(
        texts, reasons, edited.texts.to_pylist(), edited.num_edits, strict=True
    ):
        expected, text_left = as_datatrove_filters(text, without_sentences)
        assert DATATROVE_NAMES[reason] == expected
        if not expected:
            assert left == text_left
        assert (num_edits == 0) == (left == text)


@settings(deadline=None, max_examples=100)
@given(st.lists(texts_of(MARKS, MARKS), max_size=4))
@example(["Yes. (No!) It is", "a.  ) b", "a.\xa0) b", "a. ) b", "a.\n\n\n.b. c", "U.S. is\u3000."])
def test_sentences_of_a_line_are_those_of_spacy(texts):
    texts = ["\n".join(line.strip() for line in text.splitlines()).strip() for text in texts]
    english = english_words(string_array(texts))
    sentences = measure_c4(english)["c4_sentences"]
    for text, count in zip(texts, sentences, strict=True):
        assert count == sum(len(split_into_sentences(line)) for line in text.split("\n") if text)


@settings(deadline=None, max_examples=100)
@given(st.lists(texts_of(MARKS, CITATIONS, PHRASES), max_size=3))
def test_hard_documents_stay_or_leave_as_in_datatrove(texts):
    check_against_datatrove(texts, C4Rule(min_sentences=2, min_words_per_line=1))


@pytest.mark.parametrize("keep_only_terminal_punctuation", [True, False])
def test_real_documents_stay_or_leave_as_in_datatrove(test_data, keep_only_terminal_punctuation):
    rule = C4Rule(keep_only_terminal_punctuation=keep_only_terminal_punctuation)
    check_against_datatrove(real_texts(test_data, 250), rule)


def test_white_space_that_a_citation_leaves_at_the_end_of_a_text_starts_no_sentence():
    """The one known difference: datatrove counts before it strips, a text of its own here."""
    text = "One is here.\nTwo is here.  [1]"
    rule = C4Rule(keep_only_terminal_punctuation=False, min_sentences=3)
    assert as_datatrove_filters(text, rule)[0] == ""
    edited = edit_c4(string_array([text]), rule)
    english = english_words(edited.texts)
    assert measure_c4(english)["c4_sentences"].tolist() == [2]


def test_sentence_ends_are_those_of_spacy():
    assert sorted(SENTENCE_ENDS) == sorted(Sentencizer.default_punct_chars)


@given(st.lists(st.sampled_from([0, 1, 199, 200, 201]), max_size=5), st.sampled_from("a\u4f60"))
def test_long_paragraphs_are_those_of_datatrove(lengths, letter):
    text = "\n".join(letter * length for length in lengths)
    rule = C4Rule(min_long_paragraphs=3, min_sentences=None)
    reasons = reasons_of(rule, edit_c4(string_array([text]), rule).signals, 1)
    passes = C4ParagraphFilter().filter(Document(text=text, id="")) is True
    assert reasons == ["" if passes else "min_long_paragraphs"]


def test_texts_without_an_edit_are_the_very_array_that_was_given():
    texts = string_array(["It rains again.", "", "So it does.\nIs it so?"])
    assert edit_c4(texts, C4Rule()).texts is texts


def test_a_slice_of_an_array_and_an_empty_one_are_edited():
    texts = string_array(["Home", "It rains.\nHome", "\u4f60\u597d"])
    assert edit_c4(texts[1:2], C4Rule(min_words_per_line=2)).texts.to_pylist() == ["It rains."]
    assert edit_c4(texts[:0], C4Rule()).texts.to_pylist() == []


def test_the_first_of_both_reasons_counts_and_one_that_is_off_hides_nothing():
    texts = string_array(["Lorem ipsum is it.\nA { is here.", "A { is here.\nLorem ipsum is it."])
    both = edit_c4(texts, C4Rule()).signals
    assert both["c4_lorem_ipsum"].tolist() == [1, 0]
    assert both["c4_curly_bracket"].tolist() == [0, 1]
    one = edit_c4(texts, C4Rule(drop_lorem_ipsum=False)).signals
    assert one["c4_lorem_ipsum"].tolist() == [1, 0]
    assert one["c4_curly_bracket"].tolist() == [1, 1]


@pytest.mark.parametrize(
    ("setting", "value", "message"),
    [
        ("min_sentences", -1, "min_sentences must not be negative, got -1"),
        ("max_word_length", 0, "max_word_length must be positive, got 0"),
    ],
)
def test_a_setting_out_of_range_is_refused(setting, value, message):
    with pytest.raises(RecipeError, match=message):
        C4Rule(**{setting: value})
