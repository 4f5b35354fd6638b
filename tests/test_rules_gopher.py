import io
import json
import math
import re

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from datatrove.data import Document
from datatrove.pipeline.filters import GopherQualityFilter, GopherRepetitionFilter
from datatrove.pipeline.filters.gopher_repetition_filter import (
    find_all_duplicate,
    find_duplicates,
    find_top_duplicate,
    get_n_grams,
)
from datatrove.utils.text import PUNCTUATION_SET, split_into_words
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tokenmill.errors import RecipeError
from tokenmill.pipeline.rules.checks import Verdict, judge
from tokenmill.pipeline.rules.english import EnglishSplitter
from tokenmill.pipeline.rules.gopher import GopherRule, measure_gopher
from tokenmill.pipeline.rules.hashing import first_places, new_set
from tokenmill.pipeline.rules.repetition import MAX_WORDS
from tokenmill.tokenizer.words import Splitter

STOP_WORDS = {"the", "be", "to", "of", "and", "that", "have", "with"}
WORDS = [
    "a",
    "b",
    "ab",
    "ba",
    "1",
    "12",
    "2",
    "the",
    "with",
    "#",
    "...",
    "…",
    "-",
    "•",
    "é",
    "中",
    "!",
]
GAPS = [
    " ",
    " ",
    " ",
    "\n",
    "\n\n",
    "\n\n\n",
    "\r\n",
    "\u2028",
    "\x1c",
    "\u00a0",
    "\t\n \n",
    "\x85",
]
TEXTS = st.lists(st.sampled_from(WORDS) | st.sampled_from(GAPS), max_size=120).map("".join)
PROSE = (
    "It is a truth which we have learned with time that old houses keep their heat in winter. "
    "Nobody knows how to mend the roof of this one, and so rain comes down to the second floor. "
    "Two carpenters looked at every beam last week; they told us what must be done before spring. "
)
REASONS = {
    "min_characters": "empty",
    "max_dup_paragraph_fraction": "dup_para_frac",
    "max_dup_paragraph_char_fraction": "dup_para_char_frac",
    "max_dup_line_fraction": "dup_line_frac",
    "max_dup_line_char_fraction": "dup_line_char_frac",
    **{f"max_top_{size}_gram_fraction": f"top_{size}_gram" for size in (2, 3, 4)},
    **{f"max_dup_{size}_gram_fraction": f"duplicated_{size}_n_grams" for size in range(5, 11)},
    "min_words": "gopher_short_doc",
    "max_words": "gopher_long_doc",
    "min_mean_word_length": "gopher_below_avg_threshold",
    "max_mean_word_length": "gopher_above_avg_threshold",
    "max_hash_ratio": "gopher_too_many_hashes",
    "max_ellipsis_ratio": "gopher_too_many_ellipsis",
    "max_bullet_line_fraction": "gopher_too_many_bullets",
    "max_ellipsis_line_fraction": "gopher_too_many_end_ellipsis",
    "min_alpha_word_fraction": "gopher_below_alpha_threshold",
    "min_stop_words": "gopher_enough_stop_words",
}


@pytest.fixture(scope="module")
def splitter():
    return EnglishSplitter()


def measure(splitter, texts):
    array = pa.array(texts, pa.large_string())
    return measure_gopher(array, splitter.split(Splitter().split(array)))


def reasons(splitter, texts, rule=None):
    """The setting that each text breaks first, or ""."""
    verdict = Verdict(len(texts))
    judge({"gopher": rule or GopherRule()}, measure(splitter, texts), verdict)
    return [verdict.reasons[code].removeprefix("gopher.") for code in verdict.codes]


def reason_of_datatrove(text):
    for gopher in (GopherRepetitionFilter(), GopherQualityFilter()):
        answer = gopher.filter(Document(text=text, id="0"))
        if answer is not True:
            return answer[1]
    return ""


def ratio(part, whole):
    return part / whole if whole else math.nan


def measured_by_datatrove(text):
    """Each signal, by datatrove's own functions where it has one."""
    words = split_into_words(text)
    paragraphs, parts = re.split(r"\n{2,}", text.strip()), re.split("\n+", text)
    lines = text.splitlines()
    letters = [word for word in words if any(map(str.isalpha, word))]
    plain = [word for word in words if not set(word) <= PUNCTUATION_SET]
    signals = {"characters": len(text)}
    for name, pieces in (("paragraph", paragraphs), ("line", parts)):
        repeated, characters = find_duplicates(pieces)
        signals[f"dup_{name}_fraction"] = ratio(repeated, len(pieces))
        signals[f"dup_{name}_char_fraction"] = ratio(characters, len(text))
    for size in (2, 3, 4):
        n_grams = get_n_grams(words, size)
        top = find_top_duplicate(n_grams) if n_grams else 0
        signals[f"top_{size}_gram_fraction"] = ratio(top, len(text))
    for size in range(5, 11):
        duplicate = find_all_duplicate(words, size)
        signals[f"dup_{size}_gram_fraction"] = ratio(duplicate, len(text))
    dots = ("...", "…")
    bullets = [line for line in lines if line.lstrip().startswith(("•", "-"))]
    return signals | {
        "words": len(plain),
        "mean_word_length": ratio(sum(map(len, plain)), len(plain)),
        "hash_ratio": ratio(text.count("#"), len(words)),
        "ellipsis_ratio": ratio(sum(map(text.count, dots)), len(words)),
        "bullet_line_fraction": ratio(len(bullets), len(lines)),
        "ellipsis_line_fraction": ratio(sum(x.rstrip().endswith(dots) for x in lines), len(lines)),
        "alpha_word_fraction": ratio(len(letters), len(words)),
        "stop_words": len(STOP_WORDS.intersection(words)),
    }


def assert_measured_alike(splitter, texts):
    signals = measure(splitter, texts)
    for number, text in enumerate(texts):
        ours = {name.removeprefix("gopher_"): signals[name][number] for name in signals}
        expected = measured_by_datatrove(text)
        assert ours.keys() == expected.keys()
        for name in expected:
            assert ours[name] == expected[name] or math.isnan(ours[name] + expected[name]), name


@settings(deadline=None, max_examples=120)
@given(st.lists(TEXTS, max_size=4))
@example(
    ["", " \n", "a", "\n\na\n\na", "\u00a0\n\nb\n\nb\n\n\u3000", "a\n\n\n", "- \n•\n\u3000-", "..."]
)
@example(
    ["....", "a .... …", "…\u2028a...\x85 b... \n...c", "..\n.", "\x1c\x1d…\x1e", "#" * 9, "é" * 30]
)
@example(
    ["1 2 3 4 12 1 2 3 4 12 1 2 3 41 2", "12 3 4 1 2 1 2 3 4 12", "a b " * 30, "aab aaba " * 9]
)
@example(
    [" ".join("abc"[i % 3] * (i % 5 + 1) for i in range(60)), "a " * 9, "ab " * 5 + "abab ab " * 9]
)
def test_the_measures_are_those_of_datatrove(splitter, texts):
    assert_measured_alike(splitter, texts)


@settings(deadline=None, max_examples=100)
@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=40), st.integers(1, 4))
def test_the_measures_of_any_characters_are_those_of_datatrove(splitter, text, times):
    assert_measured_alike(splitter, [text * times])


def test_words_are_repeated_if_their_characters_are_wherever_they_are_cut(splitter):
    # datatrove joins the words of an n-gram with nothing between them.
    text = "1 2 12 3 4 5 12 1 2 3 4 5"
    assert find_all_duplicate(text.split(), 6) == len("1212345")
    assert measure(splitter, [text])["gopher_dup_6_gram_fraction"].tolist() == [7 / len(text)]


def test_measures_do_not_depend_on_the_batch(splitter):
    texts = [PROSE, "a b c " * 40, "", PROSE * 3, "x\n" * 50, "\u00a0"]
    together = measure(splitter, texts)
    for number, text in enumerate(texts):
        alone = measure(splitter, [text])
        for name, signal in alone.items():
            assert np.array_equal(signal, together[name][number : number + 1], equal_nan=True)


def test_fractions_of_nothing_are_nan(splitter):
    signals = measure(splitter, ["", " \n"])
    nothing = {name for name, signal in signals.items() if math.isnan(signal[0])}
    assert len(nothing) == 17
    assert {name for name, signal in signals.items() if math.isnan(signal[1])} == {
        "gopher_mean_word_length",
        "gopher_hash_ratio",
        "gopher_ellipsis_ratio",
        "gopher_alpha_word_fraction",
    }


def varied(words):
    """Words that come once each, so that nothing repeats."""
    return " ".join(
        f"{word}{'bcdfghjklm'[n % 10]}{'aeiou'[n // 10]}" for n, word in enumerate(words)
    )


BREAKERS = {
    "min_characters": "",
    "max_dup_paragraph_fraction": "a\n\n" * 6 + PROSE,
    "max_dup_paragraph_char_fraction": "\n\n".join([PROSE.strip(), *"bcd", PROSE]),
    "max_dup_line_fraction": "a\n" * 6 + PROSE,
    "max_dup_line_char_fraction": "\n".join([PROSE, *"bcd", PROSE]),
    "max_top_2_gram_fraction": "Sundown Mountain " * 20 + PROSE,
    "max_top_3_gram_fraction": varied(["bright crimson stone w"] * 6) + PROSE,
    "max_top_4_gram_fraction": varied(["bright crimson stones crumble w"] * 3) + PROSE,
    "max_dup_5_gram_fraction": PROSE * 2,
    "min_words": varied(["word"] * 47) + " the of",
    "min_mean_word_length": "A to B of " + " ".join(a + b for a in "cdefg" for b in "hjklmnpqrst"),
    "max_mean_word_length": "the of " + varied(["unmistakable"] * 50),
    "max_hash_ratio": PROSE + "# " * 9,
    "max_ellipsis_ratio": PROSE.replace("e ", "e... "),
    "max_bullet_line_fraction": "".join(f"- {word}\n" for word in PROSE.split()),
    "max_ellipsis_line_fraction": PROSE.replace(". ", "...\n"),
    "min_alpha_word_fraction": PROSE + " ".join(map(str, range(1000, 1030))),
    "min_stop_words": varied(["apple"] * 50) + " the",
}


@pytest.mark.parametrize("setting", BREAKERS)
def test_the_first_check_that_is_broken_is_datatroves_reason(splitter, setting):
    text = BREAKERS[setting]
    assert reason_of_datatrove(text) == REASONS[setting]
    assert reasons(splitter, [text]) == [setting]


@pytest.mark.parametrize("size", [6, 7, 8, 9, 10])
def test_longer_n_grams_decide_where_shorter_ones_are_not_judged(splitter, size):
    shorter = {f"max_dup_{n}_gram_fraction": None for n in range(5, size)}
    assert reasons(splitter, [PROSE * 2], GopherRule(**shorter)) == [
        f"max_dup_{size}_gram_fraction"
    ]


def test_too_many_words_are_too_many(splitter):
    rule = GopherRule(max_words=50, max_dup_5_gram_fraction=None)
    assert reasons(splitter, [PROSE], rule) == ["max_words"]


def test_good_prose_breaks_no_check(splitter):
    assert reason_of_datatrove(PROSE) == ""
    assert reasons(splitter, [PROSE]) == [""]


def test_a_check_that_is_off_lets_the_next_decide(splitter):
    text = "a\n\n" * 6
    assert reasons(splitter, [text]) == ["max_dup_paragraph_fraction"]
    rule = GopherRule(max_dup_paragraph_fraction=None, max_dup_paragraph_char_fraction=None)
    assert reasons(splitter, [text], rule) == ["max_dup_line_fraction"]


def test_a_threshold_itself_is_kept(splitter):
    text = "a\nb\na\nc\nd\ne\na\nf\nb\n" + PROSE  # 3 of 10 lines came before
    assert measure(splitter, [text])["gopher_dup_line_fraction"].tolist() == [0.3]
    assert reasons(splitter, [text]) == [""]


def test_a_long_document_is_measured_like_its_words(splitter):
    numbers = [number * 7919 % 20011 for number in range(20_000)]
    text = " ".join(f"w{number}" for number in numbers * 3)
    signals = measure(splitter, [text, PROSE])
    assert signals["gopher_words"].tolist() == [
        60_000,
        measure(splitter, [PROSE])["gopher_words"][0],
    ]
    # The second and third times count, but for what is left of a ten.
    assert signals["gopher_dup_10_gram_fraction"][0] == pytest.approx(2 / 3 * 5.45 / 6.45, abs=0.01)


def test_repetition_is_not_measured_in_documents_of_millions_of_words(splitter):
    signals = measure(splitter, ["a " * (MAX_WORDS + 1), PROSE, "a " * 1000])
    assert np.isnan(signals["gopher_top_2_gram_fraction"]).tolist() == [True, False, False]
    assert np.isnan(signals["gopher_dup_10_gram_fraction"]).tolist() == [True, False, False]
    assert signals["gopher_words"][0] == MAX_WORDS + 1


def test_numbers_of_places_start_anew_before_they_overflow():
    table = first_places(4)
    table.next_first[0] = 2**31 - 3
    table.numbers[:] = 7
    _, first = new_set(table, 4)
    assert first == 0
    assert set(table.numbers) == {-1}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"min_words": -1}, "min_words must not be negative, got -1"),
        ({"max_dup_line_fraction": 1.5}, "max_dup_line_fraction must be between 0 and 1, got 1.5"),
    ],
)
def test_a_wrong_setting_is_refused(settings, message):
    with pytest.raises(RecipeError, match=message):
        GopherRule(**settings)


def slice_of(test_data, name):
    """A few documents of each kind, as long as datatrove can judge in seconds."""
    if name == "refinedweb":
        texts = [
            text
            for file in sorted((test_data / name).glob("*.parquet"))
            for text in pq.read_table(file, columns=["content"])["content"]
            .slice(90, 40)
            .to_pylist()
        ]
    else:
        folder = test_data / name / "jsonl" if name == "science" else test_data / name
        [file, *_] = sorted(folder.glob("*.jsonl.zst"))
        data = io.BytesIO(file.read_bytes())
        lines = zstandard.ZstdDecompressor().stream_reader(data).read().split(b"\n")[:-1]
        documents = [json.loads(line) for line in lines[:: max(1, len(lines) // 50)]]
        texts = [document.get("text", document.get("content")) for document in documents]
    return [text[:3000] for text in texts]


@pytest.mark.parametrize("name", ["refinedweb", "code", "languages", "science"])
def test_real_documents_are_judged_as_datatrove_judges_them(splitter, test_data, name):
    texts = slice_of(test_data, name)
    expected = [reason_of_datatrove(text) for text in texts]
    assert [REASONS.get(reason, "") for reason in reasons(splitter, texts)] == expected
    assert_measured_alike(splitter, texts[::4])
