"""RefinedWeb's corrections leave what an obvious slow version of DCLM's steps leaves."""

import re
import string
from dataclasses import replace

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from line_cases import MARKS, RUBBISH, real_texts, reasons_of, string_array, texts_of

from tokenmill.errors import RecipeError
from tokenmill.pipeline.rules.refinedweb import RefinedWebRule, edit_refinedweb

COUNTER = re.compile(
    r"\W*\d[\d,.]*[kmb]?\s+(likes|shares|comments|retweets|reposts|quotes|bookmarks|upvotes"
    r"|downvotes|downloads|views|followers)\W*"
)
TO_LOWER = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)
OFF = RefinedWebRule(
    max_uppercase_fraction=None,
    drop_numeric_lines=False,
    drop_counter_lines=False,
    min_words_per_line=None,
    max_edited_line_words=None,
)


def corrected(text: str) -> tuple[str, float]:
    """What is left of a text, and the fraction of its words that is gone; slow and obvious."""
    lines = []
    for line in text.split("\n"):
        if line == "" or not leaves(line):
            left = cut(line) if len(line.split()) <= 10 else line
            if left.strip() or not line:
                lines.append(left)
    left = "\n".join(lines)
    num_words = counted_words(text)
    lost = (num_words - counted_words(left)) / max(num_words, 1)
    return text if left == text else left.strip(), lost


def leaves(line: str) -> bool:
    return (
        sum(letter.isupper() for letter in line) / len(line) > 0.5
        or all(letter.isdigit() for letter in line)
        or COUNTER.fullmatch(line.translate(TO_LOWER)) is not None
        or len(line.split()) < 2
    )


def cut(line: str) -> str:
    line = without(r"\s?items in cart", line)
    line = without(r"\s?read more\.\.\.\s*\Z", line)
    return without(r"\A\s*sign-in\s?", line)


def without(pattern: str, line: str) -> str:
    kept, at = "", 0
    for found in re.finditer(pattern, line.translate(TO_LOWER)):
        kept += line[at : found.start()]
        at = found.end()
    return kept + line[at:]


def counted_words(text: str) -> int:
    """fastText's words that begin with a letter or digit."""
    return sum(word[0].isalnum() for word in re.split(r"[ \t\n\v\f\r\0]+", text) if word)


def check_against_slow_version(texts: list[str]) -> None:
    edited = edit_refinedweb(string_array(texts), RefinedWebRule())
    edited.texts.validate(full=True)
    lost = edited.signals["refinedweb_words_removed_fraction"]
    for text, left, fraction, num_edits in zip(
        texts, edited.texts.to_pylist(), lost, edited.num_edits, strict=True
    ):
        assert (left, fraction) == corrected(text)
        assert (num_edits == 0) == (left == text)


def test_a_small_page_loses_what_is_no_text():
    page = """ABOUT US
It rains. Sign-in

12
1.2K followers
\t1 items in Cart 2
Sign-in to read
Home
It was late Read More...
Items in cart"""
    edited = edit_refinedweb(string_array([page]), RefinedWebRule())
    left = "It rains. Sign-in\n\n\t1 2\nto read\nIt was late"
    assert edited.texts.to_pylist() == [left]
    found = {name: values.tolist() for name, values in edited.signals.items()}
    assert found == {
        "refinedweb_words_removed_fraction": [15 / 25],
        "refinedweb_uppercase_lines": [1],
        "refinedweb_numeric_lines": [1],
        "refinedweb_counter_lines": [1],
        "refinedweb_short_lines": [1],
        "refinedweb_edited_lines": [4],
    }
    assert edited.num_edits.tolist() == [8]
    assert corrected(page) == (left, 15 / 25)


@settings(deadline=None, max_examples=1000)
@given(st.lists(texts_of(MARKS, RUBBISH, RUBBISH), max_size=4))
@example(["", "\n", " ", "A", "3 likes\n", "Sign-in\xa0a b\u3000items in cart", "1 2 \n\n3 likes"])
@example(
    ["a b Read more...\u3000", "\u4f60read more...", "Read more... b", "Sign-in", " Sign-in a"]
)
def test_hard_documents_are_corrected_as_the_slow_version_does(texts):
    check_against_slow_version(texts)


def test_real_documents_are_corrected_as_the_slow_version_does(test_data):
    check_against_slow_version(real_texts(test_data, 1000, most_bytes=20_000))


def test_lines_above_ten_words_are_not_cut():
    line = "Sign-in a b c d e f g h"
    texts = string_array([line + " i", line + " i j"])
    edited = edit_refinedweb(texts, RefinedWebRule())
    assert edited.texts.to_pylist() == ["a b c d e f g h i", line + " i j"]


def test_a_document_that_loses_more_than_its_share_leaves():
    page = "a word or two " * 20
    texts = [page + "\nHome\n3 likes\nHome", page + "\nHome\n3 likes\n4 likes"]  # 4 and 5 of 80
    edited = edit_refinedweb(string_array(texts), RefinedWebRule())
    lost = edited.signals["refinedweb_words_removed_fraction"].tolist()
    assert lost == [4 / 84, 5 / 85]
    assert reasons_of(RefinedWebRule(), edited.signals, 2) == ["", "max_words_removed_fraction"]


@pytest.mark.parametrize(
    ("line", "setting"),
    [
        ("HOME Page", {"max_uppercase_fraction": 0.5}),
        ("2023", {"drop_numeric_lines": True}),
        ("3 likes", {"drop_counter_lines": True}),
        ("Home", {"min_words_per_line": 2}),
        ("Sign-in now", {"max_edited_line_words": 10}),
    ],
)
def test_each_rule_works_alone_and_can_be_off(line, setting):
    texts = string_array([line])
    assert edit_refinedweb(texts, OFF).texts is texts
    assert edit_refinedweb(texts, replace(OFF, **setting)).num_edits.tolist() == [1]


def test_a_slice_of_an_array_and_an_empty_one_are_corrected():
    texts = string_array(["Home", "It rains.\nHome", "\u4f60\u597d"])
    assert edit_refinedweb(texts[1:2], RefinedWebRule()).texts.to_pylist() == ["It rains."]
    assert edit_refinedweb(texts[:0], RefinedWebRule()).texts.to_pylist() == []


@pytest.mark.parametrize(
    ("setting", "value", "message"),
    [
        ("max_uppercase_fraction", 50, "max_uppercase_fraction must be between 0 and 1, got 50"),
        ("min_words_per_line", -2, "min_words_per_line must not be negative, got -2"),
    ],
)
def test_a_setting_out_of_range_is_refused(setting, value, message):
    with pytest.raises(RecipeError, match=message):
        RefinedWebRule(**{setting: value})
