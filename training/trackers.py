"""Log lines to TensorBoard and to Weights & Biases, beside log.jsonl.

    with Trackers(("tensorboard", "wandb"), out, step=0, settings={...}, say=print) as trackers:
        trackers.write(line)

    OUT/tensorboard/         event files; one more for each start
    OUT/wandb/               files of the run; run-id is the run's for good

Both packages are extras. One that is missing or cannot start is an error before the first step; one
that fails later is named once and left out from then on, and training goes on.

Steps that are done again after a kill stand there once: TensorBoard hides what an earlier process
wrote of them, W&B, which only ever appends, keeps it and is not given the new lines. Project, name
and mode of a W&B run are the environment's (WANDB_PROJECT, WANDB_NAME, WANDB_MODE); runs that were
offline are put together by `wandb sync --append`.
"""

import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

from tokenmill.errors import RecipeError, RunError
from tokenmill.shards.files import write_whole
from tokenmill.training.log import Line, StepLine, read_log


class _Tracker(Protocol):
    name: str

    def write(self, values: Mapping[str, float], step: int) -> None: ...

    def close(self) -> None: ...


class Trackers:
    """Those of one process; rank 0's."""

    def __init__(
        self,
        names: Sequence[str],
        out: Path,
        *,
        step: int,
        settings: Mapping[str, Any],
        say: Callable[[str], None],
    ) -> None:
        """
        Args:
            names: "tensorboard", "wandb".
            out: where the log stands; this process has written nothing to it yet.
            step: the one that training goes on after.
            settings: shown beside a W&B run.

        Raises:
            RecipeError: a package is missing.
            RunError: W&B does not start.
        """
        self._say = say
        self._trackers: list[_Tracker] = []
        for name in names:
            if name == "tensorboard":
                self._trackers.append(_TensorBoard(out / "tensorboard", step))
            else:
                self._trackers.append(_WandB(out, settings, say))

    def write(self, line: Line) -> None:
        """Hand a line on."""
        values = _values(line)
        for tracker in list(self._trackers):
            self._try(tracker, lambda tracker=tracker: tracker.write(values, line.step))  # type: ignore[misc]

    def close(self) -> None:
        """Wait until all is written, or sent."""
        for tracker in list(self._trackers):
            self._try(tracker, tracker.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _try(self, tracker: _Tracker, action: Callable[[], None]) -> None:
        try:
            action()
        except Exception as error:  # whatever a disk, a network or another's code can raise
            self._trackers.remove(tracker)
            self._say(
                f"{tracker.name} failed ({type(error).__name__}: {error}) and gets no more lines; "
                "log.jsonl has them all."
            )


class _TensorBoard:
    name = "tensorboard"

    def __init__(self, folder: Path, step: int) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise _missing(self.name) from None
        # Of what earlier processes wrote, readers hide all steps from this one on.
        self._writer = SummaryWriter(str(folder), purge_step=step + 1)

    def write(self, values: Mapping[str, float], step: int) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        self._writer.close()


class _WandB:
    name = "wandb"

    def __init__(self, out: Path, settings: Mapping[str, Any], say: Callable[[str], None]) -> None:
        try:
            import wandb
        except ImportError:
            raise _missing(self.name) from None
        path = out / "wandb" / "run-id"
        known = path.read_text() if path.exists() else None
        try:
            self._run = wandb.init(
                id=known or secrets.token_hex(4),
                resume="allow" if known else None,
                dir=str(out),
                config=dict(settings),
                # The terminal is the progress line's.
                settings=wandb.Settings(console="off", silent=True),
            )
        except wandb.Error as error:
            raise RunError(
                f"trackers: wandb does not start ({error}). `wandb login`, set WANDB_MODE=offline, "
                "or take it from training.trackers."
            ) from None
        if not known:
            write_whole(path, self._run.id.encode())
        log = out / "log.jsonl"
        logged = read_log(log) if log.exists() else []
        self._last_step = max((line.step for line in logged), default=0)
        """Of what an earlier process has logged."""
        say(f"wandb: {self._run.dir if self._run.offline else self._run.url}")

    def write(self, values: Mapping[str, float], step: int) -> None:
        if step > self._last_step:
            self._run.log(dict(values), step=step)

    def close(self) -> None:
        self._run.finish()


def _values(line: Line) -> dict[str, float]:
    """The numbers of a line by name: train/loss, held_out/all/loss, held_out/source/wiki/loss."""
    if isinstance(line, StepLine):
        top = "train"
    else:
        top = f"held_out/{line.subset or f'source/{line.source}'}"
    return {
        f"{top}/{name}": value
        for name, value in asdict(line).items()
        if isinstance(value, (int, float)) and name != "step"
    }


def _missing(name: str) -> RecipeError:
    return RecipeError(
        f"trackers: {name} is not installed. pip install 'tokenmill[{name}]', or take it from "
        "training.trackers."
    )
