"""Signatures estimate how much two texts share."""

import unicodedata

import numpy as np
import pyarrow.dataset as ds
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pipeline_runs import prepare

from tokenmill.cli import main
from tokenmill.errors import RecipeError
from tokenmill.pipeline.signatures import NO_RUN, SignatureConfig, minhash
from tokenmill.tokenizer.words import Splitter

WORDS = [f"w{number}" for number in range(400)]


def signatures(texts, **settings):
    return minhash(Splitter().split(texts), SignatureConfig(**settings))


def runs(text, run_words=5):
    """The set that a signature stands for."""
    spread = (unicodedata.normalize("NFD", word.lower()) for word in text.split())
    words = ["".join(c for c in w if unicodedata.category(c)[0] in "LN") for w in spread]
    words = [word for word in words if word]
    return {tuple(words[i : i + run_words]) for i in range(max(1, len(words) - run_words + 1))}


@pytest.mark.parametrize("share", [0.2, 0.5, 0.8, 0.95])
def test_the_share_of_equal_entries_is_the_jaccard_similarity(share):
    rng = np.random.default_rng(3)
    errors = []
    for _ in range(20):
        first = [str(word) for word in rng.choice(WORDS, 600)]
        kept = int(share * 600)
        second = first[:kept] + [str(word) for word in rng.choice(WORDS, 600 - kept)]
        texts = [" ".join(first), " ".join(second)]
        a, b = runs(texts[0]), runs(texts[1])
        one, two = signatures(texts, num_hashes=1024)
        errors.append((one == two).mean() - len(a & b) / len(a | b))
    # The deviation of one estimate is at most 1/64; of the mean of twenty a fourth of that.
    assert abs(np.mean(errors)) < 4 * 1 / 64 / np.sqrt(20)
    assert np.std(errors) < 2 / 64


@given(st.lists(st.text(), max_size=6))
def test_a_document_has_the_same_signature_in_any_batch(texts):
    together = signatures(texts)
    for text, signature in zip(texts, together, strict=True):
        assert np.array_equal(signatures([text])[0], signature)


def test_case_punctuation_diacritics_and_gaps_do_not_count():
    plain = "the cafe is open on every day of the week dont worry 42"
    odd = "The -- CAFÉ\u0301, is\n\n\topen on every 'day' of the week; don't worry (42)!"
    one, two = signatures([plain, odd])
    assert np.array_equal(one, two)


def test_a_short_text_is_one_run_and_one_without_words_has_none():
    short, same, other, none = signatures(["two words", "Two, words!", "two word", " -- \n"])
    assert np.array_equal(short, same)
    assert (short != other).mean() > 0.9
    assert (none == NO_RUN).all()


@given(st.text(st.characters(exclude_categories=["Z", "Cc", "Cs"]), max_size=30))
def test_a_word_has_the_signature_of_what_counts_of_it(word):
    plain = "".join(run[0] if run else "" for run in runs(word, 1))
    one, two = signatures([word, plain])
    assert np.array_equal(one, two)


def test_words_beyond_256_bytes_count_like_any_other():
    long = "x" * 300
    one, two, three = signatures([f"a b {long} c d e", f"A b {long}. c d e", f"a b {long}y c d e"])
    assert np.array_equal(one, two)
    assert (one != three).mean() > 0.9


def test_a_signature_needs_an_entry():
    with pytest.raises(RecipeError, match="at least 1, got 0 and 5"):
        SignatureConfig(num_hashes=0)


def test_the_mill_stores_the_signature_of_every_document_it_keeps(tmp_path):
    recipe = prepare(tmp_path, dedup={"signatures": {"num_hashes": 16}})
    run = tmp_path / "run"
    assert main(["build", str(recipe), "--out", str(run), "--engine", "inline"]) == 1
    texts = {
        row["doc_id"]: row["text"]
        for row in ds.dataset(run / "text", format="parquet").to_table().to_pylist()
    }
    files = sorted((run / "milled").rglob("signatures-*.arrow"))
    table = ds.dataset([str(file) for file in files], format="arrow").to_table()
    stored = {row["doc_id"]: row["signature"] for row in table.to_pylist()}
    assert stored.keys() == texts.keys()
    for document, signature in stored.items():
        assert signature == signatures([texts[document]], num_hashes=16)[0].tolist()
