"""Checkpoints: all that training needs to go on, complete or absent.

    OUT/checkpoints/step-0000100/model.safetensors        weights
                                 ema.safetensors          their exponential mean, where one is kept
                                 optimizer.safetensors    moments, by parameter
                                 state.json               position, loader's state, settings
                                 complete.json            the SHA-256 of each, written last

The tensors are copies (`state.py`), so training goes on while a thread writes them. One write is in
flight at most: the next `save` waits for it, and raises its error. A checkpoint is written into a
folder of another name, synced, and renamed; a process killed at any line leaves the older ones and
a `*.part` folder that the next write removes. The files are plain tensors and JSON, none holds code
to run.

At a start the newest one whose checksums hold is taken. A damaged one is named and passed over for
the one before; it never counts as one of those kept, and leaves with the next whole checkpoint.

The price: one copy of everything on the host of rank 0, and the disk holds one checkpoint more than
are kept while one is written. No random state is in it: order, masks and dropout are functions of
the step.
"""

import os
import shutil
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from tokenmill import __version__
from tokenmill.errors import FormatError, RecipeError, ResumeError, RunError
from tokenmill.shards.files import read_json, sha256_file, write_json
from tokenmill.shards.settings import read_settings, to_mapping
from tokenmill.training.position import newest_first, step_of
from tokenmill.training.state import Tensors

FORMAT_VERSION = 2
"""1 was model.pt and optimizer.pt."""

_STATE = "state.json"
_COMPLETE = "complete.json"
_TENSORS = {part: f"{part}.safetensors" for part in ("model", "optimizer", "ema")}
_ALWAYS = (_STATE, _TENSORS["model"], _TENSORS["optimizer"])
"""The files of every checkpoint."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Position:
    """How far training has come."""

    phase: str
    phase_step: int
    """Steps done in this phase."""
    step: int
    """Steps done in all phases."""
    tokens: int
    """Tokens of their rows, padding included."""
    real_tokens: int
    """Tokens of their rows, padding left out."""


def _versions() -> dict[str, str]:
    return {"torch": torch.__version__, "tokenmill": __version__}


@dataclass(frozen=True, kw_only=True, slots=True)
class State:
    """What a checkpoint holds beside tensors."""

    position: Position
    loader: dict[str, Any]
    """What Loader.load_state_dict takes, in the position's phase."""
    settings: dict[str, Any]
    """Those of `resume.settings_of`; some must not differ for training to go on."""
    threads: int
    """CPU threads; another number rounds sums differently."""
    world_size: int = 1
    """Processes; another number does too."""
    skipped_steps: int = 0
    """Steps so far that changed no weight, because their loss or gradient was not finite."""
    skipped_in_a_row: int = 0
    """Those among them that were the last steps done."""
    versions: dict[str, str] = field(default_factory=_versions)
    """Of torch and tokenmill, for whoever looks for a difference."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Checkpoint(Tensors):
    """A whole checkpoint on the host."""

    state: State


class CheckpointWriter:
    """Writes checkpoints, one after the other, in a thread. Of all ranks, rank 0 has one.

    with CheckpointWriter(folder, keep=3) as writer:
        ...
        writer.finish()  # so that no more than one copy is on the host
        writer.save(Checkpoint(state=state, model=..., optimizer=..., ema=...))
    """

    def __init__(self, folder: Path, *, keep: int, keep_every: int | None = None) -> None:
        """
        Args:
            folder: OUT/checkpoints.
            keep: the newest whole ones that stay.
            keep_every: those whose step divides by it stay for good.
        """
        self._folder, self._keep, self._keep_every = folder, keep, keep_every
        # The interpreter waits for its thread, so an error in training loses no checkpoint.
        self._executor = ThreadPoolExecutor(1, "checkpoint")
        self._writing: Future[None] | None = None
        self._whole: set[Path] = set()
        """Those that this process wrote or has compared with their checksums."""

    def save(self, checkpoint: Checkpoint) -> None:
        """Begin to write a checkpoint, whose tensors the caller leaves alone from now on.

        Raises:
            RunError: the one before could not be written.
        """
        self.finish()
        self._writing = self._executor.submit(self._write, checkpoint)

    def check(self) -> None:
        """Raise the error of the write in flight, if it has one already; waits for nothing."""
        if self._writing is not None and self._writing.done():
            self.finish()

    def finish(self) -> None:
        """Wait for the write in flight.

        Raises:
            RunError: it failed; says what the disk needs.
        """
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self.finish()
        finally:
            self._executor.shutdown()

    def _write(self, checkpoint: Checkpoint) -> None:
        path = self._folder / f"step-{checkpoint.state.position.step:07d}"
        try:
            remove_parts(self._folder)
            _write_checkpoint(path, checkpoint)
        except (OSError, SafetensorError) as error:
            raise _not_written(path, checkpoint, error) from None
        self._whole.add(path)
        self._remove_old(path)

    def _remove_old(self, newest: Path) -> None:
        """Leave the newest whole ones and those that stay for good.

        Only whole ones count, so that none is removed for a damaged one's sake. Those of later
        steps are damaged: training began before them.
        """
        num_whole = 0
        for path in newest_first(self._folder):
            if step_of(path) > step_of(newest):
                _remove(path)
            elif num_whole < self._keep:
                num_whole += self._is_whole(path)
            elif self._keep_every is None or step_of(path) % self._keep_every:
                _remove(path)

    def _is_whole(self, path: Path) -> bool:
        """Reads each checkpoint once at most."""
        if path not in self._whole:
            try:
                _refuse_damaged(path)
            except FormatError:
                return False
            self._whole.add(path)
        return True


def newest_checkpoint(folder: Path, say: Callable[[str], None]) -> Checkpoint | None:
    """The newest checkpoint that is whole; None where there are none.

    Args:
        folder: OUT/checkpoints.
        say: gets a line for each damaged one that is passed over.

    Raises:
        ResumeError: there are checkpoints, and all of them are damaged; or another version of
            tokenmill wrote the newest.
    """
    damaged = []
    for path in newest_first(folder):
        try:
            return read_checkpoint(path)
        except FormatError as error:
            damaged.append(path.name)
            say(f"{error} Passed over for the checkpoint before it.")
    if damaged:
        raise ResumeError(
            f"{folder}: no checkpoint is whole; damaged are {', '.join(damaged)}. "
            "Remove the folder to start anew."
        )
    return None


def read_checkpoint(path: Path) -> Checkpoint:
    """One checkpoint, its tensors mapped from its files.

    Raises:
        FormatError: anything is missing, or its checksum does not hold.
        ResumeError: another version of tokenmill wrote it.
    """
    if (path / "model.pt").exists():
        raise _other_version(path, 1)
    names = _refuse_damaged(path)
    mapping = read_json(path / _STATE)
    version = mapping.pop("format_version", None)
    if version != FORMAT_VERSION:
        raise _other_version(path, version)
    try:
        state = read_settings(State, mapping, str(path / _STATE))
    except RecipeError as error:
        raise FormatError(f"{error} It was written by another version of tokenmill.") from None
    parts = {
        part: safetensors.torch.load_file(path / name) if name in names else {}
        for part, name in _TENSORS.items()
    }
    return Checkpoint(state=state, **parts)


def remove_parts(folder: Path) -> None:
    """Remove what a killed process had begun to write, or to remove."""
    for part in folder.glob("*.part"):
        shutil.rmtree(part)


def _write_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    part = path.with_name(f"{path.name}.part")
    part.mkdir(parents=True)
    write_json(part / _STATE, {"format_version": FORMAT_VERSION, **to_mapping(checkpoint.state)})
    for field_name, name in _TENSORS.items():
        tensors: dict[str, Tensor] = getattr(checkpoint, field_name)
        if tensors or name in _ALWAYS:
            safetensors.torch.save_file(tensors, part / name)
            shutil.copymode(part / _STATE, part / name)  # the library's are its owner's alone
            _sync(part / name)
    write_json(part / _COMPLETE, {file.name: sha256_file(file) for file in part.iterdir()})
    if path.exists():  # a damaged one
        _remove(path)
    part.rename(path)
    _sync(path.parent)  # the rename must survive a crash of the machine, before older ones go


def _remove(path: Path) -> None:
    """Remove a checkpoint, so that it is there whole or not at all."""
    part = path.with_name(f"{path.name}.old.part")
    path.rename(part)
    shutil.rmtree(part)


def _refuse_damaged(path: Path) -> list[str]:
    """The names of a checkpoint's files; FormatError where one is not what was written."""
    try:
        checksums = dict(read_json(path / _COMPLETE))
    except (FormatError, TypeError, ValueError):
        raise FormatError(
            f"{path / _COMPLETE}: expected the checksums of the checkpoint, found none."
        ) from None
    for name in _ALWAYS:
        if name not in checksums:
            raise FormatError(f"{path / _COMPLETE}: expected a checksum of {name}, found none.")
    for name, expected in checksums.items():
        found = sha256_file(path / name) if (path / name).is_file() else "no such file"
        if found != expected:
            raise FormatError(f"{path / name}: expected SHA-256 {expected}, found {found}.")
    return list(checksums)


def _not_written(path: Path, checkpoint: Checkpoint, error: Exception) -> RunError:
    """Free what was begun; then what is free can be compared with what is needed."""
    folder = path.parent
    shutil.rmtree(path.with_name(f"{path.name}.part"), ignore_errors=True)
    needed = sum(
        tensor.nbytes for name in _TENSORS for tensor in getattr(checkpoint, name).values()
    )
    before = next((f"after step {step_of(each):,}" for each in newest_first(folder)), "anew")
    return RunError(
        f"{path}: the checkpoint could not be written ({error}). It takes {needed / 1e6:,.1f} MB, "
        f"and {shutil.disk_usage(folder.parent).free / 1e6:,.1f} MB are free. Free the disk, or "
        f"lower keep_checkpoints, and start again: training goes on {before}."
    )


def _other_version(path: Path, version: object) -> ResumeError:
    return ResumeError(
        f"{path}: expected a checkpoint of format {FORMAT_VERSION}, found format {version}, which "
        "another version of tokenmill wrote. Finish with that version, or train into another "
        "folder."
    )


def _sync(path: Path) -> None:
    # Without this a crash of the machine can leave a file with the right name and no bytes.
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
