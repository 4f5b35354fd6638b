"""The training benchmarks: every arm runs and computes the same; guard, goals and tables see what
differs. Speeds are not looked at."""

import json
import math
import sys
from dataclasses import replace
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent.parent / "benchmarks"))

import presets
import train
from train_arms.agreement import agreements
from train_arms.data import PAD, Corpus, StepTokens, training_run
from train_arms.goals import goal_table, goals
from train_arms.measure import ArmResult
from train_arms.setup import BENCHMARKED, ArmSpec, Setup
from train_arms.worker import Bench, Window

from tokenmill.training.flops import flops_of_token
from tokenmill.training.presets import PRESETS

STEPS = 4


@pytest.fixture(scope="module")
def setup(tmp_path_factory):
    """ModernBERT with a local layer between global ones, on rows of short documents."""
    preset = BENCHMARKED["modernbert-tiny"]
    encoder = replace(
        preset.encoder, vocab_size=300, pad_id=PAD, width=32, hidden=48, heads=2, layers=4, window=8
    )
    corpus = Corpus(
        vocab_size=300,
        max_length=128,
        row_tokens=512,
        num_tokens=6_000,
        steps=StepTokens(measured=1024, guard=1024),
        masking=preset.masking,
    )
    return Setup(
        encoder=encoder,
        run=training_run(tmp_path_factory.mktemp("benchmark") / "run", corpus),
        device="cpu",
        dtype="float32",
        compile=False,
        threads=1,
        learning_rate=1e-2,
        warmup_steps=STEPS,
    )


def first_steps(setup: Setup, letter: str, tokens: int = 512) -> ArmResult:
    spec = ArmSpec(letter=letter, micro_batch_tokens=tokens)
    result = ArmResult(spec=spec, setup=setup)
    result.first = Bench(setup, spec).first_losses(STEPS)
    return result


def test_all_arms_have_the_same_losses_from_the_same_weights(setup):
    results = [first_steps(setup, letter) for letter in ("D", "A", "B", "C", "Cg", "F")]
    found = agreements(results)
    assert [each.name[:-4] for each in found] == ["A", "B", "C", "Cg", "F"]
    for each in found:
        assert each.agrees, each
        assert each.steps == STEPS
        assert each.loss < 1e-5, each
    losses = results[0].first.losses
    assert losses[-1] < losses[0] - 0.1  # there was something to agree on


def test_an_arm_that_computes_something_else_does_not_agree(setup):
    other = replace(setup, encoder=replace(setup.encoder, window=7))
    (found,) = agreements([first_steps(setup, "D"), first_steps(other, "B")])
    assert not found.agrees


def test_a_loss_that_is_no_number_agrees_with_nothing(setup):
    result = first_steps(setup, "D")
    broken = replace(result, first=replace(result.first, losses=[*result.first.losses, math.nan]))
    assert not agreements([broken, replace(broken)])[0].agrees


def test_a_window_counts_tokens_with_and_without_padding(setup):
    ours = Bench(setup, ArmSpec(letter="D", micro_batch_tokens=512))
    for source in ("loader", "resident"):
        window = ours.measure(2, source)
        assert window.num_steps == len(window.waits) == 2
        assert window.computed_tokens == 2 * 1024
        assert 0.9 * 1024 < window.real_tokens / 2 <= 1024
    padded = Bench(setup, ArmSpec(letter="A", micro_batch_tokens=512)).measure(4, "resident")
    assert padded.computed_tokens > padded.real_tokens
    # Four steps in a row are all that lie on the device, whatever arm they lie there for.
    assert padded.real_tokens == ours.measure(4, "resident").real_tokens


def test_the_command_measures_arms_in_processes_of_their_own(tmp_path, capsys):
    out = tmp_path / "found.json"
    sizes = ["--length", "64", "--rounds", "1", "--minutes", "0.01", "--guard-steps", "4"]
    assert train.main(["--arms", "F@128", "--out", str(out), *sizes]) == 0
    printed = capsys.readouterr().out
    assert "F  ours" in printed
    assert "1.50 x" in printed
    found = json.loads(out.read_text())["presets"]["tiny"]
    (goal,) = found["goals"]
    assert goal["met"] is None  # there is no arm to compare with
    (arm,) = found["arms"]
    assert (arm["arm"], arm["micro_batch_tokens"], arm["error"]) == ("F", 128, "")
    assert arm["tokens_per_second"] > 0
    assert arm["loader_share"] > 0


def measured(setup: Setup, letter: str, speed: int, *, wait: float = 0.0, rebuilt: int = 0):
    """An arm whose one window has twenty steps of a second, of which two waited so long."""
    window = Window(
        seconds=20.0,
        cpu_seconds=20.0,
        num_steps=20,
        real_tokens=20 * speed,
        computed_tokens=20 * speed,
        waits=[wait] * 2 + [0.0] * 18,
        peak_memory_gb=None,
        recompilations=rebuilt,
    )
    spec = ArmSpec(letter=letter, micro_batch_tokens=512)
    return ArmResult(spec=spec, setup=setup, windows=[window])


def test_goals_are_reached_missed_or_not_measured(setup):
    setup = replace(setup, compile=True)
    arms = [
        measured(setup, "A", 100_000),
        measured(setup, "A", 90_000),
        measured(setup, "E", 240_000),
        measured(setup, "F", 251_000, wait=0.02, rebuilt=1),
    ]
    found = goals("neobert", arms, 1024)
    assert [(goal.found, goal.met) for goal in found] == [
        ("251,000", True), ("2.51 x", True), ("", None), ("2.00%", False), ("1", False)
    ]  # fmt: skip
    assert [line.split()[-1] for line in goal_table(found).splitlines()[1:]] == [
        "reached", "reached", "measured", "MISSED", "MISSED"
    ]  # fmt: skip
    # A speed is asked of its own length alone, and never of a model that nobody asked about.
    assert goals("neobert", arms, 8192) == goals("tiny", arms, 1024) == found[1:]
    cpu = replace(setup, compile=False)
    on_cpu = [measured(cpu, "C", 100), measured(cpu, "Cg", 149), measured(cpu, "D", 149)]
    (found,) = goals("tiny", on_cpu, 1024)
    assert (found.found, found.met) == ("1.49 x", False)


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_is_given_rows_that_it_has_positions_for(preset):
    task = presets.Task(preset=preset, tokens=2048, seconds=0, device="cpu", threads=1)
    corpus = presets._corpus(task, PRESETS[preset])
    assert corpus.max_length <= (PRESETS[preset].longest or 1024)


def test_a_presets_speed_is_that_of_the_loops_steps(capsys, monkeypatch):
    least = ["--tokens", "128", "--seconds", "0", "--threads", "1"]
    assert presets.main(["--preset", "tiny", *least]) == 0
    assert "\n| `tiny` | 2,501,248 | " in capsys.readouterr().out  # docs/training.md
    # Without room for moments the same steps are made.
    monkeypatch.setattr(presets, "_moments_fit", lambda *_: False)
    task = presets.Task(preset="tiny", tokens=128, seconds=0, device="cpu", threads=1)
    speed = presets.time_steps(task)
    assert not speed.has_moments
    flops = [flops_of_token(PRESETS["tiny"], mask_rate=0.2, seen=seen) for seen in (8, 128)]
    assert flops[0] < speed.flops_per_second / speed.tokens_per_second < 1.001 * flops[1]
