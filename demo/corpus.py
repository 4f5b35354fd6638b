"""A small corpus from text that stands on any machine with Python: prose, code and science.

web.parquet       RefinedWeb-shaped: help topics, module documentation, package descriptions
code.jsonl.zst    the standard library's source files
science.jsonl     the longer docstrings of numpy and torch
"""

import ast
import importlib
import importlib.metadata
import inspect
import json
import pydoc_data.topics
import sysconfig
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pyarrow as pa
import pyarrow.parquet as pq
import zstandard

MIN_CHARACTERS = 400
MAX_CODE_BYTES = 400_000
SCIENCE = (
    "numpy", "numpy.char", "numpy.fft", "numpy.linalg", "numpy.ma", "numpy.polynomial",
    "numpy.random", "torch", "torch.Tensor", "torch.autograd", "torch.cuda", "torch.distributed",
    "torch.distributions", "torch.fft", "torch.linalg", "torch.nn", "torch.nn.functional",
    "torch.nn.init", "torch.nn.utils", "torch.optim", "torch.optim.lr_scheduler", "torch.sparse",
    "torch.special", "torch.utils.data",
)  # fmt: skip


def write_corpus(folder: Path) -> None:
    """Write the three sources into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    pages = list(prose())
    table = {"content": [text for _, text in pages], "url": [place for place, _ in pages]}
    pq.write_table(pa.table(table), folder / "web.parquet", row_group_size=500)
    with zstandard.open(folder / "code.jsonl.zst", "wt", encoding="utf-8") as file:
        for path, text in code():
            file.write(json.dumps({"content": text, "path": path, "license": "PSF-2.0"}) + "\n")
    with (folder / "science.jsonl").open("w", encoding="utf-8") as file:
        for name, text in docstrings():
            file.write(json.dumps({"id": name, "text": text}) + "\n")


def prose() -> Iterator[tuple[str, str]]:
    """(place, text): help topics, a page for each documented module, package descriptions."""
    for topic, text in sorted(pydoc_data.topics.topics.items()):
        yield f"topic:{topic}", text
    for path, text in code():
        page = "\n\n".join(_documentation(text))
        if len(page) >= MIN_CHARACTERS:
            yield f"module:{path}", page
    descriptions = {
        distribution.name: _description(distribution)
        for distribution in importlib.metadata.distributions()
    }
    for name, text in sorted(descriptions.items()):
        if len(text) >= MIN_CHARACTERS:
            yield f"package:{name}", text


def code() -> Iterator[tuple[str, str]]:
    """(path, text) of the standard library's files, in order."""
    library = Path(sysconfig.get_path("stdlib"))
    for path in sorted(library.rglob("*.py")):
        place = path.relative_to(library)
        if {"site-packages", "dist-packages", "__pycache__", "test", "tests", "idlelib"} & set(
            place.parts
        ):
            continue
        try:
            text = path.read_bytes().decode()
        except UnicodeDecodeError:
            continue  # the library's own tests of broken encodings
        if MIN_CHARACTERS <= len(text) <= MAX_CODE_BYTES:
            yield place.as_posix(), text


def docstrings() -> Iterator[tuple[str, str]]:
    """(name, text) of numpy's and torch's longer docstrings, each text once."""
    seen: set[str] = set()
    for name in SCIENCE:
        for member, text in _member_docs(_load(name)):
            if len(text) >= MIN_CHARACTERS and text not in seen:
                seen.add(text)
                yield f"{name}.{member}", text


def _load(name: str) -> ModuleType | type:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:  # a class, as torch.Tensor
        module, _, member = name.rpartition(".")
        found: type = getattr(importlib.import_module(module), member)
        return found


def _member_docs(owner: ModuleType | type) -> Iterator[tuple[str, str]]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated members say so when they are looked at
        for member in sorted(dir(owner)):
            try:
                text = inspect.getdoc(getattr(owner, member))
            except Exception:  # a member may do anything when it is looked at
                continue
            if text:
                yield member, text


def _documentation(source: str) -> Iterator[str]:
    """The docstrings of a module, its classes and functions."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # odd escapes in old files
            tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            text = ast.get_docstring(node)
            if text and len(text) > 80:
                yield text


def _description(distribution: importlib.metadata.Distribution) -> str:
    metadata = distribution.metadata
    body = metadata.get_payload() if hasattr(metadata, "get_payload") else ""
    return str(body or metadata.get("Description", ""))
