"""Compiled functions are kept on disk, until a file that they were made of changes."""

import subprocess
import sys
from pathlib import Path

import pytest

from tokenmill.tokenizer import compiled

OUTER = """
from tokenmill.compiled import compiled
from tokenmill.{imported} import {name}

@compiled
def answer():
    return {name}{call}
"""
INNER = """
from tokenmill.compiled import compiled_inline
FACTOR = {number}

@compiled_inline
def inner():
    return {number}
"""


@pytest.fixture
def package(tmp_path):
    """A package named as ours, with a compiled function that uses another file's."""
    folder = tmp_path / "tokenmill"
    folder.mkdir()
    source = Path(compiled.__file__).read_text()
    for name, text in {
        "__init__": "",
        "compiled": source,
        "between": "from tokenmill.inner import inner, FACTOR\n",
    }.items():
        (folder / f"{name}.py").write_text(text)
    return folder


def run(package):
    program = (
        "from tokenmill.outer import answer\nprint(answer(), sum(answer.stats.cache_hits.values()))"
    )
    command = [sys.executable, "-c", program]
    return subprocess.check_output(command, cwd=package.parent, text=True).split()


@pytest.mark.parametrize("imported", ["inner", "between"])
@pytest.mark.parametrize(("name", "call"), [("inner", "()"), ("FACTOR", "")])
def test_a_change_in_an_imported_file_is_seen(package, imported, name, call):
    (package / "outer.py").write_text(OUTER.format(imported=imported, name=name, call=call))
    (package / "inner.py").write_text(INNER.format(number=1))
    assert run(package) == ["1", "0"]
    assert run(package) == ["1", "1"]
    (package / "inner.py").write_text(INNER.format(number=20))
    assert run(package) == ["20", "0"]
