import json
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from training_runs import held_out, make_training_run

from tokenmill.cli import main
from tokenmill.errors import RecipeError, ResumeError
from tokenmill.loader import held_out_batches
from tokenmill.shards.overlay import Retraction, SkippedSteps, append_entry
from tokenmill.training.compare import ComparisonConfig, _names, compare
from tokenmill.training.config import TrainingConfig
from tokenmill.training.intervals import Interval, interval, t_quantile
from tokenmill.training.log import read_log

CONFIG = ComparisonConfig(
    training=TrainingConfig(preset="tiny", micro_batch_tokens=256),
    tokens=512,
    batch_tokens=128,
    seeds=2,
)
FIELDS = [field.name for field in fields(CONFIG)]


@pytest.fixture(scope="module")
def builds(tmp_path_factory):
    top = tmp_path_factory.mktemp("builds")
    plain = make_training_run(top / "plain", held_out={"8-15": 2})
    return plain, make_training_run(top / "other", held_out={"0-7": 1, "16+": 1})


@pytest.fixture(scope="module")
def compared(builds, tmp_path_factory):
    out = tmp_path_factory.mktemp("compared") / "out"
    return compare(builds, out=out, config=CONFIG, device="cpu", say=lambda _: None), out


def test_each_model_is_judged_on_the_held_out_rows_of_each_build(compared):
    comparison, out = compared
    assert {name: list(judged) for name, judged in comparison.losses.items()} == {
        "plain": ["plain", "other"],
        "other": ["plain", "other"],
    }
    assert all(len(v) == 2 for judged in comparison.losses.values() for v in judged.values())
    seeds = comparison.losses["plain"]["plain"]
    assert seeds[0] != seeds[1]
    for name in ("plain", "other"):
        own = read_log(out / name / "seed-0" / "training" / "log.jsonl")
        last = [line for line in own if getattr(line, "subset", None) == "all"][-1]
        assert comparison.losses[name][name][0] == pytest.approx(last.loss, rel=1e-6)
    assert comparison.epochs["plain"] == pytest.approx(8 / 22, rel=0.2)


def test_equal_builds_give_equal_losses_to_the_bit(builds, compared, tmp_path):
    twins = [builds[0], builds[0]]
    both = compare(twins, out=tmp_path / "out", config=CONFIG, device="cpu", say=lambda _: None)
    assert list(both.losses) == ["plain", "plain-2"]
    assert both.losses["plain"]["plain"] == both.losses["plain-2"]["plain"]
    assert both.losses["plain"]["plain"] == compared[0].losses["plain"]["plain"]
    assert both.difference("plain-2", "plain") == Interval(0.0, 0.0)
    assert not both.difference("plain-2", "plain").without_zero


def test_a_comparison_goes_on_where_it_was_and_does_nothing_twice(builds, compared):
    comparison, out = compared
    written = {path: path.stat().st_mtime_ns for path in out.rglob("step-*/model.safetensors")}
    assert written
    config = ComparisonConfig(**{name: getattr(CONFIG, name) for name in FIELDS} | {"seeds": 3})
    more = compare(builds, out=out, config=config, device="cpu", say=lambda _: None)
    assert {path: path.stat().st_mtime_ns for path in written} == written
    assert more.losses["other"]["plain"][:2] == comparison.losses["other"]["plain"]
    assert len(more.losses["other"]["plain"]) == 3


def test_a_build_may_be_moved_and_judges_may_join(builds, tmp_path):
    run, out = make_training_run(tmp_path / "1" / "plain", held_out={"8-15": 2}), tmp_path / "out"
    training = TrainingConfig(preset="tiny", micro_batch_tokens=256, ema_decay=0.5)
    config = ComparisonConfig(
        **{name: getattr(CONFIG, name) for name in FIELDS} | {"training": training}
    )

    def losses(run, **judges):
        say = [].append
        return compare(
            [run, builds[1]], out=out, config=config, device="cpu", say=say, **judges
        ).losses

    alone = losses(run, judges=[run, run])
    assert {name: list(judged) for name, judged in alone.items()} == {
        "plain": ["plain"],
        "other": ["plain"],
    }
    # As in training, it is the mean of the weights that is judged.
    last = held_out(out / "plain" / "seed-0" / "training")[-1]
    assert alone["plain"]["plain"][0] == pytest.approx(last.loss, rel=1e-6)
    (tmp_path / "2").mkdir()
    both = losses(run.rename(tmp_path / "2" / "plain"))
    assert both["plain"]["plain"] == alone["plain"]["plain"]
    assert list(both["other"]) == ["plain", "other"]


def test_builds_of_one_name_are_told_apart():
    assert _names([Path("1/plain-2"), Path("2/plain"), Path("3/plain")]) == [
        "plain-2",
        "plain",
        "plain-3",
    ]


def test_documents_taken_back_stay_out_and_other_orders_skips_do_not_count(builds, tmp_path):
    run = make_training_run(tmp_path / "plain", held_out={"8-15": 2})
    append_entry(run, Retraction("phase1", 5, (1, 2, 3)))
    append_entry(run, SkippedSteps("phase1", 0, 1, 2))
    out = tmp_path / "out"
    compare([run, builds[1]], out=out, config=CONFIG, device="cpu", say=lambda _: None)
    (line,) = (out / "plain" / "seed-0" / "run" / "overlay.jsonl").read_text().splitlines()
    assert json.loads(line) == {"doc_ids": [1, 2, 3], "from": {"phase": "compare", "step": 0}}


def test_what_does_not_compare_is_refused(builds, compared, tmp_path):
    def attempt(runs, out=tmp_path / "out", judges=(), **changes):
        config = ComparisonConfig(**{name: getattr(CONFIG, name) for name in FIELDS} | changes)
        compare(runs, out=out, config=config, device="cpu", judges=judges, say=lambda _: None)

    with pytest.raises(RecipeError, match="at least two builds"):
        attempt(builds[:1])
    with pytest.raises(RecipeError, match="no multiple of it"):
        attempt(builds, batch_tokens=100)
    assert not (tmp_path / "out").exists()  # it may be tried again
    with pytest.raises(RecipeError, match="seeds: one training has no spread"):
        attempt(builds, seeds=1)
    with pytest.raises(ResumeError, match="another folder, or remove this one"):
        attempt(builds, out=compared[1], tokens=1024)
    none = make_training_run(tmp_path / "none", held_out={})
    with pytest.raises(RecipeError, match="no held-out rows"):
        attempt([none, builds[0]])
    gone = make_training_run(tmp_path / "gone", held_out={"0-7": 1})
    (batch,) = held_out_batches(gone, "phase1", micro_batch_rows=1)
    append_entry(
        gone, Retraction("phase1", 0, tuple(np.unique(batch.doc_ids[batch.doc_ids != 0]).tolist()))
    )
    with pytest.raises(RecipeError, match=r"gone: no token of its held-out rows is masked"):
        attempt([builds[0], builds[1]], judges=[gone])
    other = make_training_run(tmp_path / "tokens", held_out={"8-15": 2})
    info = json.loads((other / "run.json").read_text())
    info["tokenizer"]["sha256"] = "0" * 64
    (other / "run.json").write_text(json.dumps(info))
    with pytest.raises(RecipeError, match="for one tokenizer only"):
        attempt([builds[0], other])


def test_several_processes_are_refused(builds, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert main(["compare", *map(str, builds), "--out", str(tmp_path / "out")]) == 2
    assert "compare trains in one process" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("degrees", "expected"),
    [(1, 12.7062), (2, 4.3027), (3, 3.1824), (4, 2.7764), (9, 2.2622), (30, 2.0423)],
)
def test_quantiles_of_students_t_are_those_of_the_tables(degrees, expected):
    assert t_quantile(0.975, degrees) == pytest.approx(expected, abs=5e-5)


def test_an_interval_covers_the_true_mean_as_often_as_it_says():
    draws = np.random.default_rng(0).normal(3.0, 2.0, (4000, 3))
    covered = [abs(found.mean - 3.0) <= found.half_width for found in map(interval, draws.tolist())]
    assert np.mean(covered) == pytest.approx(0.95, abs=0.012)


def test_a_build_is_not_judged_on_documents_that_it_may_train_on(builds, tmp_path):
    runs = [make_training_run(tmp_path / name, held_out={"8-15": 2}) for name in ("a", "b")]
    for run, share in zip(runs, (0.01, 0.001), strict=True):
        (run / "recipe.yaml").write_text(f"held_out: {share}\n")
    with pytest.raises(RecipeError, match=r"b: holds out 0\.001 of its documents and .*a 0\.01"):
        compare(runs, out=tmp_path / "out", config=CONFIG, device="cpu")
