"""The search for repeated text goes on where it was killed, and is done anew where it must be."""

import pickle
from pathlib import Path

import pytest
from repeat_runs import files_of, patched, planted, removals_of, run_stage, search, write_units

from tokenmill.pipeline.dedup import repeats
from tokenmill.pipeline.dedup.repeat_config import RepeatConfig
from tokenmill.pipeline.dedup.repeats import repeated_text
from tokenmill.pipeline.dedup.steps import Step

MIB = 1 << 20
KINDS = ("anchors", "common", "windows", "earlier", "spans")


@pytest.mark.parametrize("die_at", range(8))  # two groups in three stages, a partition in two
def test_a_search_that_was_killed_goes_on_and_ends_with_the_same_bytes(
    tmp_path, monkeypatch, die_at
):
    patched(monkeypatch, piece=200, group=8000)
    units = planted(seed=2, num_documents=40)
    search(tmp_path / "whole", units, RepeatConfig())
    run = tmp_path / "killed"
    milled = write_units(run, units)
    with pytest.raises(KeyboardInterrupt) as death:
        repeated_text(run, run_stage(run, die_at), RepeatConfig(), milled, ())
    done = set(files_of(run, "receipts"))
    again = []

    def stage(name, function, tasks, below=""):
        def noted(task):
            again.append(f"receipts/{task.stage}/{task.name}.json")
            return function(task)

        return run_stage(run)(name, noted, tasks, below)

    step = repeated_text(run, stage, RepeatConfig(), milled, ())
    assert not done & set(map(Path, again))
    stages = [f"repeats-{kind}" for kind in KINDS]
    assert {path.split("/")[1] for path in again} == set(stages[stages.index(*death.value.args) :])
    assert files_of(run, "spans", "removals") == files_of(tmp_path / "whole", "spans", "removals")
    assert not (run / "dedup" / "repeated_text").exists()
    assert {path.parent.name for path in files_of(run, "receipts")} == {"repeats-spans"}
    again.clear()
    assert repeated_text(run, stage, RepeatConfig(memory_bytes=MIB), milled, ()) == step
    assert again == []


def test_a_search_that_was_killed_after_its_last_task_only_tidies_up(tmp_path, monkeypatch):
    milled = write_units(tmp_path, planted(num_documents=30))
    with monkeypatch.context() as patch:
        patch.setattr(repeats, "clear", lambda folder: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            repeated_text(tmp_path, run_stage(tmp_path), RepeatConfig(), milled, ())
    assert (tmp_path / "dedup" / "repeated_text").exists()
    repeated_text(tmp_path, run_stage(tmp_path, die_at=0), RepeatConfig(), milled, ())
    assert not (tmp_path / "dedup" / "repeated_text").exists()


def test_other_settings_and_inputs_are_searched_anew(tmp_path):
    milled = write_units(tmp_path, planted(num_documents=30))
    names = []

    def stage(name, function, tasks, below=""):
        def noted(task):
            names.append(name)
            return function(pickle.loads(pickle.dumps(task)))

        return run_stage(tmp_path)(name, noted, tasks, below)

    earlier = [removals_of(tmp_path, {3})]
    for config, steps in [
        (RepeatConfig(), []),
        (RepeatConfig(min_tokens=60), []),
        (RepeatConfig(spans="keep"), []),
        (RepeatConfig(max_share=0.1), []),
        (RepeatConfig(max_share=0.1), earlier),
    ]:
        names.clear()
        repeated_text(tmp_path, stage, config, milled, steps)
        assert set(names) == {f"repeats-{kind}" for kind in KINDS}


def test_a_recipe_that_leaves_the_step_out_leaves_nothing_of_it(tmp_path, monkeypatch):
    milled = write_units(tmp_path, planted(num_documents=30))
    with monkeypatch.context() as patch:
        patch.setattr(repeats, "clear", lambda folder: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            repeated_text(tmp_path, run_stage(tmp_path), RepeatConfig(), milled, ())
    assert files_of(tmp_path, "spans")
    step = repeated_text(tmp_path, run_stage(tmp_path), RepeatConfig(), (), ())
    assert step == Step("repeated_text")
    assert not files_of(tmp_path, "receipts", "spans", "removals", "dedup")
