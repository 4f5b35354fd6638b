"""What may differ between a checkpoint and the settings it goes on with."""

import json
import re
from dataclasses import fields, replace

import pytest
from checkpoint_kills import checkpoint
from training_runs import make_training_run

from tokenmill.errors import ResumeError
from tokenmill.shards.run import read_run
from tokenmill.shards.settings import read_settings
from tokenmill.training.config import TrainingConfig
from tokenmill.training.encoder_config import RopeConfig
from tokenmill.training.resume import (
    phase_rope,
    refuse_other_settings,
    settings_of,
    what_rounds_otherwise,
)

FREE = {
    "log_every_steps": 3, "trackers": ("wandb",), "eval_every_steps": 3, "eval_tokens": 3,
    "checkpoint_every_steps": 3, "keep_checkpoints": 1, "keep_every_steps": 5,
    "max_skipped_steps": 3, "checkpoint_activations": True,
}  # fmt: skip
ROUND = {
    "micro_batch_tokens": 3, "compile": True, "masked_queries_only": False, "shard": 2,
    "deterministic": True,
}  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_training_run(tmp_path_factory.mktemp("run"), steps={"phase1": 2, "phase2": 2})


@pytest.fixture
def info(run):
    return read_run(run)


@pytest.fixture
def config(info):
    return read_settings(TrainingConfig, info.training, "training")


def saved(*arguments):
    """Settings as they come back from state.json."""
    return json.loads(json.dumps(settings_of(*arguments), sort_keys=True))


def with_rope(info, phase, **rope):
    return replace(info, phases={**info.phases, phase: replace(info.phases[phase], rope=rope)})


def test_when_to_look_and_how_to_compute_may_change(run, info, config):
    then = saved(run, info, config, "phase1")
    now = settings_of(run, info, replace(config, **FREE, **ROUND), "phase1")
    refuse_other_settings(then, now, "here")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"preset": "neobert"}, "training.preset tiny, and now it is neobert"),
        ({"model": {"layers": 3}}, "training.model.layers None, and now it is 3"),
        ({"dtype": "bfloat16"}, "training.dtype None, and now it is bfloat16"),
        ({"optimizer": "muon"}, "training.optimizer adamw, and now it is muon"),
        ({"betas": (0.9, 0.9)}, "training.betas [0.9, 0.95], and now it is [0.9, 0.9]"),
        ({"eps": 1e-6}, "training.eps 1e-08, and now it is 1e-06"),
        ({"weight_decay": 0.0}, "training.weight_decay 0.1, and now it is 0.0"),
        ({"clip_norm": None}, "training.clip_norm 1.0, and now it is None"),
        ({"z_loss": 1e-4}, "training.z_loss 0.0, and now it is 0.0001"),
        ({"ema_decay": 0.9}, "training.ema_decay None, and now it is 0.9"),
        ({"seed": 1}, "training.seed 0, and now it is 1"),
    ],
)
def test_what_is_learnt_may_not_and_is_named(run, info, config, change, message):
    then = saved(run, info, config, "phase1")
    now = settings_of(run, info, replace(config, **change), "phase1")
    expected = re.escape(f"here: the checkpoint was made with {message}. Bring that back")
    with pytest.raises(ResumeError, match=expected):
        refuse_other_settings(then, now, "here")


def test_no_setting_is_free_by_oversight():
    named = {
        "preset", "model", "tile_from", "initial_weights", "dtype", "optimizer", "betas", "eps",
        "weight_decay", "weight_decay_times", "weight_decay_on", "muon_momentum", "clip_norm",
        "z_loss", "ema_decay", "seed",
    }  # fmt: skip
    assert {field.name for field in fields(TrainingConfig)} == named | FREE.keys() | ROUND.keys()


def test_rotary_positions_are_fixed_up_to_the_phase_and_free_behind_it(run, info, config):
    then = saved(run, info, config, "phase1")
    refuse_other_settings(
        then, settings_of(run, with_rope(info, "phase2", theta=160_000), config, "phase1"), "here"
    )
    now = settings_of(run, with_rope(info, "phase1", theta=160_000), config, "phase1")
    with pytest.raises(ResumeError, match=r"rope\.phase1\.theta 10000\.0, and now it is 160000"):
        refuse_other_settings(then, now, "here")


def test_a_preset_that_means_another_model_now_is_refused(run, info, config):
    then = saved(run, info, config, "phase1")
    then["encoder"]["norm_eps"] = 1e-12
    with pytest.raises(ResumeError, match=r"encoder\.norm_eps 1e-12, and now it is 1e-05"):
        refuse_other_settings(then, settings_of(run, info, config, "phase1"), "here")


def test_a_phase_lays_its_positions_over_the_models_and_the_presets(info, config):
    config = replace(config, model={"rope": {"theta": 20_000.0, "local_theta": 300.0}})
    assert phase_rope(info, config, "phase1") == RopeConfig(theta=20_000.0, local_theta=300.0)
    info = with_rope(info, "phase1", theta=160_000)
    assert phase_rope(info, config, "phase1") == RopeConfig(theta=160_000.0, local_theta=300.0)


def test_what_changes_the_last_digits_is_said_in_one_line(run, info, config):
    settings = settings_of(run, info, config, "phase1")
    state = replace(checkpoint(1).state, settings=settings, threads=2, world_size=4)

    def line(now=settings, threads=2, world_size=4, dropout=False):
        return what_rounds_otherwise(
            state, now, threads=threads, world_size=world_size, dropout=dropout
        )

    assert line() is None
    assert line(threads=None) is None
    assert line(threads=1) == (
        "The checkpoint was made with threads 2, now 1: losses will differ in their last digits."
    )
    changed = settings_of(run, info, replace(config, **ROUND, **FREE), "phase1")
    assert line(changed, world_size=1, dropout=True) == (
        "The checkpoint was made with world_size 4, now 1; micro_batch_tokens 128, now 3; "
        "compile None, now True; masked_queries_only True, now False; shard 1, now 2; "
        "deterministic False, now True: losses will differ in their last digits, and dropout "
        "draws anew."
    )
