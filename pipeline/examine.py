"""Examine a batch: edit its texts, measure its signals, judge.

    repair ──> rules on the text ──> lines cut ──> rules on what is left ──> addresses replaced

Every signal is measured for every document, also for one that an earlier rule lets go: so another
threshold can be tried on the decisions alone. Only datatrove's own filters, which are slow, see
just the documents that are kept so far. What is costly and depends on nothing but a word (spaCy's
words, fastText's sums) is kept from batch to batch by the objects held here.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tokenmill.pipeline.documents import Documents
from tokenmill.pipeline.edits.config import EditConfig
from tokenmill.pipeline.edits.edited import Edited
from tokenmill.pipeline.edits.pii import replace_pii
from tokenmill.pipeline.edits.repair import repair
from tokenmill.pipeline.filters import FilterConfig, rules_of
from tokenmill.pipeline.rules.c4 import edit_c4, measure_c4
from tokenmill.pipeline.rules.checks import Signals, Verdict, judge
from tokenmill.pipeline.rules.classifier import Classifiers
from tokenmill.pipeline.rules.code import measure_code
from tokenmill.pipeline.rules.datatrove import DatatroveFilter
from tokenmill.pipeline.rules.english import EnglishSplitter, EnglishWords
from tokenmill.pipeline.rules.fineweb import measure_fineweb
from tokenmill.pipeline.rules.gopher import measure_gopher
from tokenmill.pipeline.rules.language import Language
from tokenmill.pipeline.rules.length import measure_length
from tokenmill.pipeline.rules.refinedweb import edit_refinedweb
from tokenmill.pipeline.rules.science import measure_science
from tokenmill.pipeline.rules.symbols import measure_symbols
from tokenmill.pipeline.rules.url import measure_urls
from tokenmill.pipeline.sources import Kind
from tokenmill.tokenizer.words import Texts, Words


@dataclass(frozen=True, slots=True)
class Examined:
    """What the rules found out about a batch, and what they left of it."""

    texts: pa.LargeStringArray
    """(documents,) after all edits."""
    words: Words
    """Of those texts."""
    signals: Signals
    verdict: Verdict
    num_edits: NDArray[np.int32]
    """(documents,) changes made to each."""


class Examiner:
    """Examines batches of one kind of text; one for each thread."""

    def __init__(
        self,
        filters: FilterConfig,
        edits: EditConfig,
        kind: Kind,
        split: Callable[[Texts], Words],
        english: EnglishSplitter | None = None,
    ) -> None:
        """
        Args:
            split: cuts texts into words, as the tokenizer's `split` does.
            english: splits words as spaCy does; a new one by default.

        Raises:
            TokenmillError: a model or list that a rule names is missing or damaged.
        """
        self._rules = rules_of(filters, kind)
        self._filters, self._edits, self._kind, self._split = filters, edits, kind, split
        self.english = english or EnglishSplitter()
        languages = filters.language if self._judges("language") else None
        self._language = Language(languages) if languages else None
        self._classifiers = Classifiers(
            rule for rule in filters.classifiers.values() if kind in rule.kinds
        )
        self._datatrove = [
            DatatroveFilter(rule) for rule in filters.datatrove if kind in rule.kinds
        ]

    def examine(self, documents: Documents) -> Examined:
        """Edit, measure and judge a batch."""
        batch = _Batch(documents.texts, self._split, self.english)
        repairing, replacing = self._edits.repair, self._edits.pii
        if repairing and self._kind in repairing.kinds:
            batch.edit(repair(batch.texts, repairing))
        self._measure(batch, documents)
        self.english.forget_if_full()
        verdict = Verdict(len(documents.texts))
        judge(self._rules, batch.signals, verdict)
        for foreign in self._datatrove:
            batch.edit(foreign.apply(batch.texts, documents, verdict))
        if replacing and self._kind in replacing.kinds:
            batch.edit(replace_pii(batch.texts, replacing))
        return Examined(batch.texts, batch.words, batch.signals, verdict, batch.num_edits)

    def _measure(self, batch: "_Batch", documents: Documents) -> None:
        """All signals, in the order of the rules; lines are cut on the way."""
        filters, signals = self._filters, batch.signals
        signals |= measure_length(batch.words) | measure_symbols(batch.words)
        if filters.url and self._judges("url"):
            signals |= measure_urls(documents.urls, filters.url)
        if self._language:
            signals |= self._language.measure(batch.words)
        signals |= self._classifiers.measure(batch.words)
        if filters.gopher and self._judges("gopher"):
            signals |= measure_gopher(batch.texts, batch.english)
        if filters.c4 and self._judges("c4"):
            batch.edit(edit_c4(batch.texts, filters.c4))
            signals |= measure_c4(batch.english)
        if filters.refinedweb and self._judges("refinedweb"):
            batch.edit(edit_refinedweb(batch.texts, filters.refinedweb))
        if filters.fineweb and self._judges("fineweb"):
            signals |= measure_fineweb(batch.texts, batch.english, filters.fineweb)
        if filters.code and self._judges("code"):
            signals |= measure_code(batch.texts, documents.licences, documents.ids, filters.code)
        if filters.science and self._judges("science"):
            signals |= measure_science(batch.texts)

    def _judges(self, rule: str) -> bool:
        return rule in self._rules


class _Batch:
    """Texts on their way through the edits, with the words of the present ones."""

    def __init__(
        self,
        texts: pa.LargeStringArray,
        split: Callable[[Texts], Words],
        english: EnglishSplitter,
    ) -> None:
        self.texts = texts
        self.signals: Signals = {}
        self.num_edits = np.zeros(len(texts), np.int32)
        self._split, self._splitter = split, english
        self._words: Words | None = None
        self._english: EnglishWords | None = None

    @property
    def words(self) -> Words:
        if self._words is None:
            self._words = self._split(self.texts)
        return self._words

    @property
    def english(self) -> EnglishWords:
        if self._english is None:
            self._english = self._splitter.split(self.words)
        return self._english

    def edit(self, edited: Edited) -> None:
        """Go on with edited texts."""
        if edited.texts is not self.texts:
            self.texts, self._words, self._english = edited.texts, None, None
        self.num_edits += edited.num_edits
        self.signals |= edited.signals
