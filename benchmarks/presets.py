"""How fast each preset trains at its full size, as a table for the README.

    python benchmarks/presets.py                                   all of them
    python benchmarks/presets.py --preset tiny ettin-17m --threads 2

It is the loop's own step that is timed (training/step.py over a DeviceFeed of the loader, AdamW,
dropout as the preset has it), each preset in a process of its own: warm-up, then whole steps for
some seconds, at least one. Documents are made up, with lengths as those of web text up to 1,024
tokens (512 where the preset has positions for no more), and masked as the recipe does; BERT is
trained without pairs. Tokens per second are those that are not padding, operations those of the
plain model (training/flops.py).

A step has 2,048 tokens on a CPU and 524,288 on a GPU; a quarter of them where a token costs more
than 4 GFLOP. Where AdamW's moments do not fit into memory, SGD makes the steps, and a line below
the table says so. On two cores of a CPU the whole table takes some ten minutes, most of them for
the largest four.
"""

import argparse
import multiprocessing
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter

import torch
from train_arms.data import MEASURED, PAD, Corpus, StepTokens, training_run
from train_arms.setup import MODERNBERT_MASKS, NEOBERT_MASKS, device_name

from tokenmill.loader import Loader
from tokenmill.loader.device import DeviceFeed
from tokenmill.loader.masking_config import MaskingConfig
from tokenmill.training.config import TrainingConfig
from tokenmill.training.encoder_config import EncoderConfig
from tokenmill.training.flops import flops_of_token, peak_flops
from tokenmill.training.model import num_parameters
from tokenmill.training.optim import Optimizers
from tokenmill.training.parallel import Processes
from tokenmill.training.presets import PRESETS
from tokenmill.training.step import Learner

BERT_MASKS = MaskingConfig(rate=0.15, mask_share=0.8, random_share=0.1)
MAX_LENGTH = 1024
COSTLY = 4e9
"""Operations of a token above which a step has a quarter of the tokens."""
STEP_TOKENS = {"cpu": 2_048, "cuda": 524_288}
MICRO_BATCH_TOKENS = {"cpu": 2_048, "cuda": 65_536}
"""Of NeoBERT and all that are no larger."""
ROW_TOKENS = 8_192
WARM_STEPS = {"cpu": 1, "cuda": 3}
SECONDS = {"cpu": 2.0, "cuda": 10.0}
STEPS_OF_ROWS = 16
"""Steps until rows come again."""
GRADIENT_BYTES, MOMENT_BYTES = 4, 8
"""A parameter's."""
SLACK_BYTES = 2 << 30
"""Room for activations."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """A preset to be timed, and how."""

    preset: str
    tokens: int
    """Of a step, padding included."""
    seconds: float
    device: str
    threads: int


@dataclass(frozen=True, kw_only=True)
class Speed:
    """What came of it."""

    parameters: int
    tokens_per_second: float
    flops_per_second: float
    mfu: float | None
    """None where the device's peak is not known."""
    has_moments: bool
    """Whether AdamW made the steps."""


def main(arguments: Sequence[str] | None = None) -> int:
    options = _options(arguments)
    kind = torch.device(options.device).type
    usual = options.tokens or STEP_TOKENS[kind]
    print(
        f"{device_name(options.device)}, torch {torch.__version__}, {options.threads} CPU threads, "
        f"steps of {usual:,} tokens\n"
    )
    columns = ("preset", "parameters", "tokens/s", "GFLOP/s", *(["MFU"] if kind == "cuda" else []))
    print(f"| {' | '.join(columns)} |\n| --- |{' ---: |' * (len(columns) - 1)}", flush=True)
    measured: dict[EncoderConfig, Speed | str] = {}  # some models have two names
    remarks = []
    for preset in options.preset:
        encoder = PRESETS[preset]
        task = _task(preset, options)
        if encoder not in measured:
            measured[encoder] = _in_a_process(task)
        speed = measured[encoder]
        if isinstance(speed, str):
            remarks.append(f"{preset}: {speed}")
            continue
        print(f"| {' | '.join(_cells(preset, speed)[: len(columns)])} |", flush=True)
        if task.tokens != usual:
            remarks.append(f"{preset}: steps of {task.tokens:,} tokens")
        if not speed.has_moments:
            remarks.append(f"{preset}: steps by SGD, as AdamW's moments do not fit into memory")
    print("", *remarks, sep="\n")
    return int(any(isinstance(speed, str) for speed in measured.values()))


def time_steps(task: Task) -> Speed:
    """Train the preset for some steps, on rows that are made up for it."""
    torch.set_num_threads(task.threads)
    device = torch.device(task.device)
    encoder = replace(PRESETS[task.preset], pad_id=PAD)
    micro_batch_tokens = _micro_batch_tokens(encoder, device.type)
    config = TrainingConfig(preset=task.preset, micro_batch_tokens=micro_batch_tokens)
    learner = Learner(config, encoder, Processes(0, 1, device, None))
    has_moments = _moments_fit(num_parameters(learner.model), device)
    if not has_moments:
        learner.optimizers = _without_moments(learner)
    learner.optimizers.set_rates(1e-5, 1.0, 0.01)
    with tempfile.TemporaryDirectory() as folder:
        run = training_run(Path(folder) / "run", _corpus(task, encoder))
        with Loader(run, MEASURED) as whole:
            rows = min(max(micro_batch_tokens // whole.row_tokens, 1), whole.rows_per_step)
        with (
            Loader(run, MEASURED, micro_batch_rows=rows) as loader,
            DeviceFeed(loader, device) as feed,
        ):
            seconds = _train(learner, feed, WARM_STEPS[device.type], task.seconds)
            rate, meter = loader.plan.config.masking.rate, feed.meter
    tokens_per_second = meter.real_tokens / seconds
    seen = meter.squared_lengths / meter.real_tokens
    flops = tokens_per_second * flops_of_token(encoder, mask_rate=rate, seen=seen)
    peak = peak_flops(device_name(task.device), config.dtype_on(device.type))
    return Speed(
        parameters=num_parameters(learner.model),
        tokens_per_second=tokens_per_second,
        flops_per_second=flops,
        mfu=flops / peak if peak else None,
        has_moments=has_moments,
    )


def _train(learner: Learner, feed: DeviceFeed, warm_steps: int, least: float) -> float:
    """Seconds of the steps after the first ones, which the feed's meter has counted.

    Args:
        least: seconds in which no step is the last.
    """
    number, began = 0, 0.0
    while number <= warm_steps or perf_counter() - began < least:
        if number == warm_steps:
            feed.meter.restart()
            began = perf_counter()
        number += 1
        learner.step(feed, feed.loader.num_micro_batches, number).loss.item()  # waits for it
    return perf_counter() - began


def _task(preset: str, options: argparse.Namespace) -> Task:
    kind = torch.device(options.device).type
    is_costly = flops_of_token(PRESETS[preset], mask_rate=0.3, seen=MAX_LENGTH) > COSTLY
    return Task(
        preset=preset,
        tokens=options.tokens or STEP_TOKENS[kind] // (4 if is_costly else 1),
        seconds=SECONDS[kind] if options.seconds is None else options.seconds,
        device=options.device,
        threads=options.threads,
    )


def _in_a_process(task: Task) -> Speed | str:
    """What `time_steps` gives, or why it gives nothing."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as process:
        try:
            return process.submit(time_steps, task).result()
        except torch.OutOfMemoryError as error:
            return str(error)
        except BrokenProcessPool:
            return "its process was ended, which is what happens where memory is too small."


def _corpus(task: Task, encoder: EncoderConfig) -> Corpus:
    row_tokens = min(ROW_TOKENS, task.tokens)
    masks = {
        "rotary-interleaved": NEOBERT_MASKS,
        "rotary-half": MODERNBERT_MASKS,
        "learned": BERT_MASKS,
    }
    return Corpus(
        vocab_size=encoder.vocab_size,
        max_length=min(MAX_LENGTH, encoder.longest or MAX_LENGTH, row_tokens),
        row_tokens=row_tokens,
        num_tokens=STEPS_OF_ROWS * task.tokens,
        steps=StepTokens(measured=task.tokens, guard=task.tokens),
        masking=masks[encoder.positions],
    )


def _micro_batch_tokens(encoder: EncoderConfig, kind: str) -> int:
    """On a GPU half, a quarter ... where layers x width, and so activations, exceed NeoBERT's."""
    neobert, tokens = PRESETS["neobert"], MICRO_BATCH_TOKENS[kind]
    room = tokens * neobert.layers * neobert.width
    while kind == "cuda" and tokens * encoder.layers * encoder.width > room:
        tokens //= 2
    return tokens


def _moments_fit(parameters: int, device: torch.device) -> bool:
    """Whether there is room for what AdamW needs beside the weights, which are there already."""
    if device.type == "cuda":
        room, _ = torch.cuda.mem_get_info(device)
    else:
        (line,) = (
            line
            for line in Path("/proc/meminfo").read_text().splitlines()
            if line.startswith("MemAvailable:")
        )
        room = int(line.split()[1]) * 1024
    return parameters * (GRADIENT_BYTES + MOMENT_BYTES) + SLACK_BYTES < room


def _without_moments(learner: Learner) -> Optimizers:
    groups = [{"params": list(learner.model.parameters()), "decays": False}]
    # Fused, because no other one takes found_inf.
    sgd = torch.optim.SGD(groups, lr=0.0, fused=True)
    return Optimizers(parts=[sgd], weight_decay_times="rate")


def _cells(preset: str, speed: Speed) -> tuple[str, ...]:
    return (
        f"`{preset}`",
        f"{speed.parameters:,}",
        f"{speed.tokens_per_second:,.0f}",
        f"{speed.flops_per_second / 1e9:,.0f}",
        "" if speed.mfu is None else f"{speed.mfu:.1%}",
    )


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    default_device = "cuda" if torch.cuda.is_available() else "cpu"
    parser.add_argument("--preset", nargs="+", choices=list(PRESETS), default=list(PRESETS))
    parser.add_argument("--tokens", type=int, help="of a step, padding included")
    parser.add_argument("--seconds", type=float, help="of measured steps, at least")
    parser.add_argument("--device", default=default_device)
    parser.add_argument("--threads", type=int, default=2, help="of a CPU")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
