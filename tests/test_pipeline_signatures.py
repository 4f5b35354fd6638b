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


NUMBERS = np.arange(10_000).astype(str)


def alike(rng, num_runs, shared):
    """Two texts of so many runs of one word, of which so many are the same."""
    words = NUMBERS[rng.permutation(len(NUMBERS))[: 2 * num_runs - shared]]
    return " ".join(words[:num_runs]), " ".join(words[-num_runs:])


@pytest.mark.parametrize(("num_runs", "shared"), [(3, 2), (12, 8), (150, 100), (1500, 1000)])
def test_an_estimate_varies_no_more_than_with_an_order_of_its_own_for_each_entry(num_runs, shared):
    rng = np.random.default_rng(num_runs)
    pairs = [alike(rng, num_runs, shared) for _ in range(1000)]
    equal = signatures([text for pair in pairs for text in pair], num_hashes=112, run_words=1)
    shares = (equal[::2] == equal[1::2]).mean(axis=1)
    expected = shared / (2 * num_runs - shared)
    deviation = np.sqrt(expected * (1 - expected) / 112)
    assert abs(shares.mean() - expected) < 4 * deviation / np.sqrt(len(pairs))
    assert shares.std() < 1.08 * deviation  # a deviation over 1,000 pairs varies by 2.3 %


@pytest.mark.parametrize("num_hashes", [112, 1000])
@pytest.mark.parametrize("num_runs", [4, 36, 180, 1800])
def test_a_band_is_equal_as_often_as_independent_entries_would_be(num_hashes, num_runs):
    rng = np.random.default_rng(num_runs + num_hashes)
    shared = num_runs * 3 // 4
    pairs = [alike(rng, num_runs, shared) for _ in range(1000)]
    signed = signatures([t for p in pairs for t in p], num_hashes=num_hashes, run_words=1)
    rows = 4
    equal = (signed[::2] == signed[1::2])[:, : num_hashes // rows * rows]
    bands = equal.reshape(len(pairs), -1, rows).all(axis=2)
    expected = (shared / (2 * num_runs - shared)) ** rows
    # Pairs are independent of each other, bands of one pair nearly: the pairs' own spread counts.
    error = bands.mean(axis=1).std() / np.sqrt(len(pairs))
    assert abs(bands.mean() - expected) < 4 * error + 0.02 * expected


def test_entries_are_as_even_as_numbers_drawn_for_each():
    rng = np.random.default_rng(2)
    texts = [" ".join(rng.integers(0, 1 << 40, 300).astype(str)) for _ in range(400)]
    signed = signatures(texts, num_hashes=64, run_words=1)
    lowest = np.bincount((signed & 255).ravel(), minlength=256)
    mean = signed.size / 256
    assert ((lowest - mean) ** 2 / mean).sum() < 255 + 5 * np.sqrt(2 * 255)  # chi squared
    assert len(np.unique(signed)) > 0.999 * signed.size


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
