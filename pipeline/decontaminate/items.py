"""The items of evaluation sets: files of the disk or of the hub, read like any source.

A set with a record that cannot be read is refused: it would be looked for in part, silently.
"""

import fnmatch
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tokenmill.errors import RecipeError, SourceError
from tokenmill.pipeline.decontaminate.config import SetConfig
from tokenmill.pipeline.documents import Documents, SetAside
from tokenmill.pipeline.plan import plan_units
from tokenmill.pipeline.read import read_unit
from tokenmill.pipeline.sources import Columns, Format, InputFile, SourceConfig
from tokenmill.shards.files import sha256_file


@dataclass(frozen=True, slots=True)
class SetFile:
    """A file of an evaluation set, in place."""

    set: str
    name: str
    """Below the set's path."""
    path: str
    sha256: str


@dataclass(frozen=True, slots=True)
class Item:
    """One text of an evaluation set."""

    set: str
    id: str
    text: str


def find_files(sets: Mapping[str, SetConfig]) -> tuple[SetFile, ...]:
    """The files of all sets, those of the hub brought here; sets by name, then files by name.

    Raises:
        RecipeError: there is no such file, folder or dataset, or the hub does not answer.
    """
    found: list[SetFile] = []
    for name, config in sorted(sets.items()):
        top = Path(config.path)
        if top.is_file():
            files = [(top.name, top)]
        elif top.is_dir():
            inside = sorted(path for path in top.rglob("*") if path.is_file())
            files = [(path.relative_to(top).as_posix(), path) for path in inside]
            files = [(file, path) for file, path in files if _is_asked_for(file, config.files)]
        else:
            files = _download(name, config)
        if not files:
            raise RecipeError(
                f"decontamination.sets.{name}: {config.path} has no file named "
                f"{' or '.join(config.files)}. Correct path or files."
            )
        found += [SetFile(name, file, str(path), sha256_file(path)) for file, path in files]
    return tuple(found)


def read_items(files: Sequence[SetFile], sets: Mapping[str, SetConfig]) -> Iterator[Item]:
    """The texts of all sets, file by file; of several fields, field by field.

    Raises:
        SourceError: a record cannot be read, or a set holds no text.
    """
    for name, config in sorted(sets.items()):
        count = 0
        for file in (file for file in files if file.set == name):
            for field in config.fields:
                for item in _read_field(file, config, field):
                    count += 1
                    yield item
        if not count:
            raise SourceError(
                f"decontamination.sets.{name}: {config.path} holds no text in "
                f"{', '.join(config.fields)}. Correct path or fields."
            )


def _is_asked_for(file: str, patterns: Sequence[str]) -> bool:
    """Whether a name fits, a pattern without folders in any folder."""
    last = file.rsplit("/", 1)[-1]
    return any(fnmatch.fnmatchcase(file if "/" in p else last, p) for p in patterns)


def _read_field(file: SetFile, config: SetConfig, field: str) -> Iterator[Item]:
    path = Path(file.path)
    kind: Format = "parquet" if file.name.endswith(".parquet") else "jsonl"
    source = SourceConfig(
        kind="web", path=file.path, format=kind, columns=Columns(text=field, id=config.id)
    )
    where = f"decontamination.sets.{file.set}: {file.path}"
    units, unreadable = plan_units(
        file.set, source, [InputFile(file.name, str(path), path.stat().st_size, file.sha256)]
    )
    for broken in unreadable:
        raise SourceError(f"{where}: {broken.error}. Repair it, or correct the recipe.")
    for unit in units:
        for part in read_unit(unit, source):
            if isinstance(part, SetAside):
                raise SourceError(
                    f"{where}: {part.place}: {part.error}. Repair it, or correct fields."
                )
            if not isinstance(part, Documents):
                continue
            named = zip(part.ids.to_pylist(), part.positions.tolist(), strict=True)
            suffix = f".{field}" if len(config.fields) > 1 else ""
            for text, (own, position) in zip(part.texts.to_pylist(), named, strict=True):
                if text:
                    yield Item(file.set, f"{own or f'{file.name}:{position}'}{suffix}", text)


def _download(name: str, config: SetConfig) -> list[tuple[str, Path]]:
    where = f"decontamination.sets.{name}"
    if config.path.count("/") != 1 or config.path.startswith((".", "/", "~")):
        raise RecipeError(
            f"{where}: {config.path}: no such file or folder, and no organisation/name of a hub."
        )
    from huggingface_hub import HfApi, hf_hub_download  # slow to import, and seldom needed

    try:
        listed = HfApi().list_repo_files(config.path, repo_type="dataset", revision=config.revision)
        wanted = sorted(file for file in listed if _is_asked_for(file, config.files))
        return [
            (file, Path(hf_hub_download(
                config.path, file, repo_type="dataset", revision=config.revision
            )))
            for file in wanted
        ]  # fmt: skip
    except Exception as error:
        # Many kinds, by version: offline, no such dataset, no such revision, refused.
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise RecipeError(
            f"{where}: {config.path}: no such file or folder, and no dataset from the hub "
            f"({lines[0]}). Check the name and the network, or download it and give its folder."
        ) from None
