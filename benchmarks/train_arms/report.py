"""What was found, as tables for people and as JSON."""

import statistics
from collections.abc import Container, Mapping, Sequence
from dataclasses import asdict
from itertools import chain
from typing import Any

import numpy as np

from tokenmill.shards.table import table
from tokenmill.training.flops import flops_of_token
from train_arms.agreement import Agreement
from train_arms.measure import ArmResult
from train_arms.setup import ARMS, OURS, Workload, modernbert_of_size
from train_arms.worker import Window

REACHED_FLOPS = 790e12
"""What large bfloat16 products reach on an H100 or H200, of which the maker says 989."""
BASELINES = ("A", "B", "C", "Cg")
_SPEED_COLUMNS = ("micro-batch", "tokens/s", "least - most")
_CPU_COLUMNS = (*_SPEED_COLUMNS, "per CPU s", "padding", "wait p50", "wait p95")
_GPU_COLUMNS = (*_SPEED_COLUMNS, "padding", "MFU", "of 790 T", "peak GB", "compile s", "wait p50",
                "wait p95", "rebuilt")  # fmt: skip


def speed_table(results: Sequence[ArmResult], workloads: Mapping[str, Workload]) -> str:
    """A line an arm, with the columns that the device has."""
    on_gpu = any(each.setup.compile for each in results)
    columns = _GPU_COLUMNS if on_gpu else _CPU_COLUMNS
    lines = []
    for each in results:
        if each.windows:
            cells = _cells(each, workloads[each.spec.letter])
            lines.append((_title(each.spec.letter), *(cells[column] for column in columns)))
    return table(("arm", *columns), lines)


def ratio_table(results: Sequence[ArmResult]) -> str:
    """Ours over the best of each baseline."""
    best = {}
    for letter in (*BASELINES, *OURS):
        fastest = best_of(results, [letter])
        if fastest:
            best[letter] = fastest.tokens_per_second
    columns = [letter for letter in BASELINES if letter in best]
    lines = [
        (f"{letter} over", *(f"{best[letter] / best[other]:.2f} x" for other in columns))
        for letter in OURS
        if letter in best and letter != "G"
    ]
    return table(("", *columns), lines)


def agreement_table(found: Sequence[Agreement]) -> str:
    """How far the first steps are apart."""
    header = ("beside", "steps", "losses differ by", "first gradient by", "")
    lines = [
        (
            f"{each.name}, {each.reference}",
            str(each.steps),
            f"{each.loss:.1e}",
            f"{each.gradient:.1e}",
            "agrees" if each.agrees else "DIFFERS",
        )
        for each in found
    ]
    return table(header, lines)


def findings(results: Sequence[ArmResult]) -> list[str]:
    """What the tables do not have."""
    lines = []
    for each in results:
        if each.loader_share is not None:
            lines.append(
                f"{each.spec.name} with the loader has {each.loader_share:.3f} of its speed over "
                "batches that lie on the device."
            )
    lines += [f"{each.spec.name} failed:\n{each.error}" for each in results if each.error]
    return lines


def best_of(results: Sequence[ArmResult], letters: Container[str]) -> ArmResult | None:
    """The fastest of these arms, at whatever micro-batch; None where none was measured."""
    measured = [each for each in results if each.spec.letter in letters and each.windows]
    return max(measured, key=lambda each: each.tokens_per_second, default=None)


def wait_shares(window: Window) -> list[float]:
    """Each step's wait as a share of the mean step."""
    return [wait * window.num_steps / window.seconds for wait in window.waits]


def as_json(results: Sequence[ArmResult]) -> list[dict[str, Any]]:
    """Everything measured, arm by arm."""
    return [
        {
            "arm": each.spec.letter,
            "title": ARMS[each.spec.letter],
            "micro_batch_tokens": each.spec.micro_batch_tokens,
            "tokens_per_second": each.tokens_per_second,
            "loader_share": each.loader_share,
            "first": asdict(each.first) if each.first else None,
            "windows": [asdict(window) for window in each.windows],
            "resident_windows": [asdict(window) for window in each.resident_windows],
            "error": each.error,
        }
        for each in results
    ]


def _cells(result: ArmResult, workload: Workload) -> dict[str, str]:
    """What the table says of an arm, by its columns; a cell is empty where nothing is known."""
    assert result.first
    windows, speed = result.windows, result.tokens_per_second
    speeds = [each.tokens_per_second for each in windows]
    real = sum(each.real_tokens for each in windows)
    computed = sum(each.computed_tokens for each in windows)
    encoder = result.setup.encoder
    if result.spec.letter in ("C", "Cg"):
        encoder = modernbert_of_size(encoder)
    flops = speed * flops_of_token(encoder, mask_rate=workload.mask_rate, seen=workload.seen)
    memory = max(each.peak_memory_gb or 0.0 for each in windows)
    cells = {
        "micro-batch": f"{result.spec.micro_batch_tokens:,}",
        "tokens/s": f"{speed:,.0f}",
        "least - most": f"{min(speeds):,.0f} - {max(speeds):,.0f}",
        "per CPU s": f"{statistics.median(w.real_tokens / w.cpu_seconds for w in windows):,.0f}",
        "padding": f"{1 - real / computed:.1%}",
        "MFU": f"{flops / workload.peak_flops:.1%}" if workload.peak_flops else "",
        "of 790 T": f"{flops / REACHED_FLOPS:.1%}" if workload.peak_flops else "",
        "peak GB": f"{memory:.1f}" if memory else "",
        "compile s": f"{result.first.compile_seconds:.0f}",
        "rebuilt": str(windows[-1].recompilations),
        "wait p50": "",
        "wait p95": "",
    }
    if result.spec.letter in OURS:
        shares = list(chain.from_iterable(wait_shares(each) for each in windows))
        cells["wait p50"] = f"{np.quantile(shares, 0.5):.2%}"
        cells["wait p95"] = f"{np.quantile(shares, 0.95):.2%}"
    return cells


def _title(letter: str) -> str:
    return f"{letter:2} {ARMS[letter]}"
