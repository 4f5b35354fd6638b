"""The listing of a run: every output file with its SHA-256, and the one root hash over them.

    RUN/outputs.json      written last; a run without it is not finished

The same inputs and settings give the same root on any number of workers, inline or on Ray, killed
or not. What tells of the machine (receipts, locks, the recipe with its paths, intermediate files)
is not an output.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tokenmill.errors import FormatError, RecipeError
from tokenmill.shards.files import read_json, sha256_file, write_json
from tokenmill.shards.manifest import FORMAT_VERSION, check_version, root_hash
from tokenmill.shards.settings import read_settings, to_mapping

FOLDERS = ("decisions", "shards", "text", "tokenizer")
FILES = ("licences.csv", "run.json", "set-aside.jsonl")


@dataclass(frozen=True, kw_only=True, slots=True)
class Output:
    """A file of a run."""

    path: str
    """Relative to the run."""
    bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Listing:
    """All outputs of a run."""

    format_version: int
    outputs: tuple[Output, ...]
    root: str


def describe_output(run: Path, path: Path) -> Output:
    """A whole file as a listing or a receipt has it."""
    return Output(
        path=path.relative_to(run).as_posix(), bytes=path.stat().st_size, sha256=sha256_file(path)
    )


def write_listing(run: Path, known: Mapping[str, Output]) -> Listing:
    """List what stands in the run and write it down.

    Args:
        known: outputs by path that were hashed when they were written; the rest is hashed now.
    """
    outputs = tuple(
        known.get(path.relative_to(run).as_posix()) or describe_output(run, path)
        for path in _files(run)
    )
    root = root_hash((output.path, output.sha256) for output in outputs)
    listing = Listing(format_version=FORMAT_VERSION, outputs=outputs, root=root)
    write_json(run / "outputs.json", to_mapping(listing))
    return listing


def read_listing(run: Path) -> Listing:
    """What a finished run consists of.

    Raises:
        FormatError: the run is not finished, or its listing is damaged.
    """
    path = run / "outputs.json"
    if not path.exists():
        raise FormatError(f"{run}: no finished run there (no outputs.json). Build it first.")
    mapping = read_json(path)
    check_version(path, mapping)
    try:
        return read_settings(Listing, mapping, str(path))
    except RecipeError as error:
        raise FormatError(f"{error} Build the run again.") from None


def verify(run: Path) -> Iterator[str]:
    """Check every byte of a run against its listing; yield a line for each thing that is wrong.

    Raises:
        FormatError: there is no listing to check against.
    """
    listing = read_listing(run)
    if listing.root != root_hash((output.path, output.sha256) for output in listing.outputs):
        yield f"{run / 'outputs.json'}: the root hash is not that of the files it lists"
    for output in listing.outputs:
        path = run / output.path
        if not path.exists():
            yield f"{path}: missing"
        elif path.stat().st_size != output.bytes:
            yield f"{path}: expected {output.bytes} bytes, found {path.stat().st_size}"
        elif sha256_file(path) != output.sha256:
            yield f"{path}: the bytes are not those that were written (SHA-256 differs)"
    listed = {output.path for output in listing.outputs}
    for path in _files(run):
        if path.relative_to(run).as_posix() not in listed:
            yield f"{path}: not part of the run"


def _files(run: Path) -> Iterator[Path]:
    for folder in FOLDERS:
        yield from sorted(path for path in (run / folder).rglob("*") if path.is_file())
    yield from (run / name for name in FILES if (run / name).exists())
