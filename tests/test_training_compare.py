"""Small trainings on several builds: what is equal, what goes on, what is refused and said."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from training_runs import held_out, make_training_run

from tokenmill.cli import main
from tokenmill.errors import RecipeError, ResumeError
from tokenmill.loader import held_out_batches
from tokenmill.shards.overlay import Retraction, SkippedSteps, append_entry
from tokenmill.training.compare import compare
from tokenmill.training.compared_builds import _names
from tokenmill.training.comparison import Comparison, ComparisonConfig
from tokenmill.training.config import TrainingConfig
from tokenmill.training.intervals import Interval
from tokenmill.training.log import read_log

CONFIG = ComparisonConfig(
    training=TrainingConfig(preset="tiny", micro_batch_tokens=256),
    tokens=512,
    batch_tokens=128,
    seeds=2,
)


def silent(line):
    pass


@pytest.fixture(scope="module")
def builds(tmp_path_factory):
    top = tmp_path_factory.mktemp("builds")
    plain = make_training_run(top / "plain", held_out={"8-15": 2})
    long = {"mixture": {"8+": 1.0}}
    return plain, make_training_run(top / "other", held_out={"0-7": 1, "16+": 1}, loader=long)


@pytest.fixture(scope="module")
def compared(builds, tmp_path_factory):
    out = tmp_path_factory.mktemp("compared") / "out"
    return compare(builds, out=out, config=CONFIG, device="cpu", say=silent), out


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
    both = compare(twins, out=tmp_path / "out", config=CONFIG, device="cpu", say=silent)
    assert list(both.losses) == ["plain", "plain-2"]
    assert both.losses["plain"] == both.losses["plain-2"]
    assert both.losses["plain"]["plain"] == compared[0].losses["plain"]["plain"]
    assert both.difference("plain-2", "plain") == Interval(0.0, 0.0)
    assert both.verdict("plain-2", "plain") == "equal"


def test_a_comparison_that_was_stopped_goes_on_and_does_nothing_twice(builds, compared, tmp_path):
    said = []

    def stop_at_the_third(line):
        said.append(line)
        if line.startswith("training 3 of 4"):
            raise KeyboardInterrupt

    call = {"out": tmp_path / "out", "device": "cpu"}
    with pytest.raises(KeyboardInterrupt):
        compare(builds, **call, config=CONFIG, say=stop_at_the_third)
    often = replace(CONFIG, training=replace(CONFIG.training, log_every_steps=1))
    assert compare(builds, **call, config=often, say=said.append) == compared[0]
    assert said == [
        "training 1 of 4: plain, seed 0",
        "training 2 of 4: other, seed 0",
        "training 3 of 4: plain, seed 1",
        "training 3 of 4: plain, seed 1",
        "training 4 of 4: other, seed 1",
    ]


def test_seeds_builds_and_judges_may_join_and_be_left_out(builds, tmp_path):
    third = make_training_run(tmp_path / "third", held_out={"16+": 2})
    said, out = [], tmp_path / "out"

    def losses(runs, seeds=2, **judges):
        said.clear()
        config = replace(CONFIG, tokens=128, seeds=seeds)
        return compare(runs, out=out, config=config, device="cpu", say=said.append, **judges).losses

    first = losses(builds, judges=[builds[0]])
    weights = {path: path.stat().st_mtime_ns for path in out.rglob("step-*/model.safetensors")}
    assert len(weights) == 4
    more = losses([*builds, third], seeds=3)
    assert [line[:15] for line in said] == [f"training {n} of 9" for n in range(1, 10)]
    assert {path: path.stat().st_mtime_ns for path in weights} == weights
    for name in first:
        assert list(more[name]) == ["plain", "other", "third"]
        assert more[name]["plain"][:2] == first[name]["plain"]
    assert losses([third, builds[0]]) == {
        name: {judge: more[name][judge][:2] for judge in ("third", "plain")}
        for name in ("third", "plain")
    }
    assert said == []
    elsewhere = make_training_run(tmp_path / "other", held_out={"8-15": 3})
    with pytest.raises(ResumeError, match=r"another other\.rows"):  # it was left out, not forgotten
        losses([third, elsewhere])


def test_the_command_says_which_build_is_better(builds, compared, capsys):
    comparison, out = compared
    changes = ["training.micro_batch_tokens=256", "tokens=512", "batch_tokens=128", "seeds=2"]
    sets = [part for change in changes for part in ("--set", change)]
    assert main(["compare", *map(str, builds), "--out", str(out), "--threads", "1", *sets]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    tables = [lines[1:4], lines[5:8]]
    for judge, (header, *rows) in zip(("plain", "other"), tables, strict=True):
        assert header == ["on", judge, "epochs", "loss", "less", "plain's"]
        for name, row in zip(("plain", "other"), rows, strict=True):
            losses = np.array(comparison.losses[name][judge])
            assert row[0] == name
            assert [float(row[2]), float(row[4])] == pytest.approx(mean_and_half(losses), abs=1e-4)
        apart = losses - np.array(comparison.losses["plain"][judge])
        found = [float(rows[1][5]), float(rows[1][7])]
        assert found == pytest.approx(mean_and_half(apart), abs=1e-4)
        certain = "better" if found[0] < 0 else "worse"
        expected = certain if abs(found[0]) > found[1] else "may be chance"
        assert " ".join(rows[1][8:]) == expected == comparison.verdict("other", judge)
    assert json.loads((out / "losses.json").read_text())["losses"] == comparison.losses


def mean_and_half(values):
    """Of two values: the mean, and half the interval's width by the t of one degree of freedom."""
    return [values.mean(), 12.7062 * values.std(ddof=1) / np.sqrt(2)]


@pytest.mark.parametrize(
    ("losses", "verdict"),
    [
        ([1.0, 2.0, 3.0], "equal"),
        ([0.9, 1.88, 2.9], "better"),
        ([1.1, 2.12, 3.1], "worse"),
        ([0.5, 2.0, 3.1], "may be chance"),
        ([1.1, 1.9, 3.0], "may be chance"),  # no difference in the mean is not the same
    ],
)
def test_a_verdict_needs_an_interval_without_0(losses, verdict):
    comparison = Comparison({"a": {"a": [1.0, 2.0, 3.0]}, "b": {"a": losses}}, {})
    assert comparison.verdict("b", "a") == verdict


def test_a_build_may_be_moved(builds, tmp_path):
    run, out = make_training_run(tmp_path / "1" / "plain", held_out={"8-15": 2}), tmp_path / "out"
    training = TrainingConfig(preset="tiny", micro_batch_tokens=256, ema_decay=0.5)
    config = replace(CONFIG, training=training)

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
    compare([run, builds[1]], out=out, config=CONFIG, device="cpu", say=silent)
    (line,) = (out / "plain" / "seed-0" / "run" / "overlay.jsonl").read_text().splitlines()
    assert json.loads(line) == {"doc_ids": [1, 2, 3], "from": {"phase": "compare", "step": 0}}


def test_what_does_not_compare_is_refused(builds, tmp_path):
    def attempt(runs, judges=(), phase=None, **changes):
        out, config = tmp_path / "out", replace(CONFIG, **changes)
        compare(runs, out=out, config=config, device="cpu", phase=phase, judges=judges, say=silent)

    with pytest.raises(RecipeError, match="at least two builds"):
        attempt(builds[:1])
    with pytest.raises(RecipeError, match="no multiple of it"):
        attempt(builds, batch_tokens=100)
    assert not (tmp_path / "out").exists()  # it may be tried again
    with pytest.raises(RecipeError, match="seeds: expected at least 2, found 1"):
        attempt(builds, seeds=1)
    with pytest.raises(RecipeError, match=r"other: has no phase long, but phase1"):
        attempt(builds[::-1], phase="long")
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


def test_a_judge_with_longer_sequences_than_the_model_has_positions_is_refused(builds, tmp_path):
    learned = {"positions": "learned", "max_positions": 16, "segments": 1}
    training = replace(CONFIG.training, model=learned)
    config = replace(CONFIG, training=training)
    with pytest.raises(RecipeError, match=r"plain: phase1 .* the model has 16 learned positions"):
        compare(builds, out=tmp_path / "out", config=config, device="cpu", say=silent)
    assert not (tmp_path / "out").exists()


def test_another_comparison_in_the_same_folder_is_refused_by_what_differs(
    builds, compared, tmp_path
):
    def attempt(runs, **changes):
        config = replace(CONFIG, **changes)
        compare(runs, out=compared[1], config=config, device="cpu", say=silent)

    with pytest.raises(ResumeError, match=r"a comparison with another training\.z_loss, tokens "):
        attempt(builds, tokens=1024, training=replace(CONFIG.training, z_loss=1e-4))
    twin = tmp_path / "other"
    shutil.copytree(builds[1], twin)
    append_entry(twin, Retraction("phase1", 5, (1, 2, 3)))
    with pytest.raises(ResumeError, match=r"a comparison with another other\.taken_out "):
        attempt([builds[0], twin])
    with pytest.raises(ResumeError, match=r"with another plain\.rows"):
        attempt([make_training_run(tmp_path / "plain", held_out={"8-15": 3}), builds[1]])


def test_several_processes_are_refused(builds, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert main(["compare", *map(str, builds), "--out", str(tmp_path / "out")]) == 2
    assert "compare trains in one process" in capsys.readouterr().err


def test_a_build_is_not_judged_on_documents_that_it_may_train_on(builds, tmp_path):
    runs = [make_training_run(tmp_path / name, held_out={"8-15": 2}) for name in ("a", "b")]
    for run, share in zip(runs, (0.01, 0.001), strict=True):
        (run / "recipe.yaml").write_text(f"held_out: {share}\n")
    with pytest.raises(RecipeError, match=r"b: holds out 0\.001 of its documents and .*a 0\.01"):
        compare(runs, out=tmp_path / "out", config=CONFIG, device="cpu")
