"""Runs whose checkpoints hold weights of all sizes, to be exported."""

import json
from dataclasses import replace
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from training_runs import make_training_run

from tokenmill.shards.run import read_run, write_run
from tokenmill.shards.settings import read_settings
from tokenmill.tokenizer.encoder import Encoder
from tokenmill.training.checkpoint import Checkpoint, CheckpointWriter, Position, State
from tokenmill.training.config import TrainingConfig
from tokenmill.training.encoder_config import EncoderConfig
from tokenmill.training.export import export
from tokenmill.training.initialise import initialise
from tokenmill.training.model import MaskedLanguageModel, build_model
from tokenmill.training.presets import encoder_config
from tokenmill.training.resume import settings_of

SMALL = {"width": 32, "layers": 4, "heads": 2, "hidden": 48}
YARN = {"yarn_factor": 4.0, "original_length": 8}


def word_tokenizer(*, padding: int = 0) -> Encoder:
    """100 words; nothing says that [CLS] and [SEP] stand around a text."""
    special = ["[CLS]", "[SEP]", "[MASK]", "[UNK]"]
    special.insert(padding, "[PAD]")
    words = [*special, *(f"w{number}" for number in range(95))]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, "[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.add_special_tokens(special)
    return Encoder(json.loads(tokenizer.to_str()), "words")


def trained(
    run: Path,
    preset: str,
    changes: dict[str, object],
    *,
    encoder: Encoder | None = None,
    phase_rope: dict[str, dict[str, object]] | None = None,
    ema_decay: float | None = None,
    steps: tuple[int, ...] = (4,),
) -> MaskedLanguageModel:
    """A run whose checkpoints, one in each phase, hold weights of all sizes; the last one's model.

    Args:
        encoder: the run's tokenizer.
        phase_rope: phases with what they change in positions.
    """
    encoder = encoder or word_tokenizer()
    training = {"preset": preset, "model": {**SMALL, **changes}, "ema_decay": ema_decay}
    phases = phase_rope or {f"phase{step}": {} for step in steps}
    make_training_run(run, steps=dict.fromkeys(phases, 4), training=training)
    encoder.save(run / "tokenizer")
    info = read_run(run)
    ropes = {name: replace(info.phases[name], rope=rope) for name, rope in phases.items()}
    info = replace(info, tokenizer=encoder.special, phases=ropes)
    write_run(run, info)
    config = read_settings(TrainingConfig, info.training, "training")
    with CheckpointWriter(run / "training" / "checkpoints", keep=len(steps)) as writer:
        for step, (name, rope) in zip(steps, phases.items(), strict=True):
            shape = {"vocab_size": encoder.special.vocab_size, "pad_id": encoder.special.pad_id}
            shaped = encoder_config(preset, {**SMALL, **changes, "rope": rope}, **shape)
            model = model_of(shaped, step)
            state = State(
                position=Position(phase=name, phase_step=4, step=step, tokens=64, real_tokens=60),
                loader={},
                settings=settings_of(run, info, config, name),
                threads=1,
            )
            weights = dict(model.state_dict())
            means = {name: weight / 2 for name, weight in weights.items()} if ema_decay else {}
            writer.save(Checkpoint(state=state, model=weights, optimizer={}, ema=means))
    return model


def model_of(config: EncoderConfig, seed: int) -> MaskedLanguageModel:
    model = build_model(config, "cpu")
    initialise(model, seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():  # biases too, which begin as 0
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return model.eval()


def exported(folder: Path, preset: str = "tiny") -> Path:
    trained(folder, preset, {"max_positions": 30} if "bert-" in preset else {})
    export(folder / "training", folder / "model")
    return folder / "model"
