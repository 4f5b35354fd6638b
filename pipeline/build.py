"""Build: fetch, mill, dedup, settle, pack, and the finish.

Each stage asks for the receipts that are still good and runs the rest. Everything below is
decided by the inputs and the settings alone, so that a build that was killed and one that was not
end with the same root.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

from tokenmill.errors import RecipeError
from tokenmill.pipeline.arrival import Arrival, Listed
from tokenmill.pipeline.assets import asset_hashes
from tokenmill.pipeline.corpus import OWN_FOLDERS, Corpus, check_disk
from tokenmill.pipeline.decontaminate.items import find_files
from tokenmill.pipeline.decontaminate.step import evaluation_text
from tokenmill.pipeline.dedup.duplicates import duplicate_steps
from tokenmill.pipeline.dedup.steps import MilledUnit, Step
from tokenmill.pipeline.engine import Engine
from tokenmill.pipeline.examine import Examiner
from tokenmill.pipeline.fetch.listing import list_source
from tokenmill.pipeline.fetch.peek import open_remote
from tokenmill.pipeline.finish import Built, Stages, finish_run
from tokenmill.pipeline.generations import (
    Generations,
    Growth,
    generations_of,
    write_generations,
)
from tokenmill.pipeline.lock import locked
from tokenmill.pipeline.mill import MillTask
from tokenmill.pipeline.mill_tokens import TokensTask, mill_unit
from tokenmill.pipeline.pack import (
    PackTask,
    RowShape,
    pack,
    pack_name,
    plan_groups,
    refuse_short,
)
from tokenmill.pipeline.plan import Unit, check_columns
from tokenmill.pipeline.receipts import Receipt, paths
from tokenmill.pipeline.retracted import retracted, retracted_documents
from tokenmill.pipeline.sample import Draw, Sample, draw
from tokenmill.pipeline.settle import SettleTask, settle
from tokenmill.pipeline.sources import SourceConfig, SourceFile, refuse_own_outputs
from tokenmill.pipeline.stages import StageRunner
from tokenmill.shards.files import remove_parts, write_whole
from tokenmill.shards.listing import Output
from tokenmill.shards.run import TokenizerInfo
from tokenmill.tokenizer import load_tokenizer
from tokenmill.tokenizer.words import Splitter

PEEKED_FILES = 8
"""Remote files whose columns are looked at before any is fetched."""


def build(
    corpus: Corpus,
    run: Path,
    engine: Callable[[], Engine],
    *,
    recipe: str = "",
    sample: Sample | None = None,
    growth: Growth | None = None,
) -> Built:
    """Bring a run to its end, from wherever it stands.

    Args:
        engine: starts the engine; called once the settings and inputs are known to be sound.
        recipe: the resolved recipe, kept in the run for people.
        sample: which share of the corpus it is; None: all. See sample_run.py.
        growth: the phase from which on files are read that came since; see generations.py.

    Raises:
        TokenmillError: a setting, an input, the disk or the run stands in the way.
    """
    with locked(run):
        # Refused before a finished run is touched: all that shows without reading the inputs.
        encoder = load_tokenizer(corpus.tokenizer)
        special = encoder.special
        listed = {name: list_source(name, source) for name, source in corpus.sources.items()}
        refuse_own_outputs(run, listed)
        for shape in corpus.shapes:
            refuse_short(corpus.packing, shape, special)
        check_inputs(corpus, listed)
        generations = generations_of(run, listed, list(corpus.phases), growth)
        if not sample:
            check_disk(corpus, run, listed)
        started = engine()
        try:
            remove_parts(run, OWN_FOLDERS)
            for name in ("outputs.json", "run.json"):  # not finished, until it is again
                (run / name).unlink(missing_ok=True)
            write_whole(run / "recipe.yaml", recipe.encode())
            encoder.save(run / "tokenizer")
            if generations.has_grown:  # before the first stage, so that a plain build goes on
                write_generations(run, generations)
            built = _Build(corpus, run, started, special, sample, generations).run_stages(listed)
            write_generations(run, generations)
            return built
        finally:
            started.close()


def check_inputs(corpus: Corpus, listed: Listed) -> None:
    """Refuse rules and columns that a worker would stumble over, before anything is read.

    Raises:
        TokenmillError: a model or list is missing or damaged, a filter cannot be made, no file of a
            source has a column that the recipe names, or sentences are asked for of tokens.
    """
    for name, source in corpus.sources.items():
        if source.format == "tokens" and corpus.packing.needs_sentences:
            raise RecipeError(
                f"packing.sequences: {corpus.packing.sequences} needs to know where sentences "
                f"begin, and sources.{name} comes as tokens, without text. Choose documents or "
                "concatenated, or give the source as text."
            )
    for kind in sorted({source.kind for source in corpus.sources.values()}):
        Examiner(corpus.filters, corpus.edits, kind, Splitter().split)
    if corpus.decontamination:
        find_files(corpus.decontamination.sets)
    for name, files in listed.items():
        check_columns(name, corpus.sources[name], _openable(corpus.sources[name], files))


def _openable(
    config: SourceConfig, files: Sequence[SourceFile]
) -> Iterator[tuple[str, Path | BinaryIO]]:
    """Files to look into: all of this machine, some of those that would have to come first."""
    yield from ((file.name, Path(file.address)) for file in files if not file.remote)
    far = [file for file in files if file.remote][:PEEKED_FILES]
    yield from ((file.name, open_remote(file, config.storage_options)) for file in far)


class _Build:
    """One build, stage by stage; holds what all stages need."""

    def __init__(
        self,
        corpus: Corpus,
        run: Path,
        engine: Engine,
        special: TokenizerInfo,
        sample: Sample | None,
        generations: Generations,
    ) -> None:
        self.corpus, self.run, self.special, self.sample = corpus, run, special, sample
        self.generations = generations
        self.stage = StageRunner(run, engine)
        self.assets = asset_hashes(corpus.filters, corpus.edits)
        self.draws: dict[str, Draw] = {}
        """By source, where there is a sample."""

    def run_stages(self, listed: Listed) -> Built:
        if self.sample:
            listed = self.draw(listed, self.sample)
        arrival = Arrival(
            self.corpus, self.run, self.stage, self.mill_tasks, self.draws, self.generations
        )
        units, unreadable = arrival.units(listed)
        milled = self.stage("mill", mill_unit, self.mill_tasks(units))
        of_units = [MilledUnit(unit, milled[unit.name]) for unit in units]
        steps = self.steps(of_units)
        settled = self.settle(of_units, steps)
        packed = {shape: self.pack(units, milled, settled, shape) for shape in self.corpus.shapes}
        return finish_run(
            self.corpus,
            self.run,
            self.special,
            Stages(units, milled, settled, packed),
            unreadable,
            self.draws,
            self.generations,
        )

    def draw(self, listed: Listed, sample: Sample) -> Listed:
        """The files of the sample; `draws` says which of their units, and what they stand for."""
        for name, source in self.corpus.sources.items():
            self.draws[name] = draw(name, source, listed[name], sample)
        return {name: drawn.files for name, drawn in self.draws.items()}

    def mill_tasks(self, units: Sequence[Unit]) -> list[MillTask | TokensTask]:
        return mill_tasks(self.corpus, self.run, units, self.special, self.assets, self.draws)

    def steps(self, units: Sequence[MilledUnit]) -> tuple[Step, ...]:
        """Duplicates and the like, in the order in which they decide."""
        steps = duplicate_steps(self.run, self.stage, units, self.corpus.dedup)
        if self.corpus.decontamination:
            config = self.corpus.decontamination
            steps.append(evaluation_text(self.run, self.stage, config, units, steps))
        doc_ids = retracted_documents(self.run, self.corpus.retracted)
        if len(doc_ids):
            steps.append(retracted(self.run, self.stage, doc_ids, steps))
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
            names = paths(milled[unit], "tokens-")
            tokens = [output for output in milled[unit].outputs if output.path in names]
            return [*tokens, *settled[unit].outputs]

        tasks = []
        for generation in range(len(self.generations.generations)):
            tokens = {
                unit.name: settled[unit.name].counts.get("tokens.kept", 0)
                for unit in units
                if unit.generation == generation
            }
            tasks += [
                PackTask(
                    run=self.run,
                    packing=self.corpus.packing,
                    shape=shape,
                    group=number,
                    generation=generation,
                    corpus_tokens=sum(tokens.values()),
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
                for number, group in enumerate(plan_groups(tokens))
            ]
        return self.stage("pack", pack, tasks, below=pack_name(self.corpus.packing, shape))


def mill_tasks(
    corpus: Corpus,
    run: Path,
    units: Sequence[Unit],
    tokenizer: TokenizerInfo,
    assets: Mapping[str, str],
    draws: Mapping[str, Draw] | None = None,
) -> list[MillTask | TokensTask]:
    """What the mill has to do for each unit, in the order of the plan.

    Args:
        assets: what asset_hashes says of the corpus; models are large, so it is asked once.
        draws: what was drawn of each source; None: everything.
    """
    tasks: list[MillTask | TokensTask] = []
    for unit in units:
        source = corpus.sources[unit.source]
        sample = draws[unit.source].documents if draws else None
        if source.format == "tokens":
            tasks.append(TokensTask(run, unit, source, tokenizer, corpus.tokenizer, sample))
            continue
        tasks.append(
            MillTask(
                run=run,
                unit=unit,
                source=source,
                filters=corpus.filters,
                edits=corpus.edits,
                assets=assets,
                signatures=corpus.dedup.signatures,
                text=corpus.text,
                tokenizer_sha256=tokenizer.sha256,
                sample=sample,
                sentences=corpus.packing.needs_sentences,
            )
        )
    return tasks
