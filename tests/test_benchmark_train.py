"""The training benchmark: every arm runs and computes the same; the guard and the tables see what
differs. Speeds are not looked at."""

import json
import math
import sys
from dataclasses import replace
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent.parent / "benchmarks"))

import train
from train_arms.agreement import agreements
from train_arms.data import PAD, Corpus, StepTokens, training_run
from train_arms.measure import ArmResult
from train_arms.setup import BENCHMARKED, ArmSpec, Setup
from train_arms.worker import Bench

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
    (arm,) = json.loads(out.read_text())["arms"]
    assert (arm["arm"], arm["micro_batch_tokens"], arm["error"]) == ("F", 128, "")
    assert arm["tokens_per_second"] > 0
    assert arm["loader_share"] > 0
