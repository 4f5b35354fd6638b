"""The command line: no command waits for what another needs."""

import pkgutil
import subprocess
import sys

import pytest

from tokenmill import __version__
from tokenmill.cli import _parser, main


def loaded_by(code: str) -> set[str]:
    """The modules that this code makes a fresh Python load, the standard library's left out."""
    listing = (
        "import sys; before = set(sys.modules)\n"
        f"{code}\n"
        "names = set(sys.modules) - before\n"
        "print(*(n for n in names if n.split('.')[0] not in sys.stdlib_module_names), sep='\\n')"
    )
    done = subprocess.run(
        [sys.executable, "-c", listing], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def test_help_version_and_usage_errors_load_nothing_but_the_parser():
    code = """
import contextlib, io
from tokenmill.cli import main
for arguments in (["--help"], ["--version"], ["train", "--help"], ["train"], ["milk"]):
    with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()):
        with contextlib.redirect_stderr(io.StringIO()):
            main(arguments)
"""
    assert loaded_by(code) == {"tokenmill", "tokenmill.cli", "tokenmill.errors"}


@pytest.mark.parametrize(
    ("commands", "others"),
    [
        (("run", "training"), {"numba", "tokenmill.loader", "tokenmill.pipeline", "torch"}),
        (("build", "order"), {"datatrove.pipeline.filters", "pandas", "ray", "torch"}),
    ],
)
def test_commands_load_what_others_need_only_when_they_need_it(commands, others):
    loaded = loaded_by(f"from tokenmill import {', '.join(f'{c}_commands' for c in commands)}")
    assert "tokenmill.shards.run" in loaded
    assert not loaded & others


def test_every_command_names_its_function():
    commands = next(action.choices for action in _parser()._actions if action.choices)
    assert {"build", "train", "verify"} < set(commands)
    for name, command in commands.items():
        function = pkgutil.resolve_name(command.get_default("run"))
        assert function.__name__ == name.replace("-", "_")


def test_the_version_is_the_packages(capsys):
    with pytest.raises(SystemExit) as end:
        main(["--version"])
    assert end.value.code == 0
    assert capsys.readouterr().out == f"tokenmill {__version__}\n"
