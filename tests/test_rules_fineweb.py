"""FineWeb's rules give the reasons that datatrove's filter gives."""

import pytest
from datatrove.data import Document
from datatrove.pipeline.filters import FineWebQualityFilter
from hypothesis import example, given, settings
from hypothesis import strategies as st
from line_cases import MARKS, english_words, real_texts, reasons_of, string_array, texts_of

from tokenmill.errors import RecipeError
from tokenmill.pipeline.rules.c4 import C4Rule, edit_c4
from tokenmill.pipeline.rules.fineweb import FineWebRule, measure_fineweb

DATATROVE_NAMES = {
    "": "",
    "min_lines": "empty",
    "min_line_punctuation_fraction": "line_punct_ratio",
    "max_short_line_fraction": "short_line_ratio",
    "max_char_duplicate_fraction": "char_dup_ratio",
    "max_new_line_ratio": "list_ratio",
}
FRACTIONS = st.sampled_from([0.0, 0.2, 1 / 3, 0.5, 2 / 3, 1.0])
RULES = st.builds(
    FineWebRule,
    min_line_punctuation_fraction=FRACTIONS,
    max_short_line_fraction=FRACTIONS,
    short_line_characters=st.sampled_from([0, 3, 16, 30]),
    max_char_duplicate_fraction=FRACTIONS,
    max_new_line_ratio=FRACTIONS,
)


def measured(texts: list[str], rule: FineWebRule) -> dict[str, list[float]]:
    array = string_array(texts)
    signals = measure_fineweb(array, english_words(array), rule)
    return {name.removeprefix("fineweb_"): values.tolist() for name, values in signals.items()}


def check_against_datatrove(texts: list[str], rule: FineWebRule) -> None:
    array = string_array(texts)
    signals = measure_fineweb(array, english_words(array), rule)
    reference = FineWebQualityFilter(
        line_punct_thr=rule.min_line_punctuation_fraction,
        short_line_thr=rule.max_short_line_fraction,
        short_line_length=rule.short_line_characters,
        char_duplicates_ratio=rule.max_char_duplicate_fraction,
        new_line_ratio=rule.max_new_line_ratio,
    )
    for text, reason in zip(texts, reasons_of(rule, signals, len(texts)), strict=True):
        verdict = reference.filter(Document(text=text, id=""))
        assert DATATROVE_NAMES[reason] == ("" if verdict is True else verdict[1]), text


def test_a_small_text_is_measured_by_eye():
    text = "It rains.\nHome\n \nHome\nIt rains.\r\nIs it so\u061f"
    assert measured([text], FineWebRule(short_line_characters=8)) == {
        "lines": [5],
        "line_punctuation_fraction": [2 / 5],  # "It rains.\r" ends in no mark
        "short_line_fraction": [2 / 5],
        "char_duplicate_fraction": [4 / (9 + 4 + 1 + 4 + 10 + 9)],
        "new_line_ratio": [5 / (3 + 1 + 1 + 3 + 4)],
    }


def test_a_text_without_lines_has_no_fractions_and_leaves_for_that():
    texts = ["", "\n\n", " \u3000\n\x1c"]
    rule = FineWebRule()
    assert measured(texts, rule)["line_punctuation_fraction"] == [0, 0, 0]
    signals = measure_fineweb(string_array(texts), english_words(string_array(texts)), rule)
    assert reasons_of(rule, signals, 3) == ["min_lines"] * 3


@settings(deadline=None, max_examples=300)
@given(st.lists(texts_of(MARKS, MARKS), max_size=4), RULES)
@example(["a.\na.\na. ", "\u4f60\u597d\n\u4f60\u597d", "x" * 30 + "\n" + "y" * 31], FineWebRule())
def test_hard_documents_stay_or_leave_as_in_datatrove(texts, rule):
    check_against_datatrove(texts, rule)


def test_real_documents_stay_or_leave_as_in_datatrove(test_data):
    texts = real_texts(test_data, 250)
    check_against_datatrove(texts, FineWebRule())
    left = edit_c4(string_array(texts), C4Rule(keep_only_terminal_punctuation=False)).texts
    check_against_datatrove(left.to_pylist(), FineWebRule())


def test_many_lines_are_compared_in_a_table_that_grows():
    distinct = "\n".join(f"line {number}" for number in range(5000))
    num_characters = len(distinct) - 4999
    texts = [f"{distinct}\n{distinct}", distinct, "a\nb", distinct + "\nline 0\nline 1x"]
    assert measured(texts, FineWebRule())["char_duplicate_fraction"] == [
        0.5, 0, 0, 6 / (num_characters + 13),
    ]  # fmt: skip


def test_the_start_of_an_earlier_line_is_not_repeated():
    text = "\n".join("x" * length for length in range(500, 0, -1))
    assert measured([text], FineWebRule())["char_duplicate_fraction"] == [0]


def test_a_line_of_an_earlier_document_is_not_repeated():
    assert measured(["one line\none", "one line"], FineWebRule())["char_duplicate_fraction"] == [
        0,
        0,
    ]


def test_a_slice_of_an_array_is_measured():
    array = string_array(["Home.", "a.\na.\nb", "Home."])[1:2]
    signals = measure_fineweb(array, english_words(array), FineWebRule())
    assert signals["fineweb_lines"].tolist() == [3]
    assert signals["fineweb_char_duplicate_fraction"].tolist() == [2 / 5]


@pytest.mark.parametrize(
    ("setting", "value", "message"),
    [
        ("min_lines", -1, "min_lines must not be negative, got -1"),
        ("max_short_line_fraction", 67, "max_short_line_fraction must be between 0 and 1, got 67"),
    ],
)
def test_a_setting_out_of_range_is_refused(setting, value, message):
    with pytest.raises(RecipeError, match=message):
        FineWebRule(**{setting: value})
