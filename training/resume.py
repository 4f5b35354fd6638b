"""What must be the same for training to go on from a checkpoint, and what may change.

Going on with another model, optimizer or schedule would be another training that looks like the
same one, so it is refused with the setting that differs. How often to log, evaluate or save, and
how much memory a micro-batch may take, is free. The rows are compared by their manifests' root
hashes, so that a corpus built anew is not taken up at the border of two phases; within a phase
the loader compares its own state too.
"""

from pathlib import Path
from typing import Any

from tokenmill.errors import ResumeError
from tokenmill.shards.manifest import read_manifest
from tokenmill.shards.run import PhaseInfo, RunInfo, pack_folder
from tokenmill.shards.settings import read_settings, to_mapping
from tokenmill.training.config import ScheduleConfig, TrainingConfig

MAY_CHANGE = (
    "micro_batch_tokens",
    "log_every_steps",
    "eval_every_steps",
    "eval_tokens",
    "checkpoint_every_steps",
    "keep_checkpoints",
)


def fixed_settings(run: Path, info: RunInfo, config: TrainingConfig, phase: str) -> dict[str, Any]:
    """What a checkpoint in this phase is tied to: the tokenizer, what is learnt, and the rows and
    schedules of the phases up to this one. Later phases may still be planned anew.

    Raises:
        RecipeError: the run has no such phase.
    """
    info.phase(phase)
    names = list(info.phases)
    names = names[: names.index(phase) + 1]
    training = to_mapping(config)
    return {
        "tokenizer": info.tokenizer.sha256,
        "training": {name: training[name] for name in training if name not in MAY_CHANGE},
        "schedules": {name: to_mapping(phase_schedule(info, name)) for name in names},
        "rows": {name: _rows_root(run, info.phase(name)) for name in names},
    }


def refuse_other_settings(then: dict[str, Any], now: dict[str, Any], where: str) -> None:
    """Compare a checkpoint's settings with today's.

    Raises:
        ResumeError: they differ; names the first that does.
    """
    if then != now:
        raise ResumeError(
            f"{where}: the checkpoint was made with {_difference(then, now)}. Bring that back, or "
            "train into another folder."
        )


def phase_schedule(info: RunInfo, phase: str) -> ScheduleConfig:
    """The schedule of a phase; RecipeError for a setting that cannot be."""
    return read_settings(ScheduleConfig, info.phase(phase).schedule, f"{phase}.schedule")


def _rows_root(run: Path, phase: PhaseInfo) -> str:
    """The root hash of the shards that a phase sees, however far the corpus has grown since."""
    return read_manifest(pack_folder(run, phase.pack)).up_to(phase.generation).root


def _difference(then: dict[str, Any], now: dict[str, Any]) -> str:
    """The first setting that differs, as `training.seed 0, and now it is 1`."""
    for name in {**then, **now}:
        old, new = then.get(name), now.get(name)
        if isinstance(old, dict) and isinstance(new, dict) and old != new:
            return f"{name}.{_difference(old, new)}"
        if old != new:
            return f"{name} {old}, and now it is {new}"
    raise AssertionError("there is no difference")
