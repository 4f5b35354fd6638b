"""An arm in a process of its own, and the questions it answers.

    worker = Worker(setup, spec)                     starts it
    worker.ask("first_losses", 50)                   from the first weights on
    worker.ask("measure", num_steps, "loader")       a window of so many steps, timed

A process each keeps memory, compiled code and limits of the compiler apart, and an arm that runs
out of memory ends alone. They live at the same time, so that windows can be taken in turns; what
the allocator holds is given back after each.
"""

import multiprocessing
import os
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from time import perf_counter, process_time, sleep
from typing import Any, Literal

import torch
import torch._dynamo.utils
from torch import Tensor
from torch.nn.utils import get_total_norm

from tokenmill.loader.device import DeviceFeed
from train_arms.arm import Arm, Ours
from train_arms.data import GUARD, MEASURED
from train_arms.padded_loop import PaddedLoop
from train_arms.setup import OURS, ArmSpec, Setup
from train_arms.unpadded_loop import UnpaddedLoop

WARM_STEPS = 3
"""Steps that may build graphs."""
RESIDENT_STEPS = 4
"""Steps that lie on the device, and come again and again."""
PREFETCH_BYTES = 8 << 20
"""Less than the loop's, so that it is full sooner; ten micro-batches of 65,536 tokens."""
FILL_SECONDS = 0.2
IDLE_SHARE = 0.05
"""A process that uses less of a core than this does nothing."""
Source = Literal["loader", "resident"]


@dataclass(frozen=True, kw_only=True)
class FirstSteps:
    """From the first weights on."""

    num_parameters: int
    losses: list[float]
    """Nats a masked token, of each step before its update."""
    attention_gradient: float
    """The length of the first gradient of the matrices for query, key and value, as a share of that
    of all weights: what is wrong in attention shows there most."""
    warm_seconds: float
    """Of the first WARM_STEPS, compilation included."""
    step_seconds: float
    """The median of those after them."""

    @property
    def compile_seconds(self) -> float:
        return max(self.warm_seconds - WARM_STEPS * self.step_seconds, 0.0)


@dataclass(frozen=True, kw_only=True)
class Window:
    """Some steps in a row, timed from an idle device to an idle device."""

    seconds: float
    cpu_seconds: float
    """Of all threads of the process: what a shared machine's other work does not lengthen."""
    num_steps: int
    real_tokens: int
    """Padding left out."""
    computed_tokens: int
    """Padding included."""
    waits: list[float]
    """Seconds that the host waited for data in each step."""
    peak_memory_gb: float | None
    """Of this arm's process, weights and moments included; None on a CPU."""
    recompilations: int
    """Graphs built after the arm's first WARM_STEPS, so far."""

    @property
    def tokens_per_second(self) -> float:
        return self.real_tokens / self.seconds


class ArmError(Exception):
    """An arm's process ended; the message is its traceback."""


class Bench:
    """An arm, and where it stands."""

    def __init__(self, setup: Setup, spec: ArmSpec) -> None:
        torch.set_num_threads(setup.threads)
        device = torch.device(setup.device)
        self._setup, self._cuda = setup, device.type == "cuda"
        if self._cuda and device.index is not None:
            torch.cuda.set_device(device)  # whose memory and end of work are asked for below
        self.arm = make_arm(setup, spec)
        self._number = 0
        self._graphs_when_warm = 0
        self._resident: list[Sequence[Any]] = []
        self._feed: DeviceFeed | None = None

    def first_losses(self, num_steps: int) -> FirstSteps:
        """Train on the guard's steps; each is waited for."""
        losses, seconds = [], []
        shares: list[float] = []
        (optimizer,) = self.arm.optimizers.parts
        hook = optimizer.register_step_pre_hook(
            lambda *_: shares.append(self._attention_gradient())
        )
        for micro_batches in self.arm.steps(GUARD, num_steps):
            began = perf_counter()
            loss = self._step(iter(micro_batches), len(micro_batches))
            losses.append(loss.item())
            hook.remove()
            seconds.append(perf_counter() - began)
            if self._number == WARM_STEPS:
                self._graphs_when_warm = _graphs()
        self._give_back()
        return FirstSteps(
            num_parameters=sum(each.numel() for each in self.arm.model.parameters()),
            losses=losses,
            attention_gradient=shares[0],
            warm_seconds=sum(seconds[:WARM_STEPS]),
            step_seconds=sorted(seconds[WARM_STEPS:])[len(seconds[WARM_STEPS:]) // 2],
        )

    def measure(self, num_steps: int, source: Source) -> Window:
        """Time so many steps, after one that is not."""
        self._steps(1, source)
        if self._cuda:
            torch.cuda.reset_peak_memory_stats()
        self._wait()
        began, cpu_began = perf_counter(), process_time()
        real, computed, waits = self._steps(num_steps, source)
        self._wait()
        seconds, cpu_seconds = perf_counter() - began, process_time() - cpu_began
        peak = torch.cuda.max_memory_allocated() / 1e9 if self._cuda else None
        self._give_back()
        return Window(
            seconds=seconds,
            cpu_seconds=cpu_seconds,
            num_steps=num_steps,
            real_tokens=real,
            computed_tokens=computed,
            waits=waits,
            peak_memory_gb=peak,
            recompilations=_graphs() - self._graphs_when_warm,
        )

    def _attention_gradient(self) -> float:
        gradients = {
            name: parameter.grad
            for name, parameter in self.arm.model.named_parameters()
            if parameter.grad is not None
        }
        qkv = [gradient for name, gradient in gradients.items() if "qkv" in name.lower()]
        return float(get_total_norm(qkv) / get_total_norm(list(gradients.values())))

    def _steps(self, num_steps: int, source: Source) -> tuple[int, int, list[float]]:
        """Tokens without and with padding, and the seconds waited in each step."""
        if source == "resident":
            return self._resident_steps(num_steps)
        assert isinstance(self.arm, Ours)
        if self._feed is None:
            loader = self.arm.loader(MEASURED)
            self._feed = DeviceFeed(loader, self._setup.device, prefetch_bytes=PREFETCH_BYTES)
            _fill(self._feed)
        meter, waits = self._feed.meter, []
        meter.restart()
        for _ in range(num_steps):
            waited: list[float] = []
            self._step(_timed(self._feed, waited), self._feed.loader.num_micro_batches)
            waits.append(sum(waited))
        return meter.real_tokens, meter.all_tokens, waits

    def _resident_steps(self, num_steps: int) -> tuple[int, int, list[float]]:
        if not self._resident:
            self._resident = self.arm.steps(MEASURED, RESIDENT_STEPS)
        real = computed = 0
        for _ in range(num_steps):
            micro_batches = self._resident[self._number % len(self._resident)]
            self._step(iter(micro_batches), len(micro_batches))
            real += sum(each.num_tokens for each in micro_batches)
            computed += sum(each.input_ids.numel() for each in micro_batches)
        return real, computed, [0.0] * num_steps

    def _step(self, micro_batches: Iterator[Any], count: int) -> Tensor:
        self._number += 1
        setup = self._setup
        share = min(self._number / setup.warmup_steps, 1.0)
        self.arm.optimizers.set_rates(setup.learning_rate * share, share, weight_decay=0.1)
        return self.arm.step(micro_batches, count, self._number)

    def _wait(self) -> None:
        if self._cuda:
            torch.cuda.synchronize()

    def _give_back(self) -> None:
        if self._cuda:
            torch.cuda.empty_cache()


class Worker:
    """The other side of an arm's process."""

    def __init__(self, setup: Setup, spec: ArmSpec) -> None:
        self.setup, self.spec = setup, spec
        context = multiprocessing.get_context("spawn")
        self._connection, there = context.Pipe()
        # Read by OpenMP when the process begins.
        os.environ["OMP_NUM_THREADS"] = str(setup.threads)
        self._process = context.Process(target=_serve, args=(there, setup, spec))
        self._process.start()
        there.close()

    def ask(self, question: str, *arguments: Any) -> Any:
        """What the Bench's method of this name gives.

        Raises:
            ArmError: the arm failed, now or before.
        """
        try:
            self._connection.send((question, arguments))
            answer = self._connection.recv()
        except (EOFError, OSError):
            raise ArmError(f"{self.spec.name}: its process has ended") from None
        if isinstance(answer, ArmError):
            raise answer
        return answer

    def close(self) -> None:
        """End the process and wait for its end."""
        self._connection.close()
        self._process.join()


def make_arm(setup: Setup, spec: ArmSpec) -> Arm:
    """The arm of a letter, with the weights that all begin with."""
    if spec.letter in OURS:
        return Ours(setup, spec)
    if spec.letter == "A":
        return PaddedLoop(setup, spec)
    if spec.letter == "B":
        return UnpaddedLoop(setup, spec)
    # Here, because the other arms need not wait for transformers.
    from train_arms.hugging_face import HuggingFace

    return HuggingFace(setup, spec)


def _serve(connection: Connection, setup: Setup, spec: ArmSpec) -> None:
    try:
        bench = Bench(setup, spec)
        while True:
            question, arguments = connection.recv()
            connection.send(getattr(bench, question)(*arguments))
    except (EOFError, KeyboardInterrupt):
        return
    except Exception:  # whatever ends an arm is told, and the others go on
        connection.send(ArmError(f"{spec.name}: {traceback.format_exc()}"))


def _timed(feed: DeviceFeed, waited: list[float]) -> Iterator[Any]:
    while True:
        began = perf_counter()
        batch = next(feed)
        waited.append(perf_counter() - began)
        yield batch


def _fill(feed: DeviceFeed) -> None:
    """Wait until the feed has made all it makes ahead: training's first second is not timed."""
    next(feed)
    busy = 1.0
    while busy > IDLE_SHARE:
        began = process_time()
        sleep(FILL_SECONDS)
        busy = (process_time() - began) / FILL_SECONDS


def _graphs() -> int:
    return int(torch._dynamo.utils.counters["stats"]["unique_graphs"])
