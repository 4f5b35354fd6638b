"""The same training with workers of Ray Train. It and the pipeline's engine alone import Ray.

    summary = ray_train(Path("run"), workers=8, out=Path("out"), device="cuda")

Each worker calls `train`, as each process of torchrun does: Ray sets the same variables and joins
the group. All machines must see the run, and OUT, of which OUT/ray is Ray's own. Without
RAY_ADDRESS, Ray is started on this machine.

SIGTERM and SIGINT to this process are handed on, so that training saves and returns. Where Ray says
that a machine was preempted, it starts all workers anew, and they go on from the newest checkpoint.
Whatever else fails ends training with its message; starting again goes on too.
"""

import contextlib
import logging
import os
import pickle
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.train import RunConfig, ScalingConfig, TrainingFailedError, WorkerGroupError
from ray.train.torch import TorchTrainer

from tokenmill.errors import RunError, TokenmillError
from tokenmill.training.loop import Summary, checked, train
from tokenmill.training.process import StopRequest
from tokenmill.training.ray_desk import Desk

POLL_SECONDS = 0.5
"""How long a signal may take to be seen."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Call:
    """Arguments of `train`, and whom to ask and to tell."""

    run: Path
    out: Path
    device: str
    phases: Sequence[str] | None
    threads: int | None
    settings: Mapping[str, Any] | None
    desk: Any


def ray_train(
    run: Path,
    *,
    workers: int,
    out: Path,
    device: str,
    phases: Sequence[str] | None = None,
    threads: int | None = None,
    settings: Mapping[str, Any] | None = None,
) -> Summary:
    """`train` with so many workers.

    Args:
        threads: CPU threads of each worker, which are booked for it; None: one.

    Raises:
        RunError: Ray does not start, or a worker died.
        TokenmillError: whatever `train` raises.
    """
    checked(run, phases, settings or {})
    cpus = threads or 1
    needed = {"CPU": workers * cpus, "GPU": workers if device.startswith("cuda") else 0}
    with _started(needed["CPU"]):
        _compare_resources(needed)
        desk = ray.remote(num_cpus=0)(Desk).remote()
        call = _Call(
            run=run.absolute(), out=out.absolute(), device=device, phases=phases, threads=threads,
            settings=settings, desk=desk,
        )  # fmt: skip
        trainer = TorchTrainer(
            _work,
            train_loop_config={"call": call},
            scaling_config=ScalingConfig(
                num_workers=workers,
                use_gpu=device.startswith("cuda"),
                resources_per_worker={"CPU": cpus},
            ),
            run_config=RunConfig(name="ray", storage_path=str(out.absolute())),
        )
        _fit(trainer, desk)
        summary: Summary = pickle.loads(ray.get(desk.summary.remote()))
        return summary


def _compare_resources(needed: Mapping[str, int]) -> None:
    """Workers for which there is no room wait for it, and Ray does not say so.

    Raises:
        RunError: none can come, because Ray is this machine alone.
    """
    resources = ray.cluster_resources()
    found = {name: int(resources.get(name, 0)) for name in needed}
    if all(found[name] >= needed[name] for name in needed):
        return
    wanted, there = (f"{each['CPU']:,} CPUs and {each['GPU']:,} GPUs" for each in (needed, found))
    text = f"--ray: the workers take {wanted}, and Ray has {there}"
    if "RAY_ADDRESS" not in os.environ:
        raise RunError(f"{text}. Start fewer.")
    print(f"{text}; waiting for machines to join.", file=sys.stderr, flush=True)


def _work(config: dict[str, _Call]) -> None:
    """What each worker does, in a thread of its process, in which no signal can be handled."""
    call = config["call"]
    stop = StopRequest()
    is_first = os.environ["RANK"] == "0"
    if is_first:
        threading.Thread(target=_listen, args=(call.desk, stop), daemon=True).start()
    summary = train(
        call.run, out=call.out, device=call.device, phases=call.phases, threads=call.threads,
        settings=call.settings, stop=stop,
    )  # fmt: skip
    if is_first:
        ray.get(call.desk.leave.remote(pickle.dumps(summary)))


def _listen(desk: Any, stop: StopRequest) -> None:
    with contextlib.suppress(ray.exceptions.RayError):  # training has ended, and the desk with it
        while stop.signal is None:
            time.sleep(POLL_SECONDS)
            stop.signal = ray.get(desk.asked.remote())


def _fit(trainer: TorchTrainer, desk: Any) -> None:
    """Run to the end, and hand the first signal on."""
    errors: list[BaseException] = []

    def fit() -> None:
        try:
            trainer.fit()
        except BaseException as error:  # raised below, in the main thread
            errors.append(error)

    # Off the main thread Ray leaves SIGINT to us; its own handler would end training unsaved.
    fitting = threading.Thread(target=fit, daemon=True)
    with StopRequest() as asked:
        fitting.start()
        handed_on = False
        while fitting.is_alive():
            fitting.join(POLL_SECONDS)
            if asked.signal and not handed_on:
                desk.ask.remote(asked.signal)
                handed_on = True
    for error in errors:
        raise _original(error) from None


def _original(error: BaseException) -> BaseException:
    """The worker's error that made the others fail, as it was raised."""
    if not isinstance(error, TrainingFailedError):
        return error
    failures = error.worker_failures.values() if isinstance(error, WorkerGroupError) else []
    ours = [failure for failure in failures if isinstance(failure, TokenmillError)]
    # RunError is what the others say: that a process is gone.
    ours.sort(key=lambda failure: isinstance(failure, RunError))
    reason = str(error).strip().splitlines()
    return ours[0] if ours else RunError(f"Ray Train: {reason[-1] if reason else error!r}")


@contextlib.contextmanager
def _started(num_cpus: int) -> Iterator[None]:
    """Ray, unless somebody has started it."""
    if ray.is_initialized():
        yield
        return
    # Ray would send its usage report over the network, and print each line of a worker twice.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_TRAIN_ENABLE_PRINT_PATCH", "0")
    address = os.environ.get("RAY_ADDRESS")
    # A worker for which there is no core would wait for ever.
    cores = {} if address else {"num_cpus": max(num_cpus, os.cpu_count() or 1)}
    try:
        ray.init(
            address=address or "local",
            logging_level=logging.ERROR,
            logging_config=ray.LoggingConfig(log_level="ERROR"),  # of Ray's own actors
            **cores,
        )
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise RunError(
            f"Ray did not start or answer ({error}). Check RAY_ADDRESS, or use torchrun."
        ) from None
    try:
        yield
    finally:
        ray.shutdown()
