"""The licence of a source file, by its own words or by the licence files around it.

    SPDX-License-Identifier in it  >  LICENSE, COPYING in its folder or above  >  the source's own

The plan gives a unit the licence files that its documents fall under, beside the documents; so
their bytes are in the unit's key, and a licence that changes mills its files anew. A licence file
whose text is not known makes its files NOASSERTION; the source's licence is for files under none.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from tokenmill.pipeline.code_languages import PROSE, language_of
from tokenmill.pipeline.licence_texts import known_licences
from tokenmill.pipeline.sources import InputFile

HEADER_CHARACTERS = 4096
"""How far into a file its own statement is looked for."""
LICENCE_BYTES = 1 << 20
"""How much of a licence file is read; the longest licences have some 35 kB."""

_HEADER = re.compile(r"SPDX-License-Identifier:[ \t]*([A-Za-z0-9(][A-Za-z0-9.+() -]*)")
_FILE_NAME = re.compile(
    r"(?:[\w.+]+[-_])?(?:(?:un)?licen[sc]e|copying)(?:[-_.][\w.+-]+)?", re.IGNORECASE
)


def is_licence_file(name: str) -> bool:
    """Whether a file is named like the licence of what lies beside and below it."""
    base = name.rsplit("/", 1)[-1]
    if _FILE_NAME.fullmatch(base) is None:
        return False
    language = language_of(base)  # license.py is no licence
    return language is None or language in PROSE


def licence_files(files: Iterable[InputFile]) -> dict[str, list[InputFile]]:
    """The licence files of each folder that has any, by the folder's name; the top is ""."""
    folders: dict[str, list[InputFile]] = {}
    for file in files:
        if is_licence_file(file.name):
            folders.setdefault(_folder(file.name), []).append(file)
    return folders


def nearest_folder(name: str, folders: Mapping[str, object]) -> str | None:
    """The folder of a file or the nearest above that is one of these."""
    return next((folder for folder in _folders_above(name) if folder in folders), None)


class Licences:
    """The licences of the files of a unit."""

    def __init__(self, files: Iterable[InputFile]) -> None:
        """Reads the licence files that the plan gave the unit."""
        self._by_folder = {
            folder: ", ".join(dict.fromkeys(_read(Path(file.path)) for file in inside))
            for folder, inside in licence_files(files).items()
        }

    def of(self, name: str, text: str) -> str | None:
        """The licence of a file: its own statement, else the nearest licence files'."""
        if stated := _HEADER.search(text, 0, HEADER_CHARACTERS):
            return stated.group(1).rstrip(" -")
        folder = nearest_folder(name, self._by_folder)
        return None if folder is None else self._by_folder[folder]


def _read(path: Path) -> str:
    with path.open("rb") as file:
        return known_licences(file.read(LICENCE_BYTES).decode(errors="replace"))


def _folder(name: str) -> str:
    return name.rpartition("/")[0]


def _folders_above(name: str) -> Iterator[str]:
    while name:
        name = _folder(name)
        yield name
