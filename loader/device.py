"""Batches on the device, copied while the batch before is worked on.

    with Loader(run, "phase1") as loader, DeviceFeed(loader, "cuda") as feed:
        for batch in feed:
            ...
            state = loader.state_dict()        # counts what the feed has given out

A thread makes batches ahead, copies each into pinned memory that is used again and again, and from
there to the device on a stream of its own. The stream that takes a batch is made to wait for its
copy; the host waits for neither and reads nothing back. To a CPU nothing is copied.

The price is device memory: what waits there has at most prefetch_bytes, or is one batch.
"""

import threading
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from types import TracebackType
from typing import Any

import numpy as np
import torch

from tokenmill.loader.batch import Batch, TorchBatch
from tokenmill.loader.loader import Loader
from tokenmill.loader.meter import Meter
from tokenmill.loader.prefetch import Prefetch


@dataclass(frozen=True, slots=True)
class _Copied:
    batch: TorchBatch
    done: torch.cuda.Event | None
    """Happens when the copy is whole; None where there is none."""
    squared_lengths: int
    """See Meter: counted here, where the lengths still lie in the host's memory."""


class DeviceFeed:
    """An iterator over what a loader has from its step on, as tensors on a device."""

    def __init__(
        self,
        loader: Loader,
        device: torch.device | str,
        *,
        prefetch_bytes: int = 64 << 20,
        meter: Meter | None = None,
    ) -> None:
        """
        Args:
            loader: says what comes next, and is moved on as batches are given out. It is not
                iterated itself.
            prefetch_bytes: of batches that wait on the device; 0 makes and copies each when it is
                asked for.
            meter: where waiting and tokens are counted; None for one of its own.
        """
        self.loader = loader
        self.meter = meter or Meter()
        self._device = torch.device(device)
        self._prefetch_bytes = prefetch_bytes
        self._step = -1
        """Where the loader stands, unless somebody moved it."""
        self._feed: Prefetch[tuple[int, int], _Copied] | None = None

    def __iter__(self) -> Iterator[TorchBatch]:
        return self

    def __next__(self) -> TorchBatch:
        """The next batch; where the loader was moved (load_state_dict), the one it stands at."""
        if self._feed is None or self._step != self.loader.step:
            self._begin()
        assert self._feed is not None
        try:
            with self.meter.waiting():
                copied = self._feed.take()
        except BaseException:
            self.close()
            raise
        batch = copied.batch
        if copied.done is not None:
            stream = torch.cuda.current_stream(self._device)
            stream.wait_event(copied.done)
            for tensor in _tensors(batch).values():
                # Its memory is the copying stream's, which must not have it back too early.
                tensor.record_stream(stream)
        self.meter.count(batch.num_tokens, len(batch.input_ids), copied.squared_lengths)
        self.loader.mark_read(batch)
        self._step = self.loader.step
        return batch

    def close(self) -> None:
        """End the thread that works ahead. Iterating again starts at the loader's step."""
        if self._feed is not None:
            with self.loader.fetching_ended():
                self._feed.close()
            self._feed = None

    def __enter__(self) -> "DeviceFeed":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _begin(self) -> None:
        self.close()
        self._step = self.loader.step
        make = self.loader.micro_batch_at
        copy = _Copier(self._device) if self._device.type == "cuda" else _as_is
        self._feed = Prefetch(
            lambda place: copy(make(place)), self.loader.places(self._step), self._prefetch_bytes
        )


class _Copier:
    """Copies batches to a device through two sets of pinned memory, in turn."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._slots = [_Slot(), _Slot()]
        self._lock = threading.Lock()

    def __call__(self, batch: Batch) -> _Copied:
        with self._lock, torch.cuda.stream(self._stream):
            self._slots.reverse()
            pinned = self._slots[0].hold(batch.to_torch("cpu"))
            on_device = pinned.to(self._device, non_blocking=True)
            done = self._slots[0].copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
            done.record(self._stream)
        return _Copied(on_device, done, _squared_lengths(batch))


class _Slot:
    """Pinned memory for one batch."""

    def __init__(self) -> None:
        self.copied: torch.cuda.Event | None = None
        self._pinned: dict[str, torch.Tensor] = {}

    def hold(self, batch: TorchBatch) -> TorchBatch:
        """The batch in pinned memory, when that memory was copied from."""
        if self.copied is not None:
            self.copied.synchronize()
        for name, tensor in _tensors(batch).items():
            held = self._pinned.get(name)
            if held is None or held.shape != tensor.shape or held.dtype != tensor.dtype:
                self._pinned[name] = tensor.pin_memory()
            else:
                held.copy_(tensor)
        values: dict[str, Any] = {name: self._pinned[name] for name in _tensors(batch)}
        return replace(batch, **values)


def _as_is(batch: Batch) -> _Copied:
    return _Copied(batch.to_torch("cpu"), None, _squared_lengths(batch))


def _squared_lengths(batch: Batch) -> int:
    lengths = np.diff(batch.cu_seqlens)[batch.doc_ids != 0].astype(np.int64)
    return int(lengths @ lengths)


def _tensors(batch: TorchBatch) -> dict[str, torch.Tensor]:
    values = {field.name: getattr(batch, field.name) for field in fields(batch)}
    return {name: value for name, value in values.items() if isinstance(value, torch.Tensor)}
