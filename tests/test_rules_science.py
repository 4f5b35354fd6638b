"""Symbols, letters and references are counted as a few lines of Python count them."""

import io
import json
import re
import unicodedata

import numpy as np
import pyarrow as pa
import pytest
import zstandard
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tokenmill.errors import RecipeError
from tokenmill.pipeline.rules.science import ScienceRule, measure_science

YEAR = re.compile(r"(?<![0-9])(?:1[89]|20)[0-9]{2}(?![0-9])")
NUMBER = re.compile(r"[ \t]*(?:\[[0-9]{1,4}\]|\([0-9]{1,4}\)|[0-9]{1,4}[.)])[ \t]")
INITIALS = re.compile(r"(?<=[ .\-])[A-Z]{1,3}(?=[.,])")
PIECES = st.sampled_from(
    [
        "1999", "2024", "1799", "12004", "2004;", "1", "12", "12345", "[12]", "(3)", "[3)", "4.",
        "5)", " ", "\t", ".", ",", "-", "A", "AB", "ABC", "ABCD", "Smith J,", " Doe, A. B.", "\n",
        "\u0301", "\x00", "\r\n", "\r", "word ", "\xe9", "\u4e2d", "\U0001d44e", "$", "\u2264",
        "\xa0",
    ]
)  # fmt: skip


def as_python_measures(text: str) -> list[float]:
    """Shares of symbols, of letters and of references; see the header of the module."""
    visible = [character for character in text if not character.isspace()]
    symbols = sum(unicodedata.category(character)[0] not in "LMN" for character in visible)
    lines = re.split("[\r\n]", text)
    references = [line for line in lines if is_reference(line)]
    return [
        symbols / (len(visible) or np.nan),
        sum(map(str.isalpha, visible)) / (len(visible) or np.nan),
        sum(map(len, references)) / (sum(map(len, lines)) or np.nan),
    ]


def is_reference(line: str) -> bool:
    if not 0 < len(line) <= 600 or not YEAR.search(line):
        return False
    return bool(NUMBER.match(line)) or len(INITIALS.findall(line)) >= 2


def measured(texts: list[str]) -> np.ndarray:
    signals = measure_science(pa.array(texts, pa.large_string()))
    return np.stack([signals[check.signal] for check in ScienceRule.checks], axis=1)


@settings(max_examples=250, deadline=None)
@given(st.lists(st.lists(PIECES, max_size=12).map("".join) | st.text(max_size=30), max_size=4))
@example(
    [
        "",
        "\n",
        " [12] 1999",
        "12. 1999",
        "(12. 1999",
        "A, B, C. 1999",
        " A, B, 1999",
        "é. A, B. 1999",
    ]
)
@example(["x" * 594 + " 1999\n", " A. B. " + "x" * 588 + " 1999", " A. B. " + "é" * 589 + " 1999"])
def test_every_share_is_what_python_counts(texts):
    wanted = np.array([as_python_measures(text) for text in texts]).reshape(-1, 3)
    np.testing.assert_equal(measured(texts), wanted)


@pytest.mark.parametrize(
    ("line", "reference"),
    [
        ("[3] Mill, J. S., Taylor, H. (1859). On Liberty.", True),
        ("Tamura A, Tomita T, Oshima T. Prevalence. J Motil. 2016;22:677-685.", True),
        ("12. Statistical manual of mental disorders. 2000.", True),
        ("In 2012 the patients were asked again.", False),
        ("As shown before (Guger et al., 2003), this holds.", False),
        ("1. Consultant diagnosis of the disease", False),
        ("Smith J, Doe A. In press.", False),
        ("By the NATO, the OECD. In 1999.", False),
        ("By the UN, the WHO. In 1999.", True),
    ],
)
def test_a_line_looks_like_a_reference(line, reference):
    assert measured([line])[0, 2] == reference


def test_a_list_of_references_goes_and_an_article_keeps():
    prose = "We measured the flour that the mill gave in each week of the year. " * 4 + "\n"
    references = "".join(f"[{n}] Mill, J. S. ({1900 + n}). Flour and grain.\n" for n in range(9))
    rule = ScienceRule()
    signals = measure_science(pa.array([prose * 5 + references, references, ""], pa.large_string()))
    check = rule.checks[2]
    assert check.setting == "max_reference_fraction"
    assert check.broken(signals, rule.max_reference_fraction).tolist() == [False, True, False]


def test_a_fraction_is_between_0_and_1():
    with pytest.raises(RecipeError, match=r"max_symbol_fraction must be between 0 and 1, got 30"):
        ScienceRule(max_symbol_fraction=30)


def test_real_articles_are_counted_as_python_does_and_none_is_dropped(test_data):
    texts = []
    for file in sorted((test_data / "science" / "jsonl").glob("*.zst")):
        lines = zstandard.ZstdDecompressor().stream_reader(io.BytesIO(file.read_bytes())).read()
        texts += [json.loads(line)["text"] for line in lines.splitlines()]
    values = measured(texts)
    wanted = np.array([as_python_measures(text) for text in texts[::20]])
    np.testing.assert_equal(values[::20], wanted)
    signals = measure_science(pa.array(texts, pa.large_string()))
    for check in ScienceRule.checks:
        assert not check.broken(signals, getattr(ScienceRule(), check.setting)).any()
