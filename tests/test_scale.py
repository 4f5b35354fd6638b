"""Recipes at a reduced size: the same recipe, smaller, and always one that can be trained."""

import math
import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pipeline_runs import write_sources, write_vocabulary

from tokenmill.cli import main
from tokenmill.errors import RecipeError
from tokenmill.outline import training_outline
from tokenmill.recipe import load_recipe
from tokenmill.scale import LEAST_STEPS, load_scaled, scaled
from tokenmill.shards.run import read_run
from tokenmill.training.presets import encoder_config

sys.path.append(str(Path(__file__).parent.parent / "benchmarks"))

import recipes

MANIFESTS = Path(__file__).parent.parent / "manifests"
RECIPES = {path.stem: load_recipe(path) for path in sorted(MANIFESTS.glob("*.yaml"))}
SCALES = st.floats(-12, 0).map(lambda exponent: 10**exponent)


def model(recipe):
    return encoder_config(recipe.training.preset, recipe.training.model)


def sizes(recipe):
    """All that should fall with the scale."""
    yield model(recipe).width
    yield model(recipe).layers
    yield model(recipe).hidden
    yield recipe.training.micro_batch_tokens
    yield recipe.training.eval_tokens
    for phase in recipe.phases.values():
        yield phase.row_tokens
        yield phase.loader.batch_tokens
        yield phase.schedule.tokens
        if phase.loader.batch_warmup:
            yield phase.loader.batch_warmup.start_tokens
            yield phase.loader.batch_warmup.tokens


@given(st.sampled_from(sorted(RECIPES)), SCALES, SCALES)
def test_a_smaller_scale_makes_nothing_larger(name, one, other):
    low, high = sorted((one, other))
    whole = RECIPES[name]
    for small, large in [(scaled(whole, low), scaled(whole, high)), (scaled(whole, high), whole)]:
        assert all(less <= more for less, more in zip(sizes(small), sizes(large), strict=True))


@given(st.sampled_from(sorted(RECIPES)), SCALES)
def test_what_comes_out_can_be_trained_and_is_the_same_recipe(name, scale):
    whole, small = RECIPES[name], scaled(RECIPES[name], scale)  # a Recipe checks its settings
    shape = model(small)
    assert shape.width % 64 == 0
    assert shape.width // shape.heads in (32, 64)
    assert shape.layers >= 2
    assert (shape.layers - 1) % shape.global_every == 0
    assert small.training.micro_batch_tokens >= max(p.row_tokens for p in small.phases.values())
    same = {"width": 0, "layers": 0, "heads": 1, "hidden": 0}
    assert {**small.training.model, **same} == {**whole.training.model, **same}
    for before, after in zip(whole.phases.values(), small.phases.values(), strict=True):
        steps = after.schedule.tokens / after.loader.batch_tokens
        assert min(LEAST_STEPS, before.schedule.tokens / before.loader.batch_tokens) <= steps
        assert after.row_tokens <= after.loader.batch_tokens
        assert after.max_length == before.max_length
        assert after.schedule.learning_rate == before.schedule.learning_rate
        assert replace(after.loader, batch_tokens=1, batch_warmup=None) == replace(
            before.loader, batch_tokens=1, batch_warmup=None
        )


@given(st.sampled_from(sorted(RECIPES)), SCALES)
def test_phases_share_their_shards_as_before(name, scale):
    whole, small = RECIPES[name].phases.values(), scaled(RECIPES[name], scale).phases.values()
    shapes = dict(zip([phase.shape for phase in whole], [p.shape for p in small], strict=True))
    assert [shapes[phase.shape] for phase in whole] == [phase.shape for phase in small]


@pytest.mark.parametrize("scale", [0.5, 0.1, 0.01])
@pytest.mark.parametrize("name", ["neobert", "modernbert-large", "bert-large", "roberta"])
def test_tokens_follow_the_scale_and_layers_its_root(name, scale):
    whole, small = RECIPES[name], scaled(RECIPES[name], scale)
    for before, after in zip(whole.phases.values(), small.phases.values(), strict=True):
        assert after.schedule.tokens == pytest.approx(before.schedule.tokens * scale)
        assert after.schedule.warmup_tokens == pytest.approx(before.schedule.warmup_tokens * scale)
        step = before.loader.batch_tokens * math.sqrt(scale)
        assert after.loader.batch_tokens == pytest.approx(max(step, after.row_tokens), rel=1e-3)

    def parameters(recipe):
        shape = model(recipe)
        return shape.layers * shape.width * (4 * shape.width + 3 * shape.hidden)

    assert parameters(small) / parameters(whole) == pytest.approx(math.sqrt(scale), rel=0.3)


@given(SCALES)
def test_modernbert_large_can_be_tiled_from_base_at_any_scale(scale):
    base, large = (
        model(scaled(RECIPES[f"modernbert-{size}"], scale)) for size in ("base", "large")
    )
    assert large.width // large.heads == base.width // base.heads
    assert all(
        getattr(base, size) <= getattr(large, size) for size in ("width", "layers", "hidden")
    )


def test_neobert_at_a_millionth():
    small = scaled(RECIPES["neobert"], 1e-6)
    shape = model(small)
    assert (shape.width, shape.layers, shape.heads, shape.hidden) == (64, 3, 2, 168)
    first, second = small.phases.values()
    assert (first.row_tokens, first.loader.batch_tokens) == (4096, 4096)
    assert (first.schedule.tokens, first.schedule.warmup_tokens) == (2_097_152, 4194)
    assert first.schedule.decay_tokens == 1_883_242
    assert second.schedule.tokens == 104_857
    assert second.loader.mixture == {"all": 0.2, "1024+": 0.4, "2048+": 0.4}
    assert (small.held_out, small.training.dtype) == (0.01, None)


@pytest.mark.parametrize("name", RECIPES)
def test_a_scale_of_1_is_the_recipe_itself(name):
    assert scaled(RECIPES[name], 1) == RECIPES[name]


@pytest.mark.parametrize("scale", [0.0, -1.0, 1.5, math.nan])
def test_other_scales_are_refused(scale):
    with pytest.raises(RecipeError, match=rf"--scale {scale}: expected above 0 and at most 1"):
        load_scaled(MANIFESTS / "neobert.yaml", [], scale)


def test_what_is_set_has_the_last_word():
    changes = ["training.preset=ettin-1b", "training.dtype=bfloat16", "training.model.layers=7"]
    small = load_scaled(MANIFESTS / "modernbert-base.yaml", changes, 1e-3)
    assert model(small) == replace(
        model(load_recipe(MANIFESTS / "modernbert-base.yaml", changes)),
        **{"width": 576, "heads": 9, "hidden": 1232, "layers": 7},
    )
    assert small.training.dtype == "bfloat16"


def test_numbers_of_tokens_that_are_set_need_to_fit_the_small_run_alone():
    changes = ["schedule.tokens=500_000", "loader.batch_tokens=32_768"]
    changes = [f"phases.pretraining.{change}" for change in changes]
    phase = load_scaled(MANIFESTS / "modernbert-base.yaml", changes, 1e-6).phases["pretraining"]
    assert (phase.schedule.tokens, phase.schedule.warmup_tokens) == (500_000, 3000)
    assert (phase.loader.batch_tokens, phase.loader.batch_warmup.start_tokens) == (32_768, 4096)


def test_a_recipe_trains_at_reduced_size_by_one_command(tmp_path, capsys):
    write_sources(tmp_path / "in")
    path = tmp_path / "in" / "web-0.parquet"
    changes = {
        "tokenizer": write_vocabulary(tmp_path),
        "sources": f"{{web: {{kind: web, path: {path}, format: parquet, licence: CC0, "
        "columns: {text: content, url: url}}}",
        "held_out": 0.2,
    }
    settings = [part for key, value in changes.items() for part in ("--set", f"{key}={value}")]
    recipe, run = str(MANIFESTS / "bert.yaml"), tmp_path / "run"
    command = ["pretrain", recipe, "--out", str(run), "--scale", "1e-9", *settings]
    command += ["--engine", "inline", "--device", "cpu"]
    assert main(command) == 0
    assert read_run(run).training["model"] == {"width": 64, "layers": 2, "heads": 2, "hidden": 256}
    printed, said = capsys.readouterr()
    assert printed.startswith("bert-base  64 wide, 2 layers, 2 heads, 256 hidden\nphase")
    assert "long step 5" in printed
    parameters, *read = recipes.figures(run, minutes=0.5, gigabytes=1.25)[:5]
    assert read == ["5 + 5", f"{5 * 512 + 5 * 2048:,}", "0.5", "1.2"]
    assert f"{parameters} parameters on 1 x cpu" in said
    lines = (run / "training" / "log.jsonl").read_text()
    assert main(command) == 0  # and again, with nothing left to do
    assert (run / "training" / "log.jsonl").read_text() == lines


def test_an_outline_says_how_many_steps_there_are():
    outline = training_outline(load_scaled(MANIFESTS / "modernbert-base.yaml", [], 1e-4))
    model, header, *phases = [re.split(r" {2,}", line) for line in outline.splitlines()]
    assert model == ["modernbert-base", "192 wide, 4 layers, 6 heads, 288 hidden"]
    assert header[-2:] == ["steps", "tokens"]
    assert phases == [
        ["pretraining", "1,024", "4,096", "1 to 11", "3,927", "171,900,000"],
        ["extension", "8,192", "32,768", "1", "763", "25,000,000"],
        ["decay", "8,192", "32,768", "1", "153", "5,000,000"],
    ]


def test_pretraining_is_refused_before_it_builds(tmp_path, capsys, monkeypatch):
    run = tmp_path / "run"
    vocabulary = ["--set", f"tokenizer={write_vocabulary(tmp_path)}"]
    vocabulary += ["--set", "training.model.vocab_size=10"]
    command = ["pretrain", str(MANIFESTS / "bert.yaml"), "--out", str(run)]
    assert main([*command, *vocabulary]) == 2
    assert "training.model.vocab_size: expected at least the token" in capsys.readouterr().err
    assert main([*command, "--device", "tpu"]) == 2
    assert "--device tpu: expected cpu, or cuda" in capsys.readouterr().err
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert main(command) == 2
    assert "start `tokenmill train` with all of them" in capsys.readouterr().err
    assert not run.exists()
