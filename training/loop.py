"""The training loop: phases in order, from the newest checkpoint on, with one process.

    summary = train(Path("run"), out=Path("out"), device="cpu")

Starting it again is resuming it: the newest whole checkpoint in OUT says where. On a CPU the losses
are then the same to the bit as without the interruption, with the same number of threads: order and
masks are functions of the step, algorithms are deterministic, nothing is drawn. SIGTERM and SIGINT
finish the step, write a checkpoint and return.

The loop never waits for the device but in logged steps: the loss stays there, and whether it was
finite is remembered there. So a step with a loss that is not finite is found at the next logged
step, or before the next checkpoint, which is then not written.

Rank and world size are arguments, as everywhere, but gradients are not exchanged: more than one
process is refused.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from tokenmill.errors import NonFiniteLossError, RecipeError, ResumeError
from tokenmill.loader import Loader, TorchBatch
from tokenmill.loader.device import DeviceFeed
from tokenmill.loader.meter import Meter
from tokenmill.loader.mixture_table import mixture_tables, refuse_too_many_epochs
from tokenmill.loader.plan import PhasePlan, read_plan
from tokenmill.shards.run import RunInfo, read_run
from tokenmill.shards.settings import read_settings
from tokenmill.training.checkpoint import (
    Checkpoint,
    Position,
    State,
    newest_checkpoint,
    remove_parts,
    write_checkpoint,
)
from tokenmill.training.config import ScheduleConfig, TrainingConfig
from tokenmill.training.curve import write_curve
from tokenmill.training.evaluate import held_out_loss
from tokenmill.training.log import HeldOutLine, Log, StepLine
from tokenmill.training.loss import backward
from tokenmill.training.optim import adamw, set_learning_rate
from tokenmill.training.presets import build
from tokenmill.training.process import StopRequest, exclusive, reproducible
from tokenmill.training.progress import Progress
from tokenmill.training.resume import fixed_settings, phase_schedule, refuse_other_settings
from tokenmill.training.schedule import learning_rate


@dataclass(frozen=True, kw_only=True, slots=True)
class Summary:
    """What one call of `train` came to."""

    finished: bool
    """False where a signal stopped it; the same call goes on."""
    position: Position
    held_out: dict[str, float]
    """Subset to its last held-out loss in nats a masked token; empty where this call took none."""
    seconds: float
    """Of this call, evaluation and checkpoints included."""


def train(
    run: Path,
    *,
    out: Path,
    device: str,
    phases: Sequence[str] | None = None,
    rank: int = 0,
    world_size: int = 1,
    threads: int | None = None,
) -> Summary:
    """Train on a finished build, from the newest checkpoint in `out` or from the start.

    Args:
        run: the build's folder.
        out: gets log.jsonl, loss.svg and checkpoints/.
        device: "cpu", "cuda", ...
        phases: those to train, in the run's order; None trains all.
        threads: CPU threads; None leaves torch's own number.

    Raises:
        RecipeError: a setting or an argument cannot be.
        FormatError: the run is missing or damaged.
        ResumeError: the checkpoint belongs to other settings, data or code, or none is whole.
        RunError: another process trains into `out`.
        NonFiniteLossError: the loss is infinite or no number.
    """
    if world_size != 1:
        raise RecipeError(f"world_size: only one process can train, got {world_size}.")
    info = read_run(run)
    plans = [read_plan(run, name) for name in _in_order(info, phases)]
    tables = mixture_tables(run)
    for plan in plans:
        refuse_too_many_epochs(tables[plan.name])
    with exclusive(out), reproducible(device, threads), Log(out / "log.jsonl") as log:
        training = _Training(run, info, out, device, rank, world_size, log)
        with StopRequest() as stop:
            return training.go(plans, stop)


class _Training:
    """The model, the optimizer and how far they have come."""

    def __init__(
        self, run: Path, info: RunInfo, out: Path, device: str, rank: int, world_size: int, log: Log
    ) -> None:
        self.run, self.info, self.out, self.device, self.log = run, info, out, device, log
        self.rank, self.world_size = rank, world_size
        self.config = read_settings(TrainingConfig, info.training, f"{run}: training")
        self.model = build(
            self.config.preset,
            device,
            info.tokenizer.vocab_size,
            pad_id=info.tokenizer.pad_id,
            compute_dtype=getattr(torch, self.config.dtype),
        )
        self.model.initialise(self.config.seed)
        self.optimizer = adamw(self.model, self.config)
        self.position = Position(phase="", phase_step=0, step=0, tokens=0, real_tokens=0)
        self.meter = Meter()
        # The first step whose loss was not finite, -1 while there is none; kept on the device.
        self.bad_step = torch.tensor(-1, device=device)
        self.saved_step = -1
        self.held_out: dict[str, float] = {}

    def go(self, plans: list[PhasePlan], stop: StopRequest) -> Summary:
        """All phases that are not done yet."""
        started = time.monotonic()
        notes: list[str] = []
        loader_state = self._restore(notes.append)
        plans = self._still_to_do(plans)
        tokens_left = sum(plan.tokens_before(plan.num_steps) for plan in plans)
        if plans and plans[0].name == self.position.phase:
            tokens_left -= plans[0].tokens_before(self.position.phase_step)
        with Progress(self.position.tokens + tokens_left) as self.progress:
            for note in notes:
                self.progress.say(note)
            for plan in plans:
                resumed = plan.name == self.position.phase
                self._phase(plan, loader_state if resumed else None, stop)
                if stop.signal:
                    break
        write_curve(self.out / "log.jsonl", self.out / "loss.svg")
        return Summary(
            finished=not self._still_to_do(plans),
            position=self.position,
            held_out=self.held_out,
            seconds=time.monotonic() - started,
        )

    def _phase(
        self, plan: PhasePlan, loader_state: dict[str, Any] | None, stop: StopRequest
    ) -> None:
        """From where the phase stands to its end, or to the step in which a signal came."""
        schedule = phase_schedule(self.info, plan.name)
        micro_batch_rows = self._micro_batch_rows(plan)
        with (
            Loader(
                self.run, plan.name, self.rank, self.world_size, micro_batch_rows=micro_batch_rows
            ) as loader,
            DeviceFeed(loader, self.device, meter=self.meter) as feed,
        ):
            if loader_state is None:
                self.position = replace(self.position, phase=plan.name, phase_step=0)
            else:
                loader.load_state_dict(loader_state)
            assert loader.step == self.position.phase_step
            self.meter.restart()
            while self.position.phase_step < plan.num_steps:
                self._step(plan, schedule, feed)
                if stop.signal:
                    if self.saved_step != self.position.step:
                        self._save(loader)
                    self.progress.say(
                        f"{stop.signal}: stopped after step {self.position.step:,}, which is saved."
                    )
                    return

    def _step(self, plan: PhasePlan, schedule: ScheduleConfig, feed: DeviceFeed) -> None:
        """One optimizer step, and what is due after it."""
        loader = feed.loader
        config, before = self.config, self.position
        self.position = position = replace(
            before,
            phase_step=before.phase_step + 1,
            step=before.step + 1,
            tokens=before.tokens + plan.num_rows(before.phase_step) * plan.manifest.row_tokens,
        )
        rate = learning_rate(schedule, plan.tokens_before(position.phase_step))
        set_learning_rate(self.optimizer, rate)
        loss = backward(self.model, self._micro_batches(feed))
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), config.clip_norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        first_bad = (self.bad_step < 0) & ~loss.isfinite()
        self.bad_step = torch.where(first_bad, position.phase_step, self.bad_step)

        last = position.phase_step == plan.num_steps
        if last or position.phase_step == 1 or position.step % config.log_every_steps == 0:
            self._log_step(loss, rate, loader)
        if last or position.step % config.eval_every_steps == 0:
            self._evaluate(plan)
        if last or position.step % config.checkpoint_every_steps == 0:
            self._save(loader)

    def _micro_batches(self, feed: DeviceFeed) -> Iterator[TorchBatch]:
        """Those of the next step, on the device."""
        for _ in range(feed.loader.num_micro_batches):
            batch = next(feed)
            self.position = replace(
                self.position, real_tokens=self.position.real_tokens + batch.num_tokens
            )
            yield batch

    def _log_step(self, loss: torch.Tensor, rate: float, loader: Loader) -> None:
        value = loss.item()  # waits for the device
        self._refuse_non_finite(loader)
        line = StepLine(
            phase=self.position.phase,
            step=self.position.step,
            tokens=self.position.tokens,
            real_tokens=self.position.real_tokens,
            loss=value,
            lr=rate,
            tokens_per_second=self.meter.tokens_per_second(),
            data_wait=self.meter.data_wait(),
        )
        self.meter.restart()
        self.log.write(line)
        self.progress.step(line)

    def _evaluate(self, plan: PhasePlan) -> None:
        """The held-out loss of each subset that the phase reads, and of all."""
        micro_batch_rows = self._micro_batch_rows(plan)
        batch_tokens = micro_batch_rows * plan.manifest.row_tokens
        for subset in dict.fromkeys(["all", *plan.config.subsets]):
            result = held_out_loss(
                self.model,
                self.run,
                plan.name,
                subset,
                micro_batch_rows=micro_batch_rows,
                max_batches=max(1, self.config.eval_tokens // batch_tokens),
                device=self.device,
            )
            if result.masked_tokens == 0:
                continue
            line = HeldOutLine(
                phase=plan.name,
                step=self.position.step,
                tokens=self.position.tokens,
                subset=subset,
                loss=result.loss,
                masked_tokens=result.masked_tokens,
            )
            self.held_out[subset] = result.loss
            self.log.write(line)
            self.progress.held_out(line)
        write_curve(self.out / "log.jsonl", self.out / "loss.svg")
        self.meter.restart()

    def _save(self, loader: Loader) -> None:
        """A checkpoint of this position, unless the weights are spoilt."""
        self._refuse_non_finite(loader)
        state = State(
            position=self.position,
            loader=loader.state_dict(),
            settings=fixed_settings(self.run, self.info, self.config, self.position.phase),
            threads=torch.get_num_threads(),
        )
        write_checkpoint(
            self.out / "checkpoints",
            Checkpoint(
                state=state, model=self.model.state_dict(), optimizer=self.optimizer.state_dict()
            ),
            keep=self.config.keep_checkpoints,
        )
        self.saved_step = self.position.step
        self.meter.restart()

    def _restore(self, say: Callable[[str], None]) -> dict[str, Any]:
        """Take the newest checkpoint, where there is one; the loader's state in it."""
        folder = self.out / "checkpoints"
        remove_parts(folder)
        checkpoint = newest_checkpoint(folder, self.device, say)
        if checkpoint is None:
            return {}
        state = checkpoint.state
        now = fixed_settings(self.run, self.info, self.config, state.position.phase)
        refuse_other_settings(state.settings, now, f"{folder}, step {state.position.step:,}")
        self.model.load_state_dict(checkpoint.model)
        self.optimizer.load_state_dict(checkpoint.optimizer)
        self.position = state.position
        say(f"Going on after step {state.position.step:,}, in {state.position.phase}.")
        if torch.device(self.device).type == "cpu" and state.threads != torch.get_num_threads():
            say(
                f"The checkpoint was made with {state.threads} threads, now there are "
                f"{torch.get_num_threads()}: losses will differ in their last digits."
            )
        return state.loader

    def _still_to_do(self, plans: list[PhasePlan]) -> list[PhasePlan]:
        """The phases behind the position, the one it stands in included while it is unfinished."""
        if not self.position.phase:
            return plans
        current = read_plan(self.run, self.position.phase)
        unfinished = self.position.phase_step < current.num_steps
        if unfinished and all(plan.name != current.name for plan in plans):
            raise ResumeError(
                f"{self.out}: the newest checkpoint stands in {current.name} at step "
                f"{self.position.phase_step:,} of {current.num_steps:,}, and {current.name} is not "
                "among the phases asked for. Finish it first, or train into another folder."
            )
        names = list(self.info.phases)
        first = names.index(current.name) + (0 if unfinished else 1)
        return [plan for plan in plans if names.index(plan.name) >= first]

    def _micro_batch_rows(self, plan: PhasePlan) -> int:
        fitting = self.config.micro_batch_tokens // plan.manifest.row_tokens
        return min(max(fitting, 1), plan.rows_per_step)

    def _refuse_non_finite(self, loader: Loader) -> None:
        """Stop where a step since the last look had a loss that is infinite or no number."""
        bad_step = int(self.bad_step.item())
        if bad_step < 0:
            return
        batches = loader.batch_at(bad_step - 1)
        documents = sorted({int(doc) for batch in batches for doc in batch.doc_ids if doc})
        shown = ", ".join(map(str, documents[:20]))
        more = f" and {len(documents) - 20:,} more" if len(documents) > 20 else ""
        step = self.position.step - self.position.phase_step + bad_step
        raise NonFiniteLossError(
            f"step {step:,}, {self.position.phase}: expected a finite loss, found none. The newest "
            "checkpoint is from before it. Lower the learning rate or clip_norm; if the same step "
            f"fails again, `tokenmill inspect {self.run} --phase {self.position.phase} --step "
            f"{bad_step - 1}` shows its text, `tokenmill skip {self.run} --phase "
            f"{self.position.phase} --steps {bad_step - 1}-{bad_step - 1}` leaves it out. Its "
            f"documents: {shown}{more}."
        )


def _in_order(info: RunInfo, phases: Sequence[str] | None) -> list[str]:
    """The names asked for, in the run's order; RecipeError for one that it has not."""
    wanted = list(info.phases if phases is None else phases)
    for name in wanted:
        info.phase(name)
    return [name for name in info.phases if name in wanted]
