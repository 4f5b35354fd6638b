"""A batch is examined as datatrove's chain of filters would go through it, document by document."""

import warnings
from dataclasses import replace
from functools import cache

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tokenmill.pipeline.decisions import FIRST, LAST
from tokenmill.pipeline.documents import Documents
from tokenmill.pipeline.edits.config import EditConfig
from tokenmill.pipeline.edits.pii import PiiConfig
from tokenmill.pipeline.edits.repair import RepairConfig
from tokenmill.pipeline.examine import Examiner
from tokenmill.pipeline.filters import FilterConfig
from tokenmill.pipeline.rules.c4 import C4Rule
from tokenmill.pipeline.rules.classifier import ClassifierRule
from tokenmill.pipeline.rules.code import CodeRule
from tokenmill.pipeline.rules.datatrove import DatatroveRule
from tokenmill.pipeline.rules.datatrove_names import DATATROVE_NAMES
from tokenmill.pipeline.rules.fineweb import FineWebRule
from tokenmill.pipeline.rules.gopher import GopherRule
from tokenmill.pipeline.rules.language import LanguageRule
from tokenmill.pipeline.rules.length import LengthRule
from tokenmill.pipeline.rules.refinedweb import RefinedWebRule
from tokenmill.pipeline.rules.science import ScienceRule
from tokenmill.pipeline.rules.symbols import SymbolRule
from tokenmill.pipeline.rules.url import UrlRule
from tokenmill.tokenizer.words import Splitter

WEB = FilterConfig(gopher=GopherRule(), c4=C4Rule(), fineweb=FineWebRule())

SENTENCE = "The old mill by the river has been grinding the grain of {} farms since that year. "
TEXTS = [
    "",
    " \n ",
    "one",
    "".join(SENTENCE.format(number) for number in range(12)),
    "".join(SENTENCE.format(number * 7919) + "\n" for number in range(9)),
    SENTENCE.format("all") * 9,
    "\n\n".join([SENTENCE.format("these")] * 7),
    "\n".join(f"- {SENTENCE.format(number)}" for number in range(40, 49)),
    "\n".join(SENTENCE.format(number) + "and more..." for number in range(40, 49)),
    "".join(SENTENCE.format(number) for number in range(12)) + "Lorem ipsum dolor sit {amet}.",
    "\n".join(f"{SENTENCE.format(n)} # # {{" for n in range(12)) + "\nNot lorem ipsum again.",
    "menu\nhome\nabout us\n" + "".join(SENTENCE.format(n * 31) for n in range(12)) + "\nlogin",
    "\u00a0".join(SENTENCE.format(number) for number in range(12)),
    "".join(SENTENCE.format(number) + "\u2028" for number in range(12)),
    "Это предложение без английских слов. " * 12,
    "1 2 3 4 5 6 7 8 9 " * 30,
]


def documents(texts, **columns):
    """A batch as a reader gives it."""
    n = len(texts)
    none = pa.nulls(n, pa.string())
    numbers = np.arange(n)
    known = dict.fromkeys(("ids", "urls", "licences", "dumps", "languages"), none) | columns
    return Documents(
        pa.array(texts, pa.large_string()), numbers.astype(np.uint64), numbers, **known
    )


def examine(texts, filters, edits=None, kind="web", **columns):
    examiner = Examiner(filters, edits or EditConfig(), kind, Splitter().split)
    return examiner.examine(documents(texts, **columns))


def reasons(examined):
    return [examined.verdict.reasons[code] for code in examined.verdict.codes]


@cache
def chain():
    from datatrove.pipeline.filters import (
        C4QualityFilter,
        FineWebQualityFilter,
        GopherQualityFilter,
        GopherRepetitionFilter,
    )

    return (GopherRepetitionFilter(), GopherQualityFilter(), C4QualityFilter(),
            FineWebQualityFilter())  # fmt: skip


def datatrove(text):
    """The reason that datatrove's filters give, and the text that they leave."""
    from datatrove.data import Document

    document = Document(text, "0")
    with warnings.catch_warnings(action="ignore"):  # numpy's, for the mean of nothing
        for step in chain():
            kept = step.filter(document)
            if kept is not True:
                return kept[1], None
    return "", document.text


def assert_as_datatrove(texts):
    examined = examine(texts, WEB)
    differing = []
    for text, reason, left in zip(
        texts, reasons(examined), examined.texts.to_pylist(), strict=True
    ):
        expected = datatrove(text)
        found = (DATATROVE_NAMES[reason], None) if reason else ("", left)
        if found != expected:
            differing.append((text[:80], found, expected))
    assert differing == []


def test_the_chain_decides_as_datatroves_on_texts_of_every_fate():
    assert_as_datatrove(TEXTS)
    assert len(set(reasons(examine(TEXTS, WEB)))) >= 8


def test_the_chain_decides_as_datatroves_on_real_pages(test_data):
    texts = []
    for file in sorted((test_data / "refinedweb").glob("*.parquet")):
        column = pq.read_table(file, columns=["content"])["content"].to_pylist()
        texts += [text for text in column[5::61] if len(text) < 12_000]
    assert len(texts) > 100
    assert_as_datatrove(texts)


def test_every_document_has_every_signal_whatever_lets_it_go():
    strict = examine(TEXTS, WEB)
    off = GopherRule(**{check.setting: None for check in GopherRule.checks})
    lenient = examine(TEXTS, replace(WEB, gopher=off))
    assert reasons(strict) != reasons(lenient)
    assert strict.signals.keys() == lenient.signals.keys()
    for name, values in strict.signals.items():
        assert len(values) == len(TEXTS), name
        assert np.array_equal(values, lenient.signals[name], equal_nan=True), name


@pytest.mark.parametrize("split", range(1, len(TEXTS)))
def test_a_document_is_judged_alike_in_any_batch(split):
    filters = FilterConfig(
        gopher=GopherRule(), c4=C4Rule(), refinedweb=RefinedWebRule(), fineweb=FineWebRule()
    )
    whole = examine(TEXTS, filters)
    examiner = Examiner(filters, EditConfig(), "web", Splitter().split)
    parts = [examiner.examine(documents(part)) for part in (TEXTS[split:], TEXTS[:split])]
    assert reasons(parts[1]) + reasons(parts[0]) == reasons(whole)
    for name, values in whole.signals.items():
        joined = np.concatenate([parts[1].signals[name], parts[0].signals[name]])
        assert np.array_equal(joined, values, equal_nan=values.dtype.kind == "f"), name


def test_repair_comes_before_the_rules_and_addresses_are_replaced_after_them():
    text = "".join(SENTENCE.format("four\u00e2\u20ac\u201cfive") for _ in range(3)) + "me@mill.org"
    edits = EditConfig(repair=RepairConfig(), pii=PiiConfig())
    filters = FilterConfig(length=LengthRule(min_words=1))
    examined = examine([text, "nothing to mend"], filters, edits)
    repaired = text.replace("\u00e2\u20ac\u201c", "\u2013")
    assert examined.texts.to_pylist() == [
        repaired.replace("me@mill.org", "email@example.com"), "nothing to mend",
    ]  # fmt: skip
    assert examined.num_edits.tolist() == [2, 0]
    assert examined.signals["num_characters"][0] == len("".join(repaired.split()))


def test_the_words_of_a_batch_are_those_of_the_texts_that_are_left():
    examined = examine(TEXTS, WEB, EditConfig(pii=PiiConfig()))
    assert examined.words.join().to_pylist() == examined.texts.to_pylist()


@pytest.mark.parametrize("kind", ["web", "code", "science"])
def test_no_signal_has_the_name_of_a_column_that_every_run_has(kind):
    every = FilterConfig(
        url=UrlRule(), language=LanguageRule(), length=LengthRule(), symbols=SymbolRule(),
        gopher=GopherRule(), c4=C4Rule(), refinedweb=RefinedWebRule(), fineweb=FineWebRule(),
        code=CodeRule(), science=ScienceRule(),
    )  # fmt: skip
    signals = examine(TEXTS, every, kind=kind).signals
    assert signals
    assert not signals.keys() & {*FIRST.names, *LAST.names}


def test_rules_look_at_their_kinds_of_text_alone():
    examined = examine(TEXTS, WEB, kind="code")
    assert set(reasons(examined)) == {""}
    assert not any(name.startswith("gopher") for name in examined.signals)


def test_filters_of_datatroves_see_what_the_rules_keep():
    filters = FilterConfig(
        length=LengthRule(min_words=3),
        datatrove=(
            DatatroveRule(filter="RegexFilter", arguments={"regex_exp": "river"}),
            DatatroveRule(filter="GopherQualityFilter", arguments={"min_doc_words": 5}),
        ),
    )
    found = reasons(
        examine(["river", "by the river", "a b c", TEXTS[3].replace("river", "sea")], filters)
    )
    assert found == [
        "length.min_words", "datatrove.RegexFilter",
        "datatrove.GopherQualityFilter.gopher_short_doc", "",
    ]  # fmt: skip


def test_a_classifier_gets_the_name_of_its_key():
    rule = ClassifierRule(model="quality.bin", label="hq", min_probability=0.5)
    filters = FilterConfig(classifiers={"quality": rule})
    assert filters.classifiers["quality"].signal == "classifier_quality_probability"
