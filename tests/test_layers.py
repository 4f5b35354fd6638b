"""The layout is the architecture: links, one-way imports, and a wheel that holds every module."""

import ast
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

MAY_IMPORT = {
    "shards": [],
    "tokenizer": ["shards"],
    "pipeline": ["tokenizer", "shards"],
    "loader": ["shards"],
    "training": ["loader", "shards"],
}
ONLY_IN = {
    "ray": ["pipeline/ray_engine.py", "training/ray_train.py"],
    "torch.distributed": ["training/parallel.py", "training/sharded.py", "training/state.py"],
}


def imported_names(node: ast.AST) -> Iterator[str]:
    """Dotted names that an import statement, in any form, makes Python load."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        yield from (f"{'.' * node.level}{node.module or ''}.{alias.name}" for alias in node.names)
    elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(
        ("import_module", "__import__")
    ):
        yield from (ast.literal_eval(argument) for argument in node.args[:1])


def imports_of(folder: str) -> Iterator[tuple[str, str]]:
    for file in sorted((ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            for name in imported_names(node):
                yield file.relative_to(ROOT).as_posix(), name


@pytest.mark.parametrize("folder", MAY_IMPORT)
def test_each_link_points_at_its_folder(folder):
    link = ROOT / "tokenmill" / folder
    assert link.is_symlink()
    assert link.readlink() == Path("..") / folder
    assert link.resolve() == (ROOT / folder).resolve()


@pytest.mark.parametrize("folder", MAY_IMPORT)
def test_imports_point_one_way(folder):
    found = list(imports_of(folder))
    assert found
    for file, name in found:
        assert not name.startswith("."), f"{file}: relative import {name}"
        if name.split(".")[0] == "tokenmill" and name != "tokenmill.__version__":
            assert name.split(".")[1] in ["errors", folder, *MAY_IMPORT[folder]], f"{file}: {name}"


@pytest.mark.parametrize("library", ONLY_IN)
def test_ray_and_torch_distributed_stay_in_their_files(library):
    for folder in (*MAY_IMPORT, "tokenmill"):
        for file, name in imports_of(folder):
            if f"{name}.".startswith(f"{library}."):
                assert file in ONLY_IN[library], f"{file}: imports {name}"


def test_the_direction_test_sees_every_form_of_import():
    source = """
import tokenmill.loader.order
from tokenmill import loader
from tokenmill.loader import order
from .loader import order
importlib.import_module("tokenmill.loader")
"""
    names = [name for node in ast.walk(ast.parse(source)) for name in imported_names(node)]
    assert sorted(names) == [
        ".loader.order",
        "tokenmill.loader",
        "tokenmill.loader",
        "tokenmill.loader.order",
        "tokenmill.loader.order",
    ]


def test_the_built_wheel_holds_every_module(tmp_path):
    files = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout.split("\n")  # fmt: skip
    # A copy, because a build leaves folders behind in the tree it builds.
    for name in files:
        if not name or not (ROOT / name).exists():
            continue
        copy = tmp_path / "tree" / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).is_symlink():
            copy.symlink_to((ROOT / name).readlink())
        else:
            copy.write_bytes((ROOT / name).read_bytes())
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation",
         "--wheel-dir", tmp_path, tmp_path / "tree"],
        check=True,
    )  # fmt: skip
    (wheel,) = tmp_path.glob("tokenmill-*.whl")
    inside = set(zipfile.ZipFile(wheel).namelist())
    modules = {f"tokenmill/{name}" for name in files if name.split("/")[0] in MAY_IMPORT}
    modules |= {name for name in files if name.startswith("tokenmill/")}
    modules = {name for name in modules if name.endswith(".py")}
    assert len(modules) > 30
    assert not modules - inside
