"""The training loop: phases in order, from the newest checkpoint on, in one process or many.

    summary = train(Path("run"), out=Path("out"), device="cpu")

The same call is made by each process that torchrun or Ray Train starts; see `parallel.py`. Starting
it again is resuming it: the newest whole checkpoint in OUT says where. With the same number of
processes and threads, the losses on a CPU are then the same to the bit as without the interruption:
order, masks and dropout are functions of the step, algorithms are deterministic. Another number of
processes reads the same rows behind the same masks, and rounds otherwise.

SIGTERM and SIGINT, sent to any of the processes, let the step end; a checkpoint is written, and all
of them return. An evaluation is given up for it, and made at the next start.

The loop waits for the device in logged steps, for evaluations and for checkpoints, never between
(`step.py`). A step with a loss or gradient that is not finite changes nothing and is counted; that
too many followed each other is found at the next logged step, or before the next checkpoint, which
is then not written.
"""

import contextlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from tokenmill.loader import Loader
from tokenmill.loader.device import DeviceFeed
from tokenmill.loader.micro_batches import rows_per_rank
from tokenmill.loader.mixture_table import mixture_tables, refuse_too_many_epochs
from tokenmill.loader.plan import PhasePlan, read_plan
from tokenmill.shards.run import RunInfo, read_run
from tokenmill.shards.settings import read_settings
from tokenmill.training.attention import backend
from tokenmill.training.checkpoint import (
    Checkpoint,
    CheckpointWriter,
    Position,
    State,
    newest_checkpoint,
)
from tokenmill.training.config import ScheduleConfig, TrainingConfig
from tokenmill.training.dropout import has_dropout
from tokenmill.training.evaluate import evaluate
from tokenmill.training.log import HeldOutLine, StepLine
from tokenmill.training.metrics import StepStats
from tokenmill.training.model import num_parameters
from tokenmill.training.parallel import Processes, joined
from tokenmill.training.phases import (
    pairs_left_aside,
    phases_in_order,
    phases_left,
    refuse_rows_of_another_kind,
    tokens_left,
)
from tokenmill.training.position import newest_first
from tokenmill.training.process import StopRequest, collector_at_rest, exclusive, reproducible
from tokenmill.training.recompilation import Recompilations
from tokenmill.training.reports import Reports
from tokenmill.training.resume import (
    phase_rope,
    phase_schedule,
    refuse_other_settings,
    settings_of,
    what_rounds_otherwise,
)
from tokenmill.training.schedule import share_of_peak
from tokenmill.training.skipped import Skips, refuse_too_many
from tokenmill.training.state import full_state, load_full_state
from tokenmill.training.step import Learner, StepResult


@dataclass(frozen=True, kw_only=True, slots=True)
class Summary:
    """What one call of `train` came to; the same on every rank."""

    finished: bool
    """False where a signal stopped it; the same call goes on."""
    position: Position
    held_out: dict[str, HeldOutLine]
    """Subset to what its last evaluation found; empty where this call made none."""
    seconds: float
    """Of this call, evaluation and checkpoints included."""


def train(
    run: Path,
    *,
    out: Path,
    device: str,
    phases: Sequence[str] | None = None,
    threads: int | None = None,
    settings: Mapping[str, Any] | None = None,
    stop: StopRequest | None = None,
) -> Summary:
    """Train on a finished build, from the newest checkpoint in `out` or from the start.

    Args:
        run: the build's folder.
        out: gets log.jsonl, loss.svg and checkpoints/; rank 0 alone writes.
        device: "cpu", "cuda", ...; of several processes on a machine, each takes its own GPU.
        phases: those to train, in the run's order; None trains all.
        threads: CPU threads; None leaves torch's own number.
        settings: fields of TrainingConfig that differ from the run's.
        stop: asks for the end; None: this process's own SIGTERM and SIGINT.

    Raises:
        RecipeError: a setting or an argument cannot be.
        FormatError: the run is missing or damaged.
        ResumeError: the checkpoint belongs to other settings, data or code, or none is whole.
        RunError: another process trains into `out`, a checkpoint cannot be written, or another
            rank has ended.
        NonFiniteLossError: the loss stays infinite or no number.
    """
    info, config, plans = checked(run, phases, settings or {})
    with (
        joined(device) as processes,
        reproducible(processes.device, threads, config.deterministic),
        contextlib.ExitStack() as locked,
        stop or StopRequest() as asked,
    ):
        processes.first(lambda: locked.enter_context(exclusive(out)))
        return _Training(run, info, config, out, processes, asked).go(plans)


def checked(
    run: Path, phases: Sequence[str] | None, settings: Mapping[str, Any]
) -> tuple[RunInfo, TrainingConfig, list[PhasePlan]]:
    """What `train` is told, refused before any process or folder is begun.

    Raises:
        RecipeError: a setting or a phase cannot be.
        FormatError: the run is missing or damaged.
    """
    info = read_run(run)
    info = replace(info, training={**info.training, **settings})
    config = read_settings(TrainingConfig, info.training, f"{run}: training")
    plans = phases_in_order(run, info, phases)
    refuse_rows_of_another_kind(plans, config.encoder(info.tokenizer))
    tables = mixture_tables(run)
    for plan in plans:
        refuse_too_many_epochs(tables[plan.name])
    return info, config, plans


class _Training:
    """The model, and how far it has come."""

    def __init__(
        self,
        run: Path,
        info: RunInfo,
        config: TrainingConfig,
        out: Path,
        processes: Processes,
        asked: StopRequest,
    ) -> None:
        self.run, self.info, self.config, self.out = run, info, config, out
        self.processes, self.asked = processes, asked
        self.encoder = encoder = config.encoder(info.tokenizer)
        self.dtype = config.dtype_on(processes.device.type)
        self.reports = Reports(out, speaks=processes.rank == 0)
        resumes = processes.first(lambda: bool(newest_first(out / "checkpoints")))
        self.learner = Learner(config, encoder, processes, first_weights=not resumes)
        self.stats = StepStats(
            encoder,
            device=processes.device,
            dtype=self.dtype,
            rank=processes.rank,
            world_size=processes.world_size,
            sum_over_ranks=processes.sum,
        )
        self.writer = CheckpointWriter(
            out / "checkpoints", keep=config.keep_checkpoints, keep_every=config.keep_every_steps
        )
        self.position = Position(phase="", phase_step=0, step=0, tokens=0, real_tokens=0)
        self.held_out: dict[str, HeldOutLine] = {}

    def go(self, plans: list[PhasePlan]) -> Summary:
        """All phases that are not done yet."""
        started = time.monotonic()
        say = self.reports.say
        say(self._machine())
        loader_state = self._restore()
        plans = phases_left(self.run, self.info, plans, self.position, self.out)
        if not plans:
            say("All of it is done.")
        elif pairs_left_aside(plans, self.encoder):
            say("The rows are pairs of texts; the model has no next_sentence, and learns no order.")
        self.total_tokens = self.position.tokens + tokens_left(plans, self.position)
        with self.writer, self.reports, collector_at_rest():
            step = self.position.step
            self.processes.first(lambda: self.reports.open(self.config, self.total_tokens, step))
            self.recompilations = Recompilations(say)
            stopped = not self._make_up_for_an_evaluation()
            for plan in plans:
                if not stopped:
                    resumed = plan.name == self.position.phase
                    stopped = self._phase(plan, loader_state if resumed else None)
            self.processes.first(self.writer.finish)
            if stopped:
                say(
                    f"{self.asked.signal or 'Another process was asked to end'}: stopped after "
                    f"step {self.position.step:,}, which is saved."
                )
            self.reports.draw()
        return Summary(
            finished=not stopped,
            position=self.position,
            held_out=self.held_out,
            seconds=time.monotonic() - started,
        )

    def _phase(self, plan: PhasePlan, loader_state: dict[str, Any] | None) -> bool:
        """From where the phase stands to its end; whether somebody asked for an end before."""
        processes, device = self.processes, self.processes.device
        schedule = phase_schedule(self.info, plan.name)
        self.learner.model.set_rope(phase_rope(self.info, self.config, plan.name))
        with (
            Loader(
                self.run,
                plan.name,
                processes.rank,
                processes.world_size,
                micro_batch_rows=self._micro_batch_rows(plan),
            ) as loader,
            DeviceFeed(loader, device, meter=self.stats.meter) as feed,
        ):
            if loader_state is None:
                self.position = replace(self.position, phase=plan.name, phase_step=0)
            else:
                loader.load_state_dict(loader_state)
            assert loader.step == self.position.phase_step
            self.stats.begin_phase(plan.config.masking.rate)
            self.recompilations.begin_phase()
            stopped = False
            while self.position.phase_step < plan.num_steps and not stopped:
                stopped = self._step(plan, schedule, feed)
        return stopped

    def _step(self, plan: PhasePlan, schedule: ScheduleConfig, feed: DeviceFeed) -> bool:
        """One optimizer step, and what is due after it; whether somebody asked for the end."""
        config, before = self.config, self.position
        seen = plan.tokens_before(before.phase_step + 1)
        share = share_of_peak(schedule, seen)
        decay = config.weight_decay if schedule.weight_decay is None else schedule.weight_decay
        self.learner.optimizers.set_rates(schedule.learning_rate * share, share, decay)
        with self._watched(before.step + 1):
            num_micro_batches = feed.loader.num_micro_batches
            result = self.learner.step(feed, num_micro_batches, before.step + 1)
        self.stats.end_step()
        asked, real_tokens = self.processes.total(self._asked(), result.real_tokens)
        self.position = position = replace(
            before,
            phase_step=before.phase_step + 1,
            step=before.step + 1,
            tokens=before.tokens + seen - plan.tokens_before(before.phase_step),
            real_tokens=before.real_tokens + real_tokens,
        )
        last, stopped = position.phase_step == plan.num_steps, asked > 0
        if last or position.phase_step == 1 or position.step % config.log_every_steps == 0:
            self._log_step(result, schedule.learning_rate * share)
        if last or position.step % config.eval_every_steps == 0:
            stopped = not self._evaluate(plan) or stopped
        if last or stopped or position.step % config.checkpoint_every_steps == 0:
            self._save(feed.loader, may_wait=not (last or stopped))
        return stopped

    def _log_step(self, result: StepResult, rate: float) -> None:
        loss, grad_norm = result.loss.item(), result.grad_norm.item()  # waits for the device
        skips = self._skips()
        self.processes.first(self.writer.check)
        line = StepLine(
            phase=self.position.phase,
            step=self.position.step,
            tokens=self.position.tokens,
            real_tokens=self.position.real_tokens,
            loss=loss,
            lr=rate,
            grad_norm=grad_norm,
            skipped=skips.total,
            **self.stats.speed(self.position.tokens, self.total_tokens)._asdict(),
        )
        self.reports.step(line)

    def _evaluate(self, plan: PhasePlan) -> bool:
        """The scores of each subset that the phase reads, of all rows and of each source; False
        where somebody asked for the end, and there are none."""
        with self.learner.judged():
            scores = evaluate(
                self.learner.model,
                self.run,
                plan.name,
                subsets=list(dict.fromkeys(["all", *plan.config.subsets])),
                micro_batch_rows=self._micro_batch_rows(plan),
                max_tokens=self.config.eval_tokens,
                device=self.processes.device,
                rank=self.processes.rank,
                world_size=self.processes.world_size,
                sum_over_ranks=self.processes.sum,
                stop=lambda: self.processes.total(self._asked())[0] > 0,
            )
        self.stats.restart()
        if scores is None:
            return False
        line = partial(
            HeldOutLine, phase=plan.name, step=self.position.step, tokens=self.position.tokens
        )
        lines = [line(**asdict(score)) for score in scores]
        self.reports.held_out(lines)
        self.held_out |= {line.subset: line for line in lines if line.subset}
        return True

    def _make_up_for_an_evaluation(self) -> bool:
        """Make the one that a signal kept from its checkpoint's step; False where another did."""
        if not self.position.phase:
            return True
        plan = read_plan(self.run, self.position.phase)
        step = self.position.step
        last = self.position.phase_step == plan.num_steps
        is_due = last or step % self.config.eval_every_steps == 0
        if not is_due or self.processes.first(lambda: self.reports.has_held_out(step)):
            return True
        self.learner.model.set_rope(phase_rope(self.info, self.config, plan.name))
        return self._evaluate(plan)

    def _save(self, loader: Loader, *, may_wait: bool) -> None:
        """A checkpoint of this position.

        Args:
            may_wait: make none after a skipped step, for what spoils losses may be the weights.
        """
        skips = self._skips()
        if skips.in_a_row and may_wait:
            return
        state = State(
            position=self.position,
            loader=loader.state_dict(),
            settings=settings_of(self.run, self.info, self.config, self.position.phase),
            threads=torch.get_num_threads(),
            world_size=self.processes.world_size,
            skipped_steps=skips.total,
            skipped_in_a_row=skips.in_a_row,
        )
        self.processes.first(self.writer.finish)  # so that one copy at most is on the host
        whole = full_state(self.learner.model, self.learner.optimizers, self.learner.ema)
        parts = {"model": whole.model, "optimizer": whole.optimizer, "ema": whole.ema}
        self.processes.first(lambda: self.writer.save(Checkpoint(state=state, **parts)))
        self.stats.restart()

    def _restore(self) -> dict[str, Any]:
        """Take the newest checkpoint, where there is one; the loader's state in it."""
        folder, say = self.out / "checkpoints", self.reports.say
        found: list[Checkpoint] = []  # on rank 0 alone

        def read() -> State | None:
            found.extend(filter(None, [newest_checkpoint(folder, say)]))
            return found[0].state if found else None

        state = self.processes.first(read)
        if state is None:
            return {}
        now = settings_of(self.run, self.info, self.config, state.position.phase)
        refuse_other_settings(state.settings, now, f"{folder}, step {state.position.step:,}")
        learner = self.learner
        load_full_state(found[0] if found else None, learner.model, learner.optimizers, learner.ema)
        learner.skipped.set(total=state.skipped_steps, in_a_row=state.skipped_in_a_row)
        self.position = state.position
        say(f"Going on after step {state.position.step:,}, in {state.position.phase}.")
        otherwise = what_rounds_otherwise(
            state,
            now,
            threads=torch.get_num_threads() if self.processes.device.type == "cpu" else None,
            world_size=self.processes.world_size,
            dropout=has_dropout(self.encoder),
        )
        if otherwise:
            say(otherwise)
        return state.loader

    def _micro_batch_rows(self, plan: PhasePlan) -> int:
        fitting = self.config.micro_batch_tokens // plan.manifest.row_tokens
        return min(max(fitting, 1), rows_per_rank(plan.rows_per_step, self.processes.world_size))

    def _asked(self) -> int:
        """1 where this process was asked to end."""
        return int(self.asked.signal is not None)

    def _watched(self, step: int) -> contextlib.AbstractContextManager[None]:
        if not self.learner.is_compiled:
            return contextlib.nullcontext()
        return self.recompilations.watch(step)

    def _machine(self) -> str:
        """Where training runs and how, for whoever wonders about its speed later."""
        device, world_size = self.processes.device, self.processes.world_size
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)
        attention = backend(device, getattr(torch, self.dtype))
        if attention == "by sequence" and self.encoder.global_every > 1:
            attention += " and by block"
        return (
            f"{num_parameters(self.learner.model):,} parameters on {world_size} x {name}, "
            f"attention {attention}, {'' if self.learner.is_compiled else 'not '}compiled"
        )

    def _skips(self) -> Skips:
        """The steps that were skipped, unless there are too many; waits for the device."""
        skips = self.learner.skipped.read()
        refuse_too_many(skips, self.config.max_skipped_steps, self.run, self.position)
        return skips
