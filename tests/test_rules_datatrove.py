"""A filter of datatrove runs as it is: its decisions, its edits and its reasons."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datatrove.data import Document
from datatrove.pipeline.filters import GopherQualityFilter, LambdaFilter
from datatrove.pipeline.filters.base_filter import BaseFilter

from tokenmill.errors import RecipeError, SourceError
from tokenmill.pipeline.documents import Documents
from tokenmill.pipeline.rules.checks import Verdict
from tokenmill.pipeline.rules.datatrove import DatatroveFilter, DatatroveRule, filter_class
from tokenmill.shards.settings import read_settings, to_mapping

HERE = __name__.rpartition(".")[2]
"""How this module is found by a dotted path."""


class Picky(BaseFilter):
    """Drops by what the text says, edits on the way, and raises if asked to."""

    name = "picky"

    def __init__(self, word: str = "bad", exclusion_writer=None):
        super().__init__(exclusion_writer)
        self.word = word
        self.seen: list[tuple[str, dict]] = []

    def filter(self, doc: Document):
        self.seen.append((doc.id, dict(doc.metadata)))
        if doc.text == "raise":
            raise KeyError("nothing here")
        if doc.text == "break":
            doc.text = "\ud800"
        doc.text = doc.text.replace("cut", "")
        if self.word in doc.text:
            return False, " too  bad\n"
        return "silent" not in doc.text


class InBatches(BaseFilter):
    """Judges three at once: the longest goes."""

    name = "in batches"

    def __init__(self, exclusion_writer=None):
        super().__init__(exclusion_writer, batch_size=3)

    def filter(self, doc):
        raise NotImplementedError

    def filter_batch(self, batch):
        longest = max(len(doc.text) for doc in batch)
        return [len(doc.text) < longest or (False, "longest") for doc in batch]


class MakesDocuments(BaseFilter):
    """Is no filter, though it says so."""

    name = "makes documents"

    def filter(self, doc):
        raise NotImplementedError

    def run(self, data, rank=0, world_size=1):
        for doc in data:
            yield doc
            yield Document(text=doc.text, id="another")


def documents(texts, urls=None) -> Documents:
    rows = np.arange(len(texts))
    nothing = pa.nulls(len(texts), pa.string())
    return Documents(
        texts=pa.array(texts, pa.large_string()),
        doc_ids=rows.astype(np.uint64) + np.uint64(100),
        positions=rows,
        ids=pa.array([None if row else "first" for row in rows], pa.string()),
        urls=nothing if urls is None else pa.array(urls, pa.string()),
        licences=nothing,
        dumps=nothing,
        languages=nothing,
    )


def applied(rule: DatatroveRule, texts, urls=None, dropped=()):
    """The edit, and the reason of each document."""
    batch = documents(texts, urls)
    verdict = Verdict(len(texts))
    gone = np.zeros(len(texts), np.bool_)
    gone[list(dropped)] = True
    verdict.drop(gone, "before")
    edited = DatatroveFilter(rule).apply(batch.texts, batch, verdict)
    return edited, [verdict.reasons[code] for code in verdict.codes]


def test_reasons_are_the_filters_own_and_edits_of_kept_documents_are_taken():
    texts = ["fine", "a bad one", "silent", "cut it", "cut bad", ""]
    edited, reasons = applied(DatatroveRule(filter=f"{HERE}.Picky"), texts)
    assert reasons == ["", "datatrove.Picky.too_bad", "datatrove.Picky", "", reasons[1], ""]
    assert edited.texts.to_pylist() == ["fine", "a bad one", "silent", " it", "cut bad", ""]
    assert edited.num_edits.tolist() == [0, 0, 0, 1, 0, 0]


def test_only_documents_that_are_kept_so_far_are_shown():
    made = DatatroveFilter(DatatroveRule(filter=f"{HERE}.Picky", arguments={"word": "fine"}))
    batch = documents(["fine", "raise", "good"], ["http://a.org", None, None])
    verdict = Verdict(3)
    verdict.drop(np.array([False, True, False]), "before")
    edited = made.apply(batch.texts, batch, verdict)
    assert made._filter.seen == [("first", {"url": "http://a.org"}), ("102", {})]
    assert [verdict.reasons[code] for code in verdict.codes] == [
        "datatrove.Picky.too_bad", "before", "",
    ]  # fmt: skip
    assert edited.texts is batch.texts


def test_nothing_kept_and_nothing_given_are_fine():
    rule = DatatroveRule(filter=f"{HERE}.Picky")
    assert applied(rule, ["bad", "raise"], dropped=[0, 1])[1] == ["before", "before"]
    assert applied(rule, [])[1] == []


def test_a_filter_may_judge_in_batches():
    reasons = applied(DatatroveRule(filter=f"{HERE}.InBatches"), ["a", "bb", "c", "d", "ee"])[1]
    assert reasons == ["", "datatrove.InBatches.longest", "", "", "datatrove.InBatches.longest"]


def test_a_step_that_makes_documents_is_no_filter():
    with pytest.raises(RecipeError, match="MakesDocuments yields documents of its own"):
        applied(DatatroveRule(filter=f"{HERE}.MakesDocuments"), ["a"])


@pytest.mark.parametrize("text", ["raise", "break"])
def test_a_filter_that_fails_names_itself_and_the_document(text):
    with pytest.raises(SourceError, match=r"datatrove's Picky .*document 101 \(http://b\.org\)"):
        applied(
            DatatroveRule(filter=f"{HERE}.Picky"), ["a", text, "b"], [None, "http://b.org", None]
        )


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "GopherQualtyFilter",
            r"no filter GopherQualtyFilter\. Did you mean GopherQualityFilter\?",
        ),
        (
            "Picky",
            r"datatrove has no filter Picky\. .*a class of your own is named with its package",
        ),
        ("no_such_package.Filter", r"no_such_package\.Filter: no such class .*No module named"),
        (f"{HERE}.Absent", r"Absent: no such class .*has no attribute"),
        ("collections.OrderedDict", r"expected a subclass of datatrove's BaseFilter, found <class"),
        ("json.dumps", r"expected a subclass of datatrove's BaseFilter, found <function"),
    ],
)
def test_an_unknown_filter_is_refused(name, message):
    with pytest.raises(RecipeError, match=message):
        DatatroveFilter(DatatroveRule(filter=name))


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        (
            "GopherQualityFilter",
            {"min_doc_word": 3},
            r"min_doc_word: .*Did you mean min_doc_words\?",
        ),
        ("RegexFilter", {}, r"RegexFilter: cannot be made .*regex_exp"),
        ("RegexFilter", {"exclusion_writer": "x"}, r"exclusion_writer: unknown key"),
    ],
)
def test_wrong_arguments_are_refused(name, arguments, message):
    with pytest.raises(RecipeError, match=message):
        DatatroveFilter(DatatroveRule(filter=name, arguments=arguments))


def test_a_rule_is_read_from_a_recipe_and_written_back():
    mapping = {
        "filter": "GopherQualityFilter",
        "arguments": {"min_doc_words": 3, "stop_words": ["a"]},
    }
    rule = read_settings(DatatroveRule, mapping, "recipe")
    assert rule.arguments == mapping["arguments"]
    assert read_settings(DatatroveRule, to_mapping(rule), "recipe") == rule
    assert filter_class("LambdaFilter") is LambdaFilter


def assert_decided_as_by_datatrove(texts: list[str]) -> None:
    oracle = GopherQualityFilter()
    wanted = []
    for text in texts:
        verdict = oracle.filter(Document(text=text, id=""))
        wanted.append("" if verdict is True else f"datatrove.GopherQualityFilter.{verdict[1]}")
    assert applied(DatatroveRule(filter="GopherQualityFilter"), texts)[1] == wanted


def test_documents_are_decided_as_by_the_filter_alone():
    prose = "The miller and the baker have to be with that flour of the mill. " * 8
    assert_decided_as_by_datatrove([prose, "too short", "# " * 60, prose.replace("e", "#"), ""])


def test_real_documents_are_decided_as_by_the_filter_alone(test_data):
    file = sorted((test_data / "refinedweb").glob("*.parquet"))[0]
    texts = pq.read_table(file, columns=["content"])["content"].to_pylist()[:200:10]
    assert_decided_as_by_datatrove([text for text in texts if len(text) < 30_000])
