"""The recipes and sources that are shipped: they load, and the sources fit the data they name."""

from dataclasses import replace
from pathlib import Path

import pyarrow.dataset as ds
import pytest
import yaml
from pipeline_runs import prepare

from tokenmill.cli import main
from tokenmill.errors import RecipeError
from tokenmill.pipeline.sources import SourceConfig
from tokenmill.recipe import load_recipe
from tokenmill.shards.settings import read_settings
from tokenmill.training.model import build_model, num_parameters
from tokenmill.training.presets import encoder_config
from tokenmill.training.schedule import learning_rate

MANIFESTS = Path(__file__).parent.parent / "manifests"


@pytest.mark.parametrize("path", sorted(MANIFESTS.glob("*.yaml")), ids=lambda path: path.stem)
def test_each_recipe_loads(path):
    assert load_recipe(path).name == path.stem


@pytest.mark.parametrize("path", sorted(MANIFESTS.glob("sources/*")), ids=lambda path: path.stem)
def test_each_source_loads(path):
    read_settings(SourceConfig, yaml.safe_load(path.read_text()), str(path))


def test_a_shipped_source_can_be_a_folder_although_it_has_a_list_of_files():
    changes = ["sources.crawl.path=data", "sources.crawl.file_list="]
    crawl = load_recipe(MANIFESTS / "crawl-web-code-science.yaml", changes).sources["crawl"]
    assert (crawl.path, crawl.file_list) == ("data", "")


PUBLISHED = """
bert                short          128    256  900_000 steps    10_000 steps   1e-4  1e-5
bert                long           512    256  100_000 steps         0 steps   1e-5  0
bert-large          short          128    256  900_000 steps    10_000 steps   1e-4  1e-5
bert-large          long           512    256  100_000 steps         0 steps   1e-5  0
roberta             phase1         512   8192  500_000 steps    24_000 steps   6e-4  0
roberta-large       phase1         512   8192  500_000 steps    30_000 steps   4e-4  0
spanbert            phase1         512    256  2_400_000 steps  10_000 steps   1e-4  0
nomicbert           phase1        2048   4096  100_000 steps      6000 steps   5e-4  0
neobert             phase1        1024   2048  1_000_000 steps    2000 steps   6e-4  6e-5
neobert             phase2        4096    512  50_000 steps          0 steps   6e-5  6e-5
modernbert-base     pretraining   1024   4608  1719 B                3 B       8e-4  8e-4
modernbert-base     extension     8192    576  250 B                 0 B       3e-4  3e-4
modernbert-base     decay         8192    576  50 B                  0 B       3e-4  3e-7
modernbert-large    pretraining   1024   4928  900 B                 2 B       5e-4  5e-4
modernbert-large    pretraining2  1024   4928  800 B                 0 B       5e-5  5e-5
modernbert-large    extension     8192    616  250 B                 0 B       5e-5  5e-5
modernbert-large    decay         8192    624  50 B                  0 B       5e-5  5e-8
ettin-17m           pretraining   1024   4608  1700 B                4 B       3e-3  3e-3
ettin-17m           extension     7999   4608  250 B                 0 B       3e-3  1.5e-3
ettin-17m           decay         7999   4608  50 B                  0 B       1.5e-3  6e-5
ettin-32m           pretraining   1024   4608  1700 B                4 B       3e-3  3e-3
ettin-68m           pretraining   1024   4608  1700 B                3 B       3e-3  3e-3
ettin-150m          pretraining   1024   4608  1700 B                3 B       8e-4  8e-4
ettin-150m          extension     7999   4608  250 B                 0 B       8e-4  4e-4
ettin-150m          decay         7999   4608  50 B                  0 B       4e-4  1.6e-5
ettin-400m          pretraining   1024   4608  1700 B                2 B       5e-4  5e-4
ettin-400m          decay         7999   4608  50 B                  0 B       2.5e-4  1e-5
ettin-1b            pretraining   1024   4608  1700 B                2 B       5e-4  5e-4
ettin-1b            extension     7999   4608  83.333 B              0 B       5e-4  2.5e-4
ettin-1b            decay         7999   4608  16.666666667 B        0 B       2.5e-4  1e-5
"""
"""Length, sequences a step, how long the phase and its warm-up are, highest and last rate."""


@pytest.mark.parametrize("line", PUBLISHED.strip().splitlines(), ids=lambda line: line[:32])
def test_phases_are_those_of_the_papers(line):
    name, phase, *numbers = line.split()
    length, sequences, long, unit, warmup, _, highest, last = numbers
    found = load_recipe(MANIFESTS / f"{name}.yaml").phases[phase]
    tokens = found.loader.batch_tokens
    assert tokens % found.row_tokens == 0
    assert found.max_length == int(length)
    assert tokens / found.max_length == pytest.approx(int(sequences), rel=2e-4)  # whole rows
    size = tokens if unit == "steps" else 10**9
    assert found.schedule.tokens == round(float(long) * size)
    assert found.schedule.warmup_tokens == int(warmup) * size
    assert found.schedule.learning_rate == float(highest)
    at_the_end = learning_rate(found.schedule, found.schedule.tokens)
    assert at_the_end == pytest.approx(float(last), abs=1e-12)


OPTIMIZERS = """
neobert           adamw         0.9 0.95   1e-8  0.1   rate      all       1.0
modernbert-base   stable-adamw  0.9 0.98   1e-6  1e-5  schedule  matrices  None
modernbert-large  stable-adamw  0.9 0.98   1e-6  1e-5  schedule  matrices  None
bert              adamw         0.9 0.999  1e-6  0.01  rate      matrices  1.0
bert-large        adamw         0.9 0.999  1e-6  0.01  rate      matrices  1.0
roberta           adamw         0.9 0.98   1e-6  0.01  rate      all       None
spanbert          adamw         0.9 0.999  1e-8  0.1   rate      all       1.0
nomicbert         adamw         0.9 0.98   1e-6  1e-5  rate      matrices  None
ettin-17m         stable-adamw  0.9 0.98   1e-6  3e-4  schedule  matrices  None
ettin-32m         stable-adamw  0.9 0.98   1e-6  3e-4  schedule  matrices  None
ettin-68m         stable-adamw  0.9 0.98   1e-6  3e-4  schedule  matrices  None
ettin-150m        stable-adamw  0.9 0.98   1e-6  1e-5  schedule  matrices  None
ettin-400m        stable-adamw  0.9 0.98   1e-6  1e-5  schedule  matrices  None
ettin-1b          stable-adamw  0.9 0.98   1e-6  5e-5  schedule  matrices  None
"""
"""Optimizer, its two decay rates and eps, weight decay, what multiplies it, on what, clipping."""


@pytest.mark.parametrize("line", OPTIMIZERS.strip().splitlines(), ids=lambda line: line[:16])
def test_optimizers_are_those_of_the_papers(line):
    name, optimizer, first, second, eps, decay, times, decayed, clip = line.split()
    found = load_recipe(MANIFESTS / f"{name}.yaml").training
    assert (found.optimizer, found.betas) == (optimizer, (float(first), float(second)))
    assert (found.eps, found.weight_decay) == (float(eps), float(decay))
    assert (found.weight_decay_times, found.weight_decay_on) == (times, decayed)
    assert str(found.clip_norm) == clip


WARMUPS = {
    "modernbert-base": (768, 50),
    "modernbert-large": (448, 10),
    "ettin-17m": (4 * 144, 125),
    "ettin-32m": (4 * 128, 100),
    "ettin-68m": (4 * 96, 75),
    "ettin-150m": (4 * 72, 50),
    "ettin-400m": (4 * 48, 10),
    "ettin-1b": (4 * 24, 3),
}
"""Sequences of the first step, billions of tokens until the batch is whole."""


@pytest.mark.parametrize("name", WARMUPS)
def test_batches_of_modernberts_kind_grow(name):
    warmup = load_recipe(MANIFESTS / f"{name}.yaml").phases["pretraining"].loader.batch_warmup
    assert (warmup.start_tokens / 1024, warmup.tokens / 10**9) == WARMUPS[name]


def test_what_modernbert_changes_from_phase_to_phase():
    large = load_recipe(MANIFESTS / "modernbert-large.yaml").phases.values()
    longer = {"theta": 160_000, "local_theta": 10_000}
    assert [phase.rope for phase in large] == [{}, {}, longer, longer]
    assert [phase.schedule.weight_decay for phase in large] == [None, 1e-6, 1e-6, 1e-6]
    ettin = load_recipe(MANIFESTS / "ettin-150m.yaml").phases.values()
    assert [phase.loader.masking.rate for phase in ettin] == [0.3, 0.3, 0.15]
    both = {"theta": 160_000}
    assert [phase.rope for phase in ettin] == [{}, both, both]
    smallest = load_recipe(MANIFESTS / "ettin-17m.yaml").phases.values()
    assert [phase.rope for phase in smallest] == [{}, longer, both]


PARAMETERS = {
    "spanbert": 108_340_804,
    "nomicbert": 137_323_008 + 30_528,  # its decoder has no bias
}
"""Of the models that have no preset of their own, with their head."""


@pytest.mark.parametrize("name", PARAMETERS)
def test_models_without_a_preset_have_their_published_size(name):
    training = load_recipe(MANIFESTS / f"{name}.yaml").training
    words = {"vocab_size": 28_996} if name == "spanbert" else {}
    config = encoder_config(training.preset, {**training.model, **words})
    assert num_parameters(build_model(config)) == PARAMETERS[name]


def test_neobert_is_the_published_recipe():
    recipe = load_recipe(MANIFESTS / "neobert.yaml")
    first, second = recipe.phases.values()
    assert (first.max_length, second.max_length) == (1024, 4096)
    assert second.loader.mixture == {"all": 0.2, "1024+": 0.4, "2048+": 0.4}
    assert {phase.loader.masking.rate for phase in (first, second)} == {0.2}
    assert {phase.loader.masking.mask_share for phase in (first, second)} == {1.0}
    assert {phase.loader.masking.count for phase in (first, second)} == {"bernoulli"}
    assert recipe.packing.overlong == "truncate"
    split = load_recipe(MANIFESTS / "neobert.yaml", ["packing.overlong=split"])
    assert split.packing.overlong == "split"


def test_a_recipe_that_starts_from_another_changes_what_it_says(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(f"use: {MANIFESTS / 'neobert.yaml'}\nname: mine\npacking: {{overlong: drop}}\n")
    mine, neobert = load_recipe(path), load_recipe(MANIFESTS / "neobert.yaml")
    packing = replace(neobert.packing, overlong="drop")
    assert mine == replace(neobert, name="mine", packing=packing)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("use: other.yaml", "use: .*other.yaml: no such file"),
        (f"use: {MANIFESTS / 'ettin-17m.yaml'}", "ettin-17m.yaml starts from another recipe"),
    ],
)
def test_a_recipe_that_cannot_start_from_another_says_why(tmp_path, text, message):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(RecipeError, match=message):
        load_recipe(path)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("neobert", "training.preset=bert-base", "documents makes no pairs"),
        ("roberta", "phases.phase1.max_length=513", "at most the 512 learned positions"),
        ("neobert", "phases.phase2.rope={yarn_factor: 4}", "phases.phase2.rope: original_length"),
        ("neobert", "phases.phase2.rope.thta=2", r"yaml: phases.phase2.rope.thta: .*mean theta\?"),
        ("neobert", "training.preset=neobrt", r"yaml.training: preset: .*mean neobert\?"),
        ("neobert", "training.model.widht=64", r"yaml.training: model.widht: .*mean width\?"),
        ("neobert", "training.model.rope=2", "training: model.rope: expected a mapping"),
        ("neobert", "sources.web.path=x", "sources.web: expected one of refinedweb. A new"),
    ],
)
def test_a_setting_that_does_not_fit_the_others_is_refused_with_its_place(name, change, message):
    with pytest.raises(RecipeError, match=message):
        load_recipe(MANIFESTS / f"{name}.yaml", [change])


def test_a_source_taken_from_a_file_keeps_the_keys_that_are_not_changed(tmp_path):
    changes = ["sources.refinedweb.path=x", "sources.refinedweb.columns.text=body"]
    source = load_recipe(MANIFESTS / "neobert.yaml", changes).sources["refinedweb"]
    assert (source.path, source.columns.text, source.columns.url) == ("x", "body", "url")


@pytest.mark.parametrize(
    ("source", "folder", "number", "licences"),
    [
        ("stack", "code", 2015, {"MIT", "Apache-2.0"}),
        ("code-jsonl", "code", 2016, {"MIT", "Apache-2.0"}),
        ("science", "science/jsonl", 555, {"CC-BY", "CC0"}),
    ],
)
def test_shipped_sources_read_real_code_and_science(
    tmp_path, test_data, source, folder, number, licences
):
    place = {"use": str(MANIFESTS / "sources" / f"{source}.yaml"), "path": str(test_data / folder)}
    recipe = prepare(tmp_path, sources={"real": place})
    assert main(["build", str(recipe), "--out", str(tmp_path / "run"), "--engine", "inline"]) == 0
    rows = ds.dataset(tmp_path / "run" / "decisions", format="parquet").to_table()
    assert len(rows) == number
    found = {part for value in rows["licence"].to_pylist() for part in str(value).split(", ")}
    assert licences & found
    assert None not in rows["id"].to_pylist()
