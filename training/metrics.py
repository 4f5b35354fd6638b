"""The speed of training, as a line of the log has it.

    stats = StepStats(config, device=device, dtype="bfloat16", rank=0, world_size=1)
    stats.begin_phase(mask_rate=0.2)
    feed = DeviceFeed(loader, device, meter=stats.meter)
    for step in steps:
        ...
        stats.end_step()
        if logged:
            line = StepLine(..., **stats.speed(tokens, total_tokens)._asdict())
        if evaluated or saved:
            stats.restart()

Nothing is read from the device but what the caller's own sum over ranks reads, at logged steps.
"""

import time
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from tokenmill.loader.meter import Meter
from tokenmill.training.encoder_config import EncoderConfig
from tokenmill.training.flops import flops_of_token, peak_flops


class Speed(NamedTuple):
    """Fields of a StepLine, which says what they are."""

    tokens_per_second: float
    mfu: float | None
    padding: float
    data_wait: float
    data_wait_p95: float
    seconds_left: float
    peak_memory_gb: float | None


class StepStats:
    """Measures from one logged step to the next."""

    def __init__(
        self,
        config: EncoderConfig,
        *,
        device: torch.device | str,
        dtype: str,
        rank: int = 0,
        world_size: int = 1,
        sum_over_ranks: Callable[[Tensor], Tensor] = lambda tensor: tensor,
    ) -> None:
        """
        Args:
            dtype: of matrix products, as TrainingConfig has it.
            sum_over_ranks: given float64 on the device; a collective, so `speed` is one too.
        """
        self.meter = Meter()
        """What a DeviceFeed counts into."""
        self._config, self._device = config, torch.device(device)
        self._rank, self._world_size, self._sum_over_ranks = rank, world_size, sum_over_ranks
        is_cuda = self._device.type == "cuda"
        name = torch.cuda.get_device_name(self._device) if is_cuda else ""
        self._peak = peak_flops(name, dtype)
        self.begin_phase(0.0)

    def begin_phase(self, mask_rate: float) -> None:
        """Another phase: what one token costs may be another amount of time."""
        self._mask_rate = mask_rate
        self._first: tuple[float, int] | None = None
        """When the phase's first line was made, in seconds, and its tokens."""
        self.meter.restart()

    def restart(self) -> None:
        """Leave out what happened since the last line: an evaluation, a checkpoint."""
        self.meter.restart()

    def end_step(self) -> None:
        """An optimizer step is under way."""
        self.meter.end_step()

    def speed(self, tokens: int, total_tokens: int) -> Speed:
        """Since the last line, over all ranks; the next line's time begins.

        A late rank makes all others wait, so of waits the longest of any rank stands here.

        Args:
            tokens: of all rows so far, padding included.
            total_tokens: the same when training will have ended.
        """
        meter = self.meter
        seconds = meter.seconds()
        own = (
            meter.real_tokens, meter.all_tokens, meter.squared_lengths,
            meter.data_wait(), meter.data_wait_p95(),
        )  # fmt: skip
        by_rank = torch.zeros(self._world_size, len(own), dtype=torch.float64)
        by_rank[self._rank] = torch.tensor(own, dtype=torch.float64)
        by_rank = self._sum_over_ranks(by_rank.to(self._device)).cpu()  # (ranks, numbers)
        real_tokens, all_tokens, squared_lengths, _, _ = by_rank.sum(0).tolist()
        data_wait, data_wait_p95 = by_rank[:, 3:].amax(0).tolist()
        speed = Speed(
            tokens_per_second=real_tokens / seconds,
            mfu=self._mfu(real_tokens / seconds, squared_lengths / max(real_tokens, 1)),
            padding=1 - real_tokens / max(all_tokens, 1),
            data_wait=data_wait,
            data_wait_p95=data_wait_p95,
            seconds_left=self._seconds_left(tokens, total_tokens, all_tokens / seconds),
            peak_memory_gb=self._peak_memory_gb(),
        )
        meter.restart()
        return speed

    def _mfu(self, tokens_per_second: float, seen: float) -> float | None:
        if self._peak is None:
            return None
        flops = flops_of_token(self._config, mask_rate=self._mask_rate, seen=seen)
        return tokens_per_second * flops / (self._peak * self._world_size)

    def _seconds_left(self, tokens: int, total_tokens: int, rate: float) -> float:
        """By the phase's mean since its first line, evaluation and checkpoints included; by the
        first line, which compilation is in, as long as there is no other."""
        now = time.perf_counter()
        if self._first is None:
            self._first = (now, tokens)
        else:
            then, tokens_then = self._first
            rate = (tokens - tokens_then) / (now - then)
        return (total_tokens - tokens) / max(rate, 1e-9)

    def _peak_memory_gb(self) -> float | None:
        if self._device.type != "cuda":
            return None
        return torch.cuda.max_memory_allocated(self._device) / 1e9
