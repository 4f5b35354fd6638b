"""The recipes and sources that are shipped: they load, and the sources fit the data they name."""

from pathlib import Path

import pyarrow.dataset as ds
import pytest
import yaml
from pipeline_runs import prepare

from tokenmill.cli import main
from tokenmill.pipeline.sources import SourceConfig
from tokenmill.recipe import load_recipe
from tokenmill.shards.settings import read_settings

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


PUBLISHED = {
    ("bert", "short"): (128, 256, 900_000, 10_000),
    ("bert", "long"): (512, 256, 100_000, 0),
    ("roberta", "phase1"): (512, 8192, 500_000, 24_000),
    ("spanbert", "phase1"): (512, 256, 2_400_000, 10_000),
    ("nomicbert", "phase1"): (2048, 4096, 100_000, 6000),
    ("neobert", "phase1"): (1024, 2048, 1_000_000, 2000),
    ("neobert", "phase2"): (4096, 512, 50_000, 0),
}
"""Length, sequences a step, steps, steps of warm-up."""


@pytest.mark.parametrize(("name", "phase"), PUBLISHED)
def test_steps_are_those_of_the_papers(name, phase):
    length, sequences, steps, warmup = PUBLISHED[name, phase]
    found = load_recipe(MANIFESTS / f"{name}.yaml").phases[phase]
    tokens = found.loader.batch_tokens
    assert (found.max_length, tokens) == (length, sequences * length)
    assert tokens % found.row_tokens == 0
    assert found.schedule.tokens == steps * tokens
    assert found.schedule.warmup_tokens == warmup * tokens


def test_modernbert_counts_tokens():
    phases = load_recipe(MANIFESTS / "modernbert.yaml").phases
    assert [phase.schedule.tokens / 10**9 for phase in phases.values()] == [1719, 250, 50]
    sequences = [phase.loader.batch_tokens / phase.max_length for phase in phases.values()]
    assert sequences == [4608, 576, 576]
    warmup = phases["pretraining"].loader.batch_warmup
    assert (warmup.start_tokens, warmup.tokens) == (768 * 1024, 50 * 10**9)
    assert {phase.loader.masking.count for phase in phases.values()} == {"bernoulli"}


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
