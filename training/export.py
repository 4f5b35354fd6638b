"""A trained model as a folder of Hugging Face: what `AutoModelForMaskedLM` loads.

    export(Path("run/training"), Path("model"), steps=[1000, 2000])

    FOLDER/model.safetensors        float32, by the names of transformers
           config.json              the shape, and the positions of the phase trained last
           tokenizer.json, tokenizer_config.json
           modeling_neobert.py      where transformers has no class of this shape
           README.md                a model card: what the run says, and nothing else
           tokenmill.json           where the weights come from

The weights are those of a checkpoint, or the mean of several; logits differ from ours by rounding.
The folder appears whole or not at all, and takes the place of an older export, never of anything
else. Nothing is rounded to 16 bits or made smaller here: `from_pretrained(..., dtype=...)` does.
"""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from tokenmill.errors import FormatError, RecipeError, ResumeError, RunError
from tokenmill.shards.files import write_json, write_whole, writing
from tokenmill.shards.manifest import read_manifest
from tokenmill.shards.run import RunInfo, pack_folder, read_run
from tokenmill.shards.settings import read_settings, to_mapping
from tokenmill.training.average import mean_weights
from tokenmill.training.checkpoint import Checkpoint, State, newest_checkpoint, read_checkpoint
from tokenmill.training.encoder_config import EncoderConfig
from tokenmill.training.hf.architecture import architecture_of, to_config
from tokenmill.training.hf.model_card import Origin, model_card
from tokenmill.training.hf.tokenizer_files import write_tokenizer
from tokenmill.training.hf.weights import to_hugging_face
from tokenmill.training.position import newest_first, step_of

_ORIGIN = "tokenmill.json"
"""The file that tells an export from any other folder."""
_FILES = {"model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json",
          "modeling_neobert.py", "README.md", _ORIGIN}  # fmt: skip
"""All that an export holds; a folder with more in it is not replaced."""


def export(
    training: Path,
    to: Path,
    *,
    run: Path | None = None,
    steps: Sequence[int] = (),
    ema: bool = False,
    say: Callable[[str], None] = print,
) -> Origin:
    """Write a folder that transformers loads.

    Args:
        training: where `tokenmill train` keeps checkpoints/.
        to: the folder; an older export there is replaced.
        run: the build that was trained on; None: the folder above `training`.
        steps: checkpoints to average; none: the newest one that is whole.
        ema: take the exponential means of the weights.
        say: gets a line for each damaged checkpoint that is passed over, and for other rows.

    Raises:
        RecipeError: no class of transformers has this shape, there is no such checkpoint, or
            several do not belong together.
        FormatError: a checkpoint that was asked for is damaged, or the run is.
        ResumeError: there is no checkpoint or no run, or the two do not belong together.
        RunError: `to` is no export and not empty, or cannot be written.
    """
    to, run = to.resolve(), run or _run_above(training)
    _refuse_foreign(to)
    info = read_run(run)
    checkpoints = _checkpoints(training / "checkpoints", steps, say)
    _refuse_strangers(checkpoints, info, training)
    config, last = _trained_config(checkpoints[-1], info), checkpoints[-1].state
    architecture = architecture_of(config)
    weights = mean_weights([_weights(checkpoint, ema) for checkpoint in checkpoints])
    origin = Origin(
        recipe=info.recipe,
        preset=last.settings["training"]["preset"],
        architecture=architecture,
        steps=tuple(checkpoint.state.position.step for checkpoint in checkpoints),
        ema=ema,
        phase=last.position.phase,
        tokens=last.position.real_tokens,
        max_length=_longest(run, info, last, say),
        parameters=sum(tensor.numel() for tensor in weights.values()),
    )
    part = to.with_name(f"{to.name}.part")
    shutil.rmtree(part, ignore_errors=True)  # of a process that was killed
    try:
        _write(part, run, info, config, weights, origin)
        _put(part, to)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return origin


def _run_above(training: Path) -> Path:
    run = training.resolve().parent
    if (training / "run.json").exists():
        raise ResumeError(
            f"{training}: is a build. Give the folder of its training, {training}/training."
        )
    if not (run / "run.json").exists():
        raise ResumeError(
            f"{training}: expected the build that it was trained on in the folder above, {run}, "
            "which is none. Give --run with the build."
        )
    return run


def _checkpoints(
    folder: Path, steps: Sequence[int], say: Callable[[str], None]
) -> list[Checkpoint]:
    """Those of these steps, rising; or the newest whole one."""
    paths = {step_of(path): path for path in newest_first(folder)}
    if not paths:
        raise ResumeError(
            f"{folder}: no checkpoint there. Give the folder of `tokenmill train`, e.g. "
            "RUN/training."
        )
    if not steps:
        newest = newest_checkpoint(folder, say)
        assert newest is not None
        return [newest]
    for step in steps:
        if step not in paths:
            there = ", ".join(str(step) for step in sorted(paths))
            raise RecipeError(f"--step {step}: no such checkpoint; there are {there}.")
    try:
        return [read_checkpoint(paths[step]) for step in sorted(set(steps))]
    except FormatError as error:
        raise FormatError(f"{error} Leave its --step out, or name another.") from None


def _refuse_strangers(checkpoints: Sequence[Checkpoint], info: RunInfo, training: Path) -> None:
    """Checkpoints of another tokenizer, or of several models or kinds of positions."""
    last = checkpoints[-1].state
    for checkpoint in checkpoints:
        state = checkpoint.state
        if state.settings["tokenizer"] != info.tokenizer.sha256:
            raise ResumeError(
                f"{training}: trained with another tokenizer than the run's. Give --run with the "
                "build that it was trained on."
            )
        for name in ("preset", "model"):
            if state.settings["training"][name] != last.settings["training"][name]:
                raise RecipeError(
                    f"--step {state.position.step}: another training.{name} than at step "
                    f"{last.position.step}. Only checkpoints of one model have a mean."
                )
        if _rope(checkpoint) != _rope(checkpoints[-1]):
            raise RecipeError(
                f"--step {state.position.step}: its phase {state.position.phase} has other "
                f"positions (rope) than {last.position.phase}, so their weights have no mean."
            )


def _weights(checkpoint: Checkpoint, ema: bool) -> dict[str, Tensor]:
    if ema and not checkpoint.ema:
        raise RecipeError(
            f"--ema: step {checkpoint.state.position.step} has no exponential means, because "
            "training.ema_decay was not set. Leave --ema out."
        )
    return checkpoint.ema if ema else checkpoint.model


def _trained_config(checkpoint: Checkpoint, info: RunInfo) -> EncoderConfig:
    """The shape of the checkpoint's model, with its phase's positions."""
    settings = checkpoint.state.settings
    shape = {
        **settings["encoder"],
        "vocab_size": len(checkpoint.model["encoder.embeddings.tokens.weight"]),
        "pad_id": info.tokenizer.pad_id,
        "rope": _rope(checkpoint),
    }
    return read_settings(EncoderConfig, shape, f"step {checkpoint.state.position.step}: encoder")


def _rope(checkpoint: Checkpoint) -> dict[str, Any]:
    """The settings of its phase's rotary positions."""
    rope: dict[str, Any] = checkpoint.state.settings["rope"][checkpoint.state.position.phase]
    return rope


def _longest(run: Path, info: RunInfo, state: State, say: Callable[[str], None]) -> int:
    """Tokens of the longest sequence of the phases up to the checkpoint's."""
    manifests = {}
    for name in state.settings["rows"]:
        phase = info.phase(name)
        manifests[name] = read_manifest(pack_folder(run, phase.pack)).up_to(phase.generation)
    if {name: manifest.root for name, manifest in manifests.items()} != state.settings["rows"]:
        say(
            f"{run}: has other rows than step {state.position.step:,} was trained on. The weights "
            "are the checkpoint's; the model card has this run's recipe and length."
        )
    return max(manifest.max_length for manifest in manifests.values())


def _write(
    folder: Path,
    run: Path,
    info: RunInfo,
    config: EncoderConfig,
    weights: dict[str, Tensor],
    origin: Origin,
) -> None:
    folder.mkdir(parents=True)
    content = to_config(config, info.tokenizer, max_length=origin.max_length)
    write_json(folder / "config.json", content)
    try:
        with writing(folder / "model.safetensors") as file:
            save_file(to_hugging_face(weights, config), file, metadata={"format": "pt"})
            shutil.copymode(folder / "config.json", file)  # the library's are its owner's alone
    except SafetensorError as error:
        raise RunError(
            f"{folder}: weights cannot be written ({error}). Free the disk, or choose another --to."
        ) from None
    if "auto_map" in content:
        own = Path(__file__).parent / "hf" / "modeling_neobert.py"
        write_whole(folder / own.name, own.read_bytes())
    write_tokenizer(
        run / "tokenizer",
        info.tokenizer,
        folder,
        max_length=origin.max_length,
        segments=config.segments,
    )
    write_whole(folder / "README.md", model_card(origin, config).encode())
    write_json(folder / _ORIGIN, to_mapping(origin))


def _refuse_foreign(to: Path) -> None:
    """Anything that is there and not an export of ours alone."""
    if not to.exists():
        return
    names = {path.name for path in to.iterdir()} if to.is_dir() else {"a file"}
    if names and (_ORIGIN not in names or names - _FILES):
        foreign = min(names - _FILES, default="a model of other origin")
        raise RunError(
            f"{to}: expected no such folder, an empty one or an older export, found {foreign}. "
            "Choose another --to."
        )


def _put(part: Path, to: Path) -> None:
    """Give the finished folder its name, and remove what had it."""
    old = to.with_name(f"{to.name}.old.part")
    if to.exists():
        shutil.rmtree(old, ignore_errors=True)  # of a process that was killed
        to.rename(old)
    part.rename(to)
    shutil.rmtree(old, ignore_errors=True)
