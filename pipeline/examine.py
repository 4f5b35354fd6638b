"""Examine a batch: edit its texts, measure its signals, judge.

    repair ──> rules on the text ──> lines cut ──> rules on what is left ──> addresses

Every signal is measured for every document, also for one that an earlier rule lets go: so another
threshold can be tried on the decisions alone. What is costly and depends on nothing but a word
(spaCy's words, fastText's sums) is kept from batch to batch by the objects held here.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tokenmill.pipeline.documents import Documents
from tokenmill.pipeline.filters import FilterConfig, rules_of
from tokenmill.pipeline.rules.checks import Signals, Verdict, judge
from tokenmill.pipeline.rules.length import measure_length
from tokenmill.pipeline.rules.symbols import measure_symbols
from tokenmill.pipeline.sources import Kind
from tokenmill.tokenizer.encoder import Encoder
from tokenmill.tokenizer.words import Words


@dataclass(frozen=True, slots=True)
class Examined:
    """What the rules found out about a batch, and what they left of it."""

    texts: pa.Array
    """(documents,) large_string, after all edits."""
    words: Words
    """Of those texts."""
    signals: Signals
    verdict: Verdict
    edits: NDArray[np.int32]
    """(documents,) changes made to each."""


class Examiner:
    """Examines batches of one kind of text."""

    def __init__(self, filters: FilterConfig, kind: Kind, encoder: Encoder) -> None:
        self._rules = rules_of(filters, kind)
        self._encoder = encoder

    def examine(self, documents: Documents) -> Examined:
        texts = documents.texts
        words = self._encoder.split(texts)
        signals = measure_length(words) | measure_symbols(words)
        verdict = Verdict(len(texts))
        judge(self._rules, signals, verdict)
        return Examined(texts, words, signals, verdict, np.zeros(len(texts), np.int32))
