"""Build: fetch, mill, dedup, settle, pack, and the finish.

Each stage asks for the receipts that are still good and runs the rest. Everything below is
decided by the inputs and the settings alone, so that a build that was killed and one that was not
end with the same root.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from tokenmill.pipeline.assets import asset_hashes
from tokenmill.pipeline.corpus import OWN_FOLDERS, Corpus, check_disk
from tokenmill.pipeline.dedup.exact import exact_duplicates
from tokenmill.pipeline.dedup.steps import MilledUnit, Step
from tokenmill.pipeline.engine import Engine
from tokenmill.pipeline.examine import Examiner
from tokenmill.pipeline.finish import Built, Stages, finish_run
from tokenmill.pipeline.identify import identify, identify_tasks, input_files
from tokenmill.pipeline.lock import locked
from tokenmill.pipeline.mill import MillTask, mill
from tokenmill.pipeline.pack import PackTask, RowShape, pack, pack_name, plan_groups
from tokenmill.pipeline.plan import Unit, Unreadable, check_columns, check_ids, plan_units
from tokenmill.pipeline.progress import show_progress
from tokenmill.pipeline.receipts import Receipt, Task, find_receipt, paths, sweep
from tokenmill.pipeline.settle import SettleTask, settle
from tokenmill.pipeline.sources import list_files, refuse_own_outputs
from tokenmill.shards.files import remove_parts, write_whole
from tokenmill.shards.listing import Output
from tokenmill.shards.run import TokenizerInfo
from tokenmill.tokenizer import load_tokenizer
from tokenmill.tokenizer.words import Splitter

T = TypeVar("T", bound=Task)


def build(corpus: Corpus, run: Path, engine: Callable[[], Engine], *, recipe: str = "") -> Built:
    """Bring a run to its end, from wherever it stands.

    Args:
        engine: starts the engine; called once the settings and inputs are known to be sound.
        recipe: the resolved recipe, kept in the run for people.

    Raises:
        TokenmillError: a setting, an input, the disk or the run stands in the way.
    """
    with locked(run):
        # Refused before a finished run is touched: all that shows without reading the inputs.
        encoder = load_tokenizer(corpus.tokenizer)
        special = encoder.special
        listed = {name: list_files(name, source) for name, source in corpus.sources.items()}
        refuse_own_outputs(run, listed)
        check_inputs(corpus, listed)
        check_disk(corpus, run, listed)
        started = engine()
        try:
            remove_parts(run, OWN_FOLDERS)
            for name in ("outputs.json", "run.json"):  # not finished, until it is again
                (run / name).unlink(missing_ok=True)
            write_whole(run / "recipe.yaml", recipe.encode())
            encoder.save(run / "tokenizer")
            return _Build(corpus, run, started, special).run_stages(listed)
        finally:
            started.close()


def check_inputs(corpus: Corpus, listed: Mapping[str, list[tuple[str, Path]]]) -> None:
    """Refuse rules and columns that a worker would stumble over, before anything is read.

    Raises:
        TokenmillError: a model or list is missing or damaged, a filter cannot be made, or no file
            of a source has a column that the recipe names.
    """
    for kind in sorted({source.kind for source in corpus.sources.values()}):
        Examiner(corpus.filters, corpus.edits, kind, Splitter().split)
    for name, files in listed.items():
        check_columns(name, corpus.sources[name], files)


class _Build:
    """One build, stage by stage; holds what all stages need."""

    def __init__(self, corpus: Corpus, run: Path, engine: Engine, special: TokenizerInfo) -> None:
        self.corpus, self.run, self.engine, self.special = corpus, run, engine, special

    def run_stages(self, listed: Mapping[str, list[tuple[str, Path]]]) -> Built:
        units, unreadable = self.plan(listed)
        milled = self.stage(
            "mill", mill, mill_tasks(self.corpus, self.run, units, self.special.sha256)
        )
        of_units = [MilledUnit(unit, milled[unit.name]) for unit in units]
        steps = self.steps(of_units)
        settled = self.settle(of_units, steps)
        packed = {shape: self.pack(units, milled, settled, shape) for shape in self.corpus.shapes}
        return finish_run(
            self.corpus, self.run, self.special, Stages(milled, settled, packed), unreadable
        )

    def plan(
        self, listed: Mapping[str, list[tuple[str, Path]]]
    ) -> tuple[list[Unit], list[Unreadable]]:
        tasks = [
            task for name, files in listed.items() for task in identify_tasks(self.run, name, files)
        ]
        receipts = self.stage("fetch", identify, tasks)
        units: list[Unit] = []
        unreadable: list[Unreadable] = []
        for name, source in self.corpus.sources.items():
            mine = [task for task in tasks if task.source == name]
            files = [file for task in mine for file in input_files(task, receipts[task.name])]
            planned, broken = plan_units(name, source, files)
            units += planned
            unreadable += broken
        check_ids(units)
        return units, unreadable

    def steps(self, units: Sequence[MilledUnit]) -> tuple[Step, ...]:
        """Duplicates and the like, in the order in which they decide."""
        steps: list[Step] = []
        if self.corpus.dedup.exact:
            steps.append(exact_duplicates(self.run, self.stage, units))
        return tuple(steps)

    def settle(self, units: Sequence[MilledUnit], steps: tuple[Step, ...]) -> dict[str, Receipt]:
        return self.stage(
            "settle",
            settle,
            [
                SettleTask(
                    self.run,
                    milled.unit.name,
                    tuple(paths(milled.receipt, "decisions-")),
                    steps,
                    self.corpus.held_out,
                    (milled.receipt.key,),
                )
                for milled in units
            ],
        )

    def pack(
        self,
        units: Sequence[Unit],
        milled: Mapping[str, Receipt],
        settled: Mapping[str, Receipt],
        shape: RowShape,
    ) -> dict[str, Receipt]:
        def read_by_pack(unit: str) -> list[Output]:
            tokens = [o for o in milled[unit].outputs if o.path.endswith(".arrow")]
            return [*tokens, *settled[unit].outputs]

        tokens = {unit.name: settled[unit.name].counts.get("tokens.kept", 0) for unit in units}
        tasks = []
        for number, group in enumerate(plan_groups(tokens)):
            tasks.append(
                PackTask(
                    run=self.run,
                    packing=self.corpus.packing,
                    shape=shape,
                    group=number,
                    token_files=tuple(p for u in group for p in paths(milled[u], "tokens-")),
                    decision_files=tuple(
                        o.path
                        for u in group
                        for o in settled[u].outputs
                        if o.path.endswith(".parquet")
                    ),
                    spans=tuple(
                        o for u in group for o in settled[u].outputs if o.path.endswith(".arrow")
                    ),
                    tokenizer=self.special,
                    inputs=tuple(output for u in group for output in read_by_pack(u)),
                )
            )
        return self.stage("pack", pack, tasks, below=pack_name(self.corpus.packing, shape))

    def stage(
        self, stage: str, function: Callable[[T], Receipt], tasks: Sequence[T], below: str = ""
    ) -> dict[str, Receipt]:
        """The receipts of all tasks by name: old ones that still hold, and new ones."""
        sweep(self.run, stage, [task.name for task in tasks], below)
        if not tasks:
            return {}
        receipts = {task.name: find_receipt(task) for task in tasks}
        todo = [task for task in tasks if receipts[task.name] is None]
        done = self.engine.run(function, todo)
        shown = show_progress(stage, len(todo), len(tasks) - len(todo), done)
        receipts |= {receipt.name: receipt for receipt in shown}
        return {name: receipt for name, receipt in receipts.items() if receipt is not None}


def mill_tasks(
    corpus: Corpus, run: Path, units: Sequence[Unit], tokenizer_sha256: str
) -> list[MillTask]:
    """What the mill has to do for each unit, in the order of the plan."""
    assets = asset_hashes(corpus.filters, corpus.edits)
    return [
        MillTask(
            run=run,
            unit=unit,
            source=corpus.sources[unit.source],
            filters=corpus.filters,
            edits=corpus.edits,
            assets=assets,
            signatures=corpus.dedup.signatures,
            text=corpus.text,
            tokenizer_sha256=tokenizer_sha256,
        )
        for unit in units
    ]
