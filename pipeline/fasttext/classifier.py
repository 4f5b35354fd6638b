"""A fastText model over words and gaps: what `predict` says of a text, without reading it.

    classifier = Classifier(load_model(Path("lid.176.ftz")))
    vectors = classifier.vectors(words)                          # (documents, dim)
    labels, probabilities = classifier.best(vectors)             # labels number classifier.labels
    classifier.probabilities(vectors, classifier.numbers(["en", "de"]))    # (documents, 2)

A document's text is taken as one line, each line feed a space, and its end is a word of its own, as
fastText's Python package does it. Its labels come out and its probabilities to 1e-4: only the order
in which vectors are added differs. Two exceptions: fastText adds in single precision, so its own
errors exceed that on some documents of 200 KB and more; and the probabilities of one-vs-all go in
steps of up to 0.008, where a value that lies on an edge may fall on either side.
"""

import difflib
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from tokenmill.errors import RecipeError
from tokenmill.pipeline.fasttext.document_sums import MAX_SUM_BYTES, DocumentSums
from tokenmill.pipeline.fasttext.model_file import FastTextModel
from tokenmill.tokenizer.words import Words


class Classifier:
    """Answers batch after batch; it remembers words, so it belongs to one thread."""

    def __init__(self, model: FastTextModel, max_sum_bytes: int = MAX_SUM_BYTES) -> None:
        self.path = model.path
        self.labels = model.labels
        self._output = model.output
        self._sums = DocumentSums(model.input, max_sum_bytes)

    def vectors(self, words: Words) -> NDArray[np.float64]:
        """(documents, dim) the mean of each document's input vectors; NaN where it has none.

        Args:
            words: as Splitter gives them, not split further.
        """
        sums = self._sums.sums(words)
        with np.errstate(invalid="ignore"):  # 0 / 0: a document without vectors
            return sums[:, :-1] / sums[:, -1:]

    def best(self, vectors: NDArray[np.float64]) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
        """(documents,) the number of the likeliest label and (documents,) its probability.

        A document without a vector has the label -1 and the probability 0; fastText answers
        nothing there. That takes a model that does not know "</s>".
        """
        return self._output.best(vectors)

    def probabilities(
        self, vectors: NDArray[np.float64], labels: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        """(documents, labels) the probability of each of the numbered labels."""
        return self._output.probabilities(vectors, labels)

    def numbers(self, labels: Iterable[str]) -> NDArray[np.int64]:
        """(labels,) the number of each named label.

        Raises:
            RecipeError: the model has no such label.
        """
        return np.array([self._number(label) for label in labels], np.int64)

    def _number(self, label: str) -> int:
        if label in self.labels:
            return self.labels.index(label)
        close = difflib.get_close_matches(label, self.labels, n=1)
        hint = f" Did you mean {close[0]}?" if close else ""
        known = ", ".join(sorted(self.labels)[:200])
        raise RecipeError(f"{self.path}: has no label {label}.{hint} Its labels: {known}")
