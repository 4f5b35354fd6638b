"""Classifiers: a document stays if a fastText model gives a label a probability within limits.

    filters:
      classifiers:
        quality: {model: quality.bin, label: hq, min_probability: 0.018}

Any model of labels will do, also one with runs of words, as quality models have them (DCLM's
fasttext-oh-eli5). The probability is stored for every document, in the column
classifier_<name>_probability. Line feeds separate words; datatrove's FastTextClassifierFilter
deletes them, which joins the words around them.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tokenmill.errors import RecipeError
from tokenmill.pipeline.fasttext.classifier import Classifier
from tokenmill.pipeline.fasttext.model_file import load_model
from tokenmill.pipeline.rules.checks import Breaks, Check, Signals
from tokenmill.pipeline.sources import Kind
from tokenmill.tokenizer.words import Words


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassifierRule:
    """What one model must say of a document."""

    name: str = ""
    """The key that it has in the recipe; it names the signal."""
    model: str
    """The path of a fastText model that was trained with labels."""
    label: str
    """The label whose probability is compared, without __label__."""
    min_probability: float | None = None
    """Least probability of a document that stays."""
    max_probability: float | None = None
    """Highest probability of a document that stays."""
    kinds: tuple[Kind, ...] = ("web",)
    """The kinds of text it judges."""

    def __post_init__(self) -> None:
        limits = [p for p in (self.min_probability, self.max_probability) if p is not None]
        if not limits:
            raise RecipeError("give min_probability, max_probability or both")
        if limits != sorted(limits) or not all(0 <= limit <= 1 for limit in limits):
            raise RecipeError(
                "need 0 <= min_probability <= max_probability <= 1, "
                f"got {self.min_probability} and {self.max_probability}"
            )

    @property
    def checks(self) -> tuple[Check, ...]:
        """In the order in which they decide."""
        return (
            Check("min_probability", self.signal, Breaks.BELOW),
            Check("max_probability", self.signal, Breaks.ABOVE),
        )

    @property
    def signal(self) -> str:
        """The name of its column."""
        return f"classifier_{self.name}_probability"


class Classifiers:
    """Measures the signals of rules batch after batch; one for each process."""

    def __init__(self, rules: Iterable[ClassifierRule]) -> None:
        """
        Raises:
            RecipeError: there is no such model, or it does not know a label.
            SourceError: a model's file is damaged.
        """
        self._rules = tuple(rules)
        paths = {rule.model for rule in self._rules}
        self._models = {path: Classifier(load_model(Path(path))) for path in sorted(paths)}
        self._labels = [self._models[rule.model].numbers([rule.label]) for rule in self._rules]

    def measure(self, words: Words) -> Signals:
        """(documents,) the probability that each rule compares."""
        vectors = {path: model.vectors(words) for path, model in self._models.items()}
        signals: Signals = {}
        for rule, label in zip(self._rules, self._labels, strict=True):
            model = self._models[rule.model]
            signals[rule.signal] = model.probabilities(vectors[rule.model], label)[:, 0]
        return signals
