"""What must be the same for training to go on from a checkpoint, and what may change.

Going on with another model, optimizer or schedule would be another training that looks like the
same one, so it is refused with the setting that differs. When to log, evaluate or save is free, and
so is how a step is computed: micro-batches, compilation, sharding, the number of processes. That
changes the last digits of a loss, and what dropout draws, and is said. The rows are compared by
their manifests' root hashes, so that a corpus built anew is not taken up at the border of two
phases; within a phase the loader compares its own state too.
"""

from pathlib import Path
from typing import Any

from tokenmill.errors import ResumeError
from tokenmill.shards.manifest import read_manifest
from tokenmill.shards.run import PhaseInfo, RunInfo, pack_folder
from tokenmill.shards.settings import read_settings, to_mapping
from tokenmill.training.checkpoint import State
from tokenmill.training.config import ScheduleConfig, TrainingConfig
from tokenmill.training.encoder_config import RopeConfig
from tokenmill.training.presets import encoder_config

MAY_CHANGE = {
    "log_every_steps",
    "trackers",
    "eval_every_steps",
    "eval_tokens",
    "checkpoint_every_steps",
    "keep_checkpoints",
    "keep_every_steps",
    "max_skipped_steps",
    "checkpoint_activations",
}
"""Training's settings that no loss depends on."""

ROUNDS = ("micro_batch_tokens", "compile", "masked_queries_only", "shard", "deterministic")
"""Those that may change too, and with them the last digits of a loss."""


def settings_of(run: Path, info: RunInfo, config: TrainingConfig, phase: str) -> dict[str, Any]:
    """What a checkpoint in this phase keeps of the settings: the tokenizer, what is learnt and how,
    and the rows, schedules and rotary positions of the phases up to this one. Later phases may
    still be planned anew.

    Raises:
        RecipeError: the run has no such phase.
    """
    info.phase(phase)
    names = list(info.phases)
    names = names[: names.index(phase) + 1]
    encoder = to_mapping(encoder_config(config.preset, config.model))
    del encoder["rope"]  # the phases'
    return {
        "tokenizer": info.tokenizer.sha256,
        "training": to_mapping(config),
        "encoder": encoder,
        "schedules": {name: to_mapping(phase_schedule(info, name)) for name in names},
        "rope": {name: to_mapping(phase_rope(info, config, name)) for name in names},
        "rows": {name: _rows_root(run, info.phase(name)) for name in names},
    }


def refuse_other_settings(then: dict[str, Any], now: dict[str, Any], where: str) -> None:
    """Compare a checkpoint's settings with today's.

    Raises:
        ResumeError: one differs that must not; names the first that does.
    """
    then, now = _fixed(then), _fixed(now)
    if then != now:
        raise ResumeError(
            f"{where}: the checkpoint was made with {_difference(then, now)}. Bring that back, or "
            "train into another folder."
        )


def what_rounds_otherwise(
    then: State, settings: dict[str, Any], *, threads: int | None, world_size: int, dropout: bool
) -> str | None:
    """A line on what changed of how a step is computed; None where nothing did.

    Args:
        settings: today's, of `settings_of`.
        threads: CPU threads; None on a GPU.
        dropout: the model has dropout, whose draws follow from ranks and micro-batches.
    """
    before = {"world_size": then.world_size, **_rounding(then.settings)}
    now = {"world_size": world_size, **_rounding(settings)}
    if threads is not None:
        before["threads"], now["threads"] = then.threads, threads
    changed = [
        f"{name} {before[name]}, now {now[name]}" for name in now if before[name] != now[name]
    ]
    if not changed:
        return None
    drawn = ", and dropout draws anew" if dropout else ""
    return (
        f"The checkpoint was made with {'; '.join(changed)}: losses will differ in their last "
        f"digits{drawn}."
    )


def phase_schedule(info: RunInfo, phase: str) -> ScheduleConfig:
    """The schedule of a phase; RecipeError for a setting that cannot be."""
    return read_settings(ScheduleConfig, info.phase(phase).schedule, f"{phase}.schedule")


def phase_rope(info: RunInfo, config: TrainingConfig, phase: str) -> RopeConfig:
    """The rotary positions of a phase: the preset's, the model's and its own changes to them."""
    rope = {**config.model.get("rope", {}), **info.phase(phase).rope}
    return encoder_config(config.preset, {**config.model, "rope": rope}).rope


def _fixed(settings: dict[str, Any]) -> dict[str, Any]:
    training = settings.get("training", {})
    fixed = {name: training[name] for name in training if name not in {*MAY_CHANGE, *ROUNDS}}
    return {**settings, "training": fixed}


def _rounding(settings: dict[str, Any]) -> dict[str, Any]:
    return {name: settings["training"].get(name) for name in ROUNDS}


def _rows_root(run: Path, phase: PhaseInfo) -> str:
    """The root hash of the shards that a phase sees, however far the corpus has grown since."""
    return read_manifest(pack_folder(run, phase.pack)).up_to(phase.generation).root


def _difference(then: dict[str, Any], now: dict[str, Any]) -> str:
    """The first setting that differs, as `training.seed 0, and now it is 1`."""
    for name in {**now, **then}:  # a file's are sorted, today's in order of weight
        old, new = then.get(name), now.get(name)
        if isinstance(old, dict) and isinstance(new, dict) and old != new:
            return f"{name}.{_difference(old, new)}"
        if old != new:
            return f"{name} {old}, and now it is {new}"
    raise AssertionError("there is no difference")
