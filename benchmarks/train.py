"""How fast the bundled loop trains, beside other ways to train the same model in the same run.

    python benchmarks/train.py                  on a GPU neobert, modernbert-base, modernbert-large,
                                                about nine minutes each; on a CPU tiny
    python benchmarks/train.py --preset neobert
    python benchmarks/train.py --preset modernbert-base --length 8192
    python benchmarks/train.py --preset neobert --arms E@65536 E@131072 A@16384 A@32768
    python benchmarks/train.py --preset neobert --resume-check     the same training, in one go and
                                                                   in two, and what that costs
    --run RUN        rows of a finished build in place of synthetic ones
    --out FILE       everything measured, as JSON

Arms: A the padded loop of NeoBERT's code, B the way of ModernBERT's (FlexBERT), both written anew
from our layers; C transformers' ModernBERT without flash-attn, padded to the longest line, and Cg
by length groups with logits of masked tokens only; D ours, eager; E compiled; F with the last layer
at masked tokens; G E on sequences of up to 8,192 tokens. On a CPU nothing is compiled, and F is D
with that last layer. A@16384 sets an arm's micro-batch, padding included; of several sizes of an
arm the best one counts.

Same rows, masks, first weights, precision (bfloat16 on a GPU, else float32) and AdamW for all, and
no dropout; a step has the same rows in all arms. Tokens per second are those that are not padding,
of the median window; arms are measured in turns, ours through the loader and the others over
batches that lie on the device already. Before that, first losses are compared: where an arm that
should have ours has others, the command says so and ends with 1. MFU counts the operations of the
plain model (training/flops.py) against what the device's maker says; "of 790 T" against what large
products reach on an H100 or H200. "wait" is the share of a step in which the host waited for data;
"rebuilt" are graphs compiled after the third step; "per CPU s" are tokens per second of processor
time, which other work on a shared machine changes less. Last comes what is asked of the loop
(train_arms/goals.py) and whether it was reached, which the command's exit status does not tell.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from train_arms.agreement import agreements
from train_arms.data import MEASURED, PAD, Corpus, StepTokens, borrowed_run, training_run
from train_arms.goals import TOKENS_PER_SECOND, goal_table, goals
from train_arms.measure import Plan, compare_arms
from train_arms.report import agreement_table, as_json, findings, ratio_table, speed_table
from train_arms.resume_check import resume_check
from train_arms.setup import (
    ARMS,
    BENCHMARKED,
    LONG,
    ArmSpec,
    Preset,
    Setup,
    Sizes,
    Workload,
    device_name,
)

from tokenmill.loader import Loader
from tokenmill.loader.plan import read_plan
from tokenmill.shards.run import read_run
from tokenmill.training.flops import peak_flops

WORKLOAD_STEPS = 4
"""Steps whose lengths are counted."""
LEARNING_RATE = 5e-4
WARMUP_STEPS = 50


def main(arguments: Sequence[str] | None = None) -> int:
    options = _options(arguments)
    on_gpu = torch.device(options.device).type == "cuda"
    presets = options.preset or (list(TOKENS_PER_SECOND) if on_gpu else ["tiny"])
    found = {}
    sound = True
    for preset in presets:
        with tempfile.TemporaryDirectory() as folder:
            found[preset], is_sound = _measure(Path(folder), preset, options)
        sound = sound and is_sound
        if options.out:  # after each preset: a later one may take the machine along
            about = {
                "options": vars(options),
                "device": device_name(options.device),
                "torch": torch.__version__,
            }
            text = json.dumps(about | {"presets": found}, indent=1, default=str)
            options.out.write_text(text + "\n")
    return 0 if sound else 1


def _measure(folder: Path, preset: str, options: argparse.Namespace) -> tuple[dict[str, Any], bool]:
    """What was found of a preset, and whether nothing was wrong."""
    arms, sizes = _arms(folder, preset, options)
    setup = arms[0][0]
    if options.resume_check:
        checked = resume_check(folder, setup, sizes.micro_batch_tokens["F"])
        print(checked)
        found: dict[str, Any] = {"resume": asdict(checked)}
        sound = checked.losses_equal and checked.weights_equal
    else:
        found, sound = _compare(preset, arms, sizes, options)
    return {"encoder": asdict(setup.encoder), **found}, sound


def _compare(
    preset: str,
    arms: Sequence[tuple[Setup, ArmSpec]],
    sizes: Sizes,
    options: argparse.Namespace,
) -> tuple[dict[str, Any], bool]:
    """What was measured, and whether all arms agree and none failed."""
    workloads = {spec.letter: _workload(setup) for setup, spec in arms}
    print(_title(preset, options, arms[0][0], workloads[arms[0][1].letter]), flush=True)
    plan = Plan(
        guard_steps=options.guard_steps or sizes.guard_steps,
        steps_ratio=sizes.step_tokens / sizes.guard_tokens,
        rounds=options.rounds,
        seconds=60 * options.minutes,
    )
    results = compare_arms(arms, plan, lambda text: print(text, flush=True))
    agreed = agreements(results)
    asked = goals(preset, results, _max_length(arms[0][0]))
    tables = speed_table(results, workloads), ratio_table(results), agreement_table(agreed)
    print("", *tables, *findings(results), goal_table(asked), "", sep="\n\n", flush=True)
    found = {
        "workloads": {letter: asdict(each) for letter, each in workloads.items()},
        "arms": as_json(results),
        "agreements": [asdict(each) for each in agreed],
        "goals": [each._asdict() for each in asked],
    }
    return found, all(each.agrees for each in agreed) and not any(each.error for each in results)


def _arms(
    folder: Path, name: str, options: argparse.Namespace
) -> tuple[list[tuple[Setup, ArmSpec]], Sizes]:
    """The arms that are asked for, over rows that are there."""
    preset = BENCHMARKED[name]
    kind = torch.device(options.device).type
    encoder = replace(preset.encoder, pad_id=PAD)
    max_length = options.length
    if options.run:
        info = read_run(options.run)
        phase = options.phase or next(iter(info.phases))
        max_length = read_plan(options.run, phase).manifest.max_length
        tokenizer = info.tokenizer
        encoder = replace(encoder, vocab_size=tokenizer.vocab_size, pad_id=tokenizer.pad_id)
    sizes = preset.sizes(kind, max_length)
    steps = StepTokens(measured=sizes.step_tokens, guard=sizes.guard_tokens)
    if options.run:
        run = borrowed_run(folder / "run", options.run, phase, steps)
    else:
        run = training_run(folder / "run", _corpus(preset, sizes, max_length))
    specs = _specs(options.arms, sizes)
    runs = dict.fromkeys(ARMS, run)
    if any(spec.letter == "G" for spec in specs):
        long = replace(sizes, row_tokens=4 * LONG)
        runs["G"] = training_run(folder / "long", _corpus(preset, long, LONG))
    setup = Setup(
        encoder=encoder,
        run=run,
        device=options.device,
        dtype="float32" if kind == "cpu" else "bfloat16",
        compile=kind != "cpu",
        threads=options.threads,
        learning_rate=LEARNING_RATE,
        warmup_steps=WARMUP_STEPS,
    )
    return [(replace(setup, run=runs[spec.letter]), spec) for spec in specs], sizes


def _corpus(preset: Preset, sizes: Sizes, max_length: int) -> Corpus:
    return Corpus(
        vocab_size=preset.encoder.vocab_size,
        max_length=max_length,
        row_tokens=sizes.row_tokens,
        num_tokens=sizes.corpus_tokens,
        steps=StepTokens(measured=sizes.step_tokens, guard=sizes.guard_tokens),
        masking=preset.masking,
    )


def _specs(asked: Sequence[str], sizes: Sizes) -> list[ArmSpec]:
    """A@16384, or A for the micro-batch of the preset's sizes; nothing for all of them."""
    specs = []
    for name in asked or sizes.micro_batch_tokens:
        letter, _, tokens = name.partition("@")
        default = sizes.micro_batch_tokens.get(letter, sizes.guard_tokens)
        specs.append(ArmSpec(letter=letter, micro_batch_tokens=int(tokens) if tokens else default))
    return specs


def _workload(setup: Setup) -> Workload:
    """What a token of the first steps costs."""
    with Loader(setup.run, MEASURED) as loader:
        mask_rate = loader.plan.config.masking.rate
        batches = list(islice(loader, WORKLOAD_STEPS))
    lengths = np.concatenate([np.diff(b.cu_seqlens)[b.doc_ids != 0] for b in batches])
    lengths = lengths.astype(np.int64)
    return Workload(
        mask_rate=mask_rate,
        mean_length=float(lengths.mean()),
        seen=float(lengths @ lengths / lengths.sum()),
        peak_flops=peak_flops(device_name(setup.device), setup.dtype),
    )


def _max_length(setup: Setup) -> int:
    with Loader(setup.run, MEASURED) as loader:
        return loader.max_length


def _title(preset: str, options: argparse.Namespace, setup: Setup, workload: Workload) -> str:
    return (
        f"{preset} on {device_name(options.device)}, torch {torch.__version__}, "
        f"{setup.dtype}, {options.threads} CPU threads; sequences of {workload.mean_length:,.0f} "
        f"tokens in the mean, {workload.mask_rate:.0%} masked"
    )


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    default_device = "cuda" if torch.cuda.is_available() else "cpu"
    parser.add_argument("--preset", nargs="+", choices=list(BENCHMARKED), help="see above")
    parser.add_argument("--length", type=int, default=1024, help="the longest sequence, in tokens")
    parser.add_argument("--run", type=Path, help="a finished build; else rows are made up")
    parser.add_argument("--phase", help="of that build; default: its first")
    parser.add_argument("--arms", nargs="+", default=[], type=_arm, metavar="ARM[@TOKENS]")
    parser.add_argument("--device", default=default_device)
    parser.add_argument("--threads", type=int, default=1, help="of a CPU")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--minutes", type=float, default=8.0, help="for each preset")
    parser.add_argument("--guard-steps", type=int, help="first losses that are compared")
    parser.add_argument("--resume-check", action="store_true", help="only this")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write what was found there too")
    return parser.parse_args(arguments)


def _arm(text: str) -> str:
    letter, at, tokens = text.partition("@")
    if letter not in ARMS or (at and not tokens.isdigit()):
        raise argparse.ArgumentTypeError(
            f"expected one of {', '.join(ARMS)}, with @TOKENS or without, found {text}"
        )
    return text


if __name__ == "__main__":
    sys.exit(main())
