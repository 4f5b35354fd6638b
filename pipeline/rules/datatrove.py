"""Any filter of datatrove, by name, run as it is.

    filters:
      datatrove:
        - filter: C4ParagraphFilter
        - filter: mypackage.filters.OnlyShort    # any subclass of datatrove's BaseFilter
          arguments: {max_words: 500}

Its own `run` gets the documents that are kept so far, one after another; what it yields stays, with
the text that it may have changed, and the rest goes for the reason it gave. Such a filter stores no
signals and runs at its own speed. One whose answer depends on the documents before it, as
SamplerFilter's does, makes a corpus depend on how the work was dealt to workers.
"""

import difflib
import inspect
import pkgutil
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from datatrove.data import Document
from numpy.typing import NDArray

from tokenmill.errors import RecipeError, SourceError
from tokenmill.pipeline.documents import Documents
from tokenmill.pipeline.edits.edited import Edited
from tokenmill.pipeline.edits.splice import splice
from tokenmill.pipeline.rules.checks import Verdict
from tokenmill.pipeline.sources import Kind
from tokenmill.shards.settings import unknown_key
from tokenmill.tokenizer.words import text_buffers

if TYPE_CHECKING:
    from datatrove.pipeline.filters.base_filter import BaseFilter


@dataclass(frozen=True, kw_only=True, slots=True)
class DatatroveRule:
    """A filter of datatrove and what it is made with."""

    filter: str
    """A class of datatrove.pipeline.filters, or the dotted path of another BaseFilter."""
    arguments: dict[str, Any] = field(default_factory=dict)
    """What its constructor gets, by name."""
    kinds: tuple[Kind, ...] = ("web", "code", "science")
    """The kinds of text it judges."""


class DatatroveFilter:
    """A filter at work. Not for several threads."""

    def __init__(self, rule: DatatroveRule) -> None:
        """
        Raises:
            RecipeError: there is no such filter, it does not take these arguments, or a library
                that it needs is missing.
        """
        made = filter_class(rule.filter)
        self._name = made.__name__
        _check_arguments(made, rule)
        try:
            self._filter = made(**rule.arguments)
        except Exception as error:  # a constructor of anybody's
            raise RecipeError(
                f"{rule.filter}: cannot be made with these arguments ({error})."
            ) from error
        self._dropped = _Dropped()
        self._filter.exclusion_writer = self._dropped

    def apply(self, texts: pa.LargeStringArray, documents: Documents, verdict: Verdict) -> Edited:
        """Let the filter see the documents that are kept so far, and drop what it drops.

        Args:
            texts: (documents,) as edited so far.

        Raises:
            SourceError: the filter raises on a document, or makes a text that is not Unicode.
            RecipeError: it yields documents that it was not given.
        """
        rows = np.flatnonzero(verdict.kept).tolist()
        given = [_document(texts, documents, row) for row in rows]
        through = self._run(given)
        dropped: dict[str, list[int]] = {}
        changed, written = [], []
        for row, document in zip(rows, given, strict=True):
            if id(document) not in through:
                dropped.setdefault(self._reason(document), []).append(row)
            elif document.text != texts[row].as_py():
                changed.append(row)
                written.append(self._encoded(document))
        for reason, gone in dropped.items():
            chosen = np.zeros(len(texts), np.bool_)
            chosen[gone] = True
            verdict.drop(chosen, reason)
        return _edited(texts, np.array(changed, np.int64), written)

    def _run(self, given: list[Document]) -> set[int]:
        """The identities of the documents that the filter lets through."""
        self._dropped.reasons.clear()
        num_handed = 0

        def handed_out() -> Iterator[Document]:
            nonlocal num_handed
            for document in given:
                num_handed += 1
                yield document

        try:
            through = {id(document) for document in self._filter.run(handed_out())}
        except Exception as error:  # it is not our code, so it may raise anything
            place = _named(given[num_handed - 1]) if num_handed else "its start"
            raise SourceError(
                f"datatrove's {self._name} raised {type(error).__name__}: {error} at {place}. "
                "Take the filter out of the recipe, or the document out of the source."
            ) from error
        if not through <= {id(document) for document in given}:
            raise RecipeError(f"datatrove's {self._name} yields documents of its own: no filter.")
        return through

    def _reason(self, document: Document) -> str:
        """datatrove.<class>.<the filter's own reason, without white space>."""
        own = re.sub(r"\s+", "_", self._dropped.reasons.get(id(document), "").strip())
        return f"datatrove.{self._name}.{own}" if own else f"datatrove.{self._name}"

    def _encoded(self, document: Document) -> bytes:
        try:
            return bytes(document.text.encode())
        except (AttributeError, UnicodeEncodeError) as error:
            raise SourceError(
                f"datatrove's {self._name} made a text of {_named(document)} that cannot be stored "
                f"({error}). Take the filter out of the recipe, or the document out of the source."
            ) from None


def filter_class(name: str) -> "type[BaseFilter]":
    """The class that a rule names.

    Raises:
        RecipeError: there is none of that name, or it is no filter.
    """
    # Half a second, for recipes with such a filter alone.
    from datatrove.pipeline import filters
    from datatrove.pipeline.filters.base_filter import BaseFilter

    if "." not in name:
        known = [key for key, value in vars(filters).items() if isinstance(value, type)]
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f" Did you mean {close[0]}?" if close else ""
            raise RecipeError(
                f"filters.datatrove: datatrove has no filter {name}.{hint} It has "
                f"{', '.join(sorted(known))}; a class of your own is named with its package."
            )
        name = f"{filters.__name__}.{name}"
    try:
        found = pkgutil.resolve_name(name)
    except (ImportError, AttributeError, ValueError) as error:
        raise RecipeError(f"{name}: no such class ({error}). Is its package installed?") from None
    if not (isinstance(found, type) and issubclass(found, BaseFilter)):
        raise RecipeError(
            f"{name}: expected a subclass of datatrove's BaseFilter, found {found!r}."
        )
    return found


class _Dropped:
    """Takes the place of a filter's exclusion writer, to hear why a document goes."""

    def __init__(self) -> None:
        self.reasons: dict[int, str] = {}
        """By the identity of the document."""

    def __enter__(self) -> "_Dropped":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def write(self, document: Document, rank: int = 0) -> None:
        self.reasons[id(document)] = str(document.metadata.get("filter_reason", ""))


def _check_arguments(made: "type[BaseFilter]", rule: DatatroveRule) -> None:
    parameters = inspect.signature(made).parameters.values()
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return
    # What is dropped stands in the decisions; a writer of the filter's own would never be called.
    known = [parameter.name for parameter in parameters if parameter.name != "exclusion_writer"]
    for name in rule.arguments:
        if name not in known:
            raise RecipeError(unknown_key(f"{rule.filter}.arguments", name, known))


def _document(texts: pa.LargeStringArray, documents: Documents, row: int) -> Document:
    known = {"url": documents.urls[row].as_py(), "licence": documents.licences[row].as_py()}
    metadata = {name: value for name, value in known.items() if value is not None}
    own_id = documents.ids[row].as_py() or str(documents.doc_ids[row])
    return Document(texts[row].as_py(), own_id, metadata=metadata)


def _named(document: Document) -> str:
    url = document.metadata.get("url")
    return f"document {document.id}" + (f" ({url})" if url else "")


def _edited(texts: pa.LargeStringArray, rows: NDArray[np.int64], written: list[bytes]) -> Edited:
    offsets, _ = text_buffers(texts)
    bounds = zip(
        rows.tolist(), offsets[rows].tolist(), offsets[rows + 1].tolist(), written, strict=True
    )
    num_edits = np.zeros(len(texts), np.int32)
    num_edits[rows] = 1
    return Edited(splice(texts, bounds), num_edits, {})
