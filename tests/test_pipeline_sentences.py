import itertools
import re

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pipeline_runs import prepare
from tokenizer_cases import PROSE, hard_texts, small_encoder

from tokenmill.cli import main
from tokenmill.pipeline.sentence_starts import (
    ABBREVIATIONS,
    CLOSING,
    OPENING,
    STOPS,
    encode_sentences,
    find_sentences,
)
from tokenmill.tokenizer import load_tokenizer
from tokenmill.tokenizer.words import Splitter

GAPS = [" ", " ", " ", "  ", "\n", "\r\n", " \n\t", "\r"]
PARTS = [
    *"aJé9.!?…\u3002\uff01\"')]“”«(¿",
    "...",
    "Mr",
    "e.g",
    "3",
    "12",
    "1999",
    "fig",
    "men",
    "\xa0",
]


def ends_sentence(word):
    found = re.search(rf"([{STOPS}])[{re.escape(CLOSING)}]*\Z", word)
    if not found or found[1] != ".":
        return found is not None
    stem = word[: found.start()].lstrip(OPENING)
    letters = re.fullmatch(rf"[^{STOPS}0-9](\.[^{STOPS}0-9])*", stem)
    return not (
        letters
        or re.fullmatch("[0-9]{1,2}", stem)
        or stem.encode().lower().decode() in ABBREVIATIONS
    )


def sentence_words(text):
    """The words that begin a sentence: by a pattern over the text, one document at a time."""
    words = list(re.finditer(r"[^ \t\n\r]+", text))
    begins = [
        "\n" in text[one.end() : two.start()] or ends_sentence(one.group())
        for one, two in itertools.pairwise(words)
    ]
    return [word for word, begin in zip(words, [True, *begins], strict=False) if begin]


def sentence_tokens(library, text):
    """The tokens that those words begin with, by the library's offsets."""
    encoding = library.encode(text, add_special_tokens=False)
    ends = np.maximum.accumulate([0, *(end for _, end in encoding.offsets)])[1:]
    firsts = {int((ends <= word.start()).sum()) for word in sentence_words(text)[1:]}
    return [first for first in sorted({0} | firsts) if first < len(encoding)]


def test_sentences_begin_after_line_feeds_and_words_that_end_one():
    text = """It is. (So "it" was!) Mr. J. Doe met 3. e.g. (U.S. men...  No
way in 1999. Said Dr.\r\n\t¿Sí? 是。 Yes"""
    first_words = [word.group() for word in sentence_words(text)]
    assert first_words == ["It", "(So", "Mr.", "No", "way", "Said", "¿Sí?", "是。", "Yes"]
    words = Splitter().split([text])
    found = [words.words[number].decode() for number in words.word_ids[find_sentences(words)]]
    assert found == first_words


@given(st.lists(st.lists(st.lists(st.sampled_from(PARTS)).map("".join) | st.sampled_from(GAPS))))
@settings(deadline=None)
def test_words_end_sentences_as_a_pattern_over_the_text_says(parts):
    splitter = Splitter()
    for text in map("".join, parts):
        words = splitter.split([text])
        data, ends = words.write()
        starts = ends - words.word_bytes()
        found = [int(start) for start in starts[find_sentences(words)] if start < len(data)]
        first = [int(words.gap_bytes()[0])] if text else []
        more = [len(text[: word.start()].encode()) for word in sentence_words(text)[1:]]
        assert found == [start for start in first + more if start < len(data)]


@pytest.fixture(scope="module", params=["wordpiece", "byte_bpe"])
def encoder(request, tmp_path_factory):
    return small_encoder(request.param, tmp_path_factory.mktemp("tokenizer"))


def test_sentences_begin_at_the_tokens_that_the_librarys_offsets_say(encoder):
    rng = np.random.default_rng(5)
    made = ["".join(rng.choice([*PARTS, *GAPS], 40)) for _ in range(200)]
    texts = ["", *hard_texts(300, seed=8), *made, PROSE, "", "\n"]
    tokens, (starts, ends) = encode_sentences(encoder, encoder.split(texts))
    assert (tokens[0].tolist(), tokens[1].tolist()) == tuple(
        a.tolist() for a in encoder.encode(texts)
    )
    assert starts.dtype == np.int32
    for text, first, stop in zip(texts, [0, *ends[:-1]], ends, strict=True):
        assert starts[first:stop].tolist() == sentence_tokens(encoder.library, text), ascii(text)


def test_words_and_gaps_that_are_not_remembered_end_sentences_too():
    long = "x" * 300
    words = Splitter().split([f"{long}. b {long} c" + " " * 300 + "\nd e"])
    assert find_sentences(words).tolist() == [0, 1, 4]


def milled(run):
    return ds.dataset(sorted((run / "milled").rglob("tokens-*.arrow")), format="arrow").to_table()


def test_the_mill_writes_sentences_where_the_packing_asks_for_them(tmp_path):
    recipe = prepare(tmp_path, dedup={"exact": False}, held_out=0.0)
    build = ["build", str(recipe), "--engine", "inline"]
    assert main([*build, "--out", str(tmp_path / "plain")]) == 1  # two bad lines are set aside
    plain = milled(tmp_path / "plain")
    assert plain.column_names == ["doc_id", "content_hash", "tokens"]
    asked = [*build, "--out", str(tmp_path / "run"), "--set", "packing.sequences=full_sentences"]
    assert main(asked) == 1
    table = milled(tmp_path / "run")
    assert table["sentence_starts"].type == pa.large_list(pa.int32())
    assert table.drop_columns("sentence_starts").equals(plain)
    library = load_tokenizer(tmp_path / "run" / "tokenizer").library
    texts = ds.dataset(tmp_path / "run" / "text", format="parquet").to_table().to_pylist()
    text_of = {row["doc_id"]: row["text"] for row in texts}
    for row in table.to_pylist():
        assert row["sentence_starts"] == sentence_tokens(library, text_of[row["doc_id"]])


def test_sentences_of_tokens_are_refused_before_anything_is_read(tmp_path, capsys):
    recipe = prepare(tmp_path)
    changes = ["packing.sequences=pairs", "sources.web.format=tokens", "sources.web.columns={}"]
    sets = [part for change in changes for part in ("--set", change)]
    for command in ("plan", "build"):
        assert main([command, str(recipe), "--out", str(tmp_path / "run"), *sets]) == 2
        error = capsys.readouterr().err
        assert "packing.sequences: pairs needs to know where sentences begin" in error
        assert "sources.web comes as tokens" in error
