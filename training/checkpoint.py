"""Checkpoints: all that training needs to go on, complete or absent.

    OUT/checkpoints/step-0000100/model.pt        weights
                                 optimizer.pt    AdamW's moments
                                 state.json      position, loader's state, settings, threads
                                 complete.json   the SHA-256 of each, written last

A checkpoint is written into a folder of another name, synced, and renamed; a process killed at any
line leaves the older ones and a `*.part` folder that the next start removes. At a start the newest
one whose checksums hold is taken. One that is damaged is named, passed over for the one before, and
written over when training comes to its step again.

No random state is in it: nothing is drawn in training. Order and masks are the loader's, pure
functions of the step; the model has no dropout.
"""

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tokenmill.errors import FormatError, RecipeError, ResumeError
from tokenmill.shards.files import read_json, sha256_file, write_json, writing
from tokenmill.shards.settings import read_settings, to_mapping

_PARTS = ("model.pt", "optimizer.pt", "state.json")


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


@dataclass(frozen=True, kw_only=True, slots=True)
class State:
    """What a checkpoint holds beside tensors."""

    position: Position
    loader: dict[str, Any]
    """What Loader.load_state_dict takes, in the position's phase."""
    settings: dict[str, Any]
    """What must not differ for training to go on; see `resume.py`."""
    threads: int
    """CPU threads; another number rounds sums differently."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Checkpoint:
    """A whole checkpoint in memory."""

    state: State
    model: dict[str, Tensor]
    optimizer: dict[str, Any]


def write_checkpoint(folder: Path, checkpoint: Checkpoint, *, keep: int) -> Path:
    """Write a checkpoint whole, then remove all but the newest `keep`.

    Args:
        folder: OUT/checkpoints.

    Returns:
        The checkpoint's own folder.
    """
    path = folder / f"step-{checkpoint.state.position.step:07d}"
    part = folder / f"{path.name}.part"
    remove_parts(folder)
    part.mkdir(parents=True)
    with writing(part / "model.pt") as file:
        torch.save(checkpoint.model, file)
    with writing(part / "optimizer.pt") as file:
        torch.save(checkpoint.optimizer, file)
    write_json(part / "state.json", to_mapping(checkpoint.state))
    write_json(part / "complete.json", {name: sha256_file(part / name) for name in _PARTS})
    if path.exists():  # a damaged one, or this very state after a kill between here and the log
        shutil.rmtree(path)
    part.rename(path)
    _sync_folder(folder)
    for old in _newest_first(folder)[keep:]:
        shutil.rmtree(old)
    return path


def newest_checkpoint(folder: Path, device: str, say: Callable[[str], None]) -> Checkpoint | None:
    """The newest checkpoint that is whole, its tensors on a device; None where there are none.

    Args:
        folder: OUT/checkpoints.
        say: gets a line for each damaged one that is passed over.

    Raises:
        ResumeError: there are checkpoints, and all of them are damaged.
    """
    damaged = []
    for path in _newest_first(folder):
        try:
            return _read_checkpoint(path, device)
        except FormatError as error:
            damaged.append(path.name)
            say(f"{error} Passed over for the checkpoint before it.")
    if damaged:
        raise ResumeError(
            f"{folder}: no checkpoint is whole; damaged are {', '.join(damaged)}. "
            "Remove the folder to start anew."
        )
    return None


def remove_parts(folder: Path) -> None:
    """Remove what a killed process had begun to write."""
    for part in folder.glob("*.part"):
        shutil.rmtree(part)


def _read_checkpoint(path: Path, device: str) -> Checkpoint:
    """Raises FormatError where anything is missing or its checksum does not hold."""
    checksums = read_json(path / "complete.json")
    for name in _PARTS:
        expected = checksums.get(name) if isinstance(checksums, dict) else None
        found = sha256_file(path / name) if (path / name).exists() else "no such file"
        if found != expected:
            raise FormatError(f"{path / name}: expected SHA-256 {expected}, found {found}.")
    try:
        state = read_settings(State, read_json(path / "state.json"), str(path / "state.json"))
    except RecipeError as error:
        raise FormatError(f"{error} It was written by another version of tokenmill.") from None
    # weights_only: a checkpoint from elsewhere may hold no code.
    model = torch.load(path / "model.pt", map_location=device, weights_only=True)
    optimizer = torch.load(path / "optimizer.pt", map_location=device, weights_only=True)
    return Checkpoint(state=state, model=model, optimizer=optimizer)


def _newest_first(folder: Path) -> list[Path]:
    """Checkpoints by falling step; names carry seven digits or more."""
    paths = [path for path in folder.glob("step-*") if path.name[5:].isdigit()]
    return sorted(paths, key=lambda path: int(path.name[5:]), reverse=True)


def _sync_folder(folder: Path) -> None:
    # The rename itself must survive a crash of the machine, before older checkpoints go.
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
