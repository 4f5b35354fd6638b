"""Look at training without training: the documents of a step, and the steps of a document.

    tokenmill inspect RUN --phase phase1 --step 1200 [--world-size 8] [--text]
    tokenmill when RUN DOC [--phase phase1] [--world-size 8]

The loader knows rows, doc_ids and tokens, the pipeline names and reasons, the tokenizer text; here
they come together. A step costs what a batch costs, and a lookup of its files' names. A document
costs one pass over the names in the decisions and one over the doc_ids of each pack.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from tokenmill.errors import RecipeError
from tokenmill.loader.describe import StepDocuments, step_documents
from tokenmill.loader.micro_batches import rows_per_rank
from tokenmill.loader.plan import PhasePlan, read_plan
from tokenmill.loader.when import Place, Use, find_places, uses_of
from tokenmill.pipeline.file_names import file_names
from tokenmill.pipeline.why import MOST_SHOWN, find_documents, verdict
from tokenmill.shards.run import read_run
from tokenmill.shards.table import table
from tokenmill.tokenizer import Encoder, load_tokenizer

SHOWN_TOKENS = 32
SHOWN_CHARACTERS = 60
MOST_USES = 20
"""Steps of a phase that are listed for a document."""


def describe_step(
    run: Path, phase: str, step: int, *, world_size: int = 1, whole_text: bool = False
) -> str:
    """The rows of a step, and in each its documents with their source and text.

    Raises:
        FormatError: the run is missing or damaged.
        RecipeError: there is no such phase, or the world size is below 1.
    """
    if world_size < 1:
        raise RecipeError(f"--world-size: need at least 1, got {world_size}")
    shown = step_documents(run, phase, step, world_size=world_size)
    names = file_names(run, shown.doc_ids)
    num_tokens, num_masked = shown.lengths[~shown.is_hidden].sum(), shown.num_masked.sum()
    lines = [
        f"{phase} step {step:,}: {len(shown.rows):,} rows, {num_tokens:,} tokens, "
        f"{_share(num_masked, num_tokens)} masked"
    ]
    if names is None:
        lines.append("sources have no names: files.parquet is not in the run. Build it again.")
        names = [""] * len(shown.doc_ids)
    lines += _lines_of_rows(shown, names, _Texts(run, whole_text))
    return "\n".join(lines)


def describe_when(
    run: Path,
    document: str,
    *,
    phase: str | None = None,
    world_size: int | None = None,
    reached: tuple[str, int] | None = None,
) -> str:
    """The steps that did or will read a document, phase by phase.

    Args:
        document: a doc_id, or the id or address that the source gives it.
        phase: None: all of the run.
        reached: the phase in which training stands, and its next step; None: it has not begun.

    Raises:
        FormatError: the run is missing or damaged.
        RecipeError: there is no such document or phase.
    """
    phases = list(read_run(run).phases)
    found = _documents(run, document)
    plans = [read_plan(run, name) for name in ([phase] if phase else phases)]
    lines = []
    for doc_id, said in found[:MOST_SHOWN]:
        lines.append(f"document {doc_id}{said}")
        for plan in plans:
            lines += _lines_of_uses(plan, doc_id, world_size, _next_step(plan, reached))
    if len(found) > MOST_SHOWN:
        lines.append(f"and {len(found) - MOST_SHOWN:,} more of this name")
    return "\n".join(lines)


class _Texts:
    """Tokens as text, on one line or whole."""

    def __init__(self, run: Path, whole: bool) -> None:
        info = read_run(run).tokenizer
        self._special = np.array([i for i in info.special_ids if i != info.unk_id])
        self._encoder: Encoder = load_tokenizer(run / "tokenizer")
        self._whole = whole

    def of(self, shown: StepDocuments, piece: int) -> str:
        tokens = shown.tokens_of(piece)
        ids = tokens[~np.isin(tokens, self._special)].astype(np.uint32)
        if self._whole:
            return f"\n{self._encoder.decode(ids)}"
        text = " ".join(self._encoder.decode(ids[:SHOWN_TOKENS]).split())
        return f"  {text[:SHOWN_CHARACTERS]}"


def _lines_of_rows(shown: StepDocuments, names: list[str], texts: _Texts) -> Iterator[str]:
    ends = np.searchsorted(shown.row_of, np.arange(len(shown.rows)), side="right")
    for row, (name, end) in enumerate(zip(shown.rows, ends.tolist(), strict=True)):
        start = int(ends[row - 1]) if row else 0
        where = f"{name}, visit {shown.visits[row]}, rank {shown.ranks[row]}"
        if shown.is_skipped[row]:
            yield f"{where}: skipped, all of it is padding"
            continue
        yield f"{where}: {end - start:,} pieces of documents"
        for piece in range(start, end):
            first = int(shown.firsts[piece])
            num_tokens = int(shown.lengths[piece]) - int(shown.num_special[piece])
            line = f"  {shown.doc_ids[piece]:20d}  {_tokens(first, num_tokens)}"
            if shown.is_hidden[piece]:
                yield f"{line}  taken back: padding  {names[piece]}"
            else:
                masked = _share(shown.num_masked[piece], num_tokens)
                yield f"{line}  {masked} masked  {names[piece]}{texts.of(shown, piece)}"


def _documents(run: Path, name: str) -> list[tuple[int, str]]:
    """The doc_ids that a name stands for, and what the decisions say of each."""
    if not (run / "decisions").exists():  # a copy for training may do without
        if not (name.isdecimal() and int(name) < 1 << 64):
            raise RecipeError(f"{name}: expected a doc_id: names are in {run / 'decisions'}, gone.")
        return [(int(name), "")]
    rows = list(find_documents(run, name))
    if not rows:
        raise RecipeError(f"{name}: no document of {run / 'decisions'} has this doc_id, id or url.")
    return [
        (row["doc_id"], f" {row['url'] or row['id'] or ''}: {verdict(row, run)}") for row in rows
    ]


def _next_step(plan: PhasePlan, reached: tuple[str, int] | None) -> int:
    """The first step of a phase that training has not read."""
    phase, step = reached or (plan.phases[0], 0)
    behind = plan.phases.index(plan.name) - plan.phases.index(phase)
    return plan.num_steps if behind < 0 else 0 if behind else step


def _lines_of_uses(
    plan: PhasePlan, doc_id: int, world_size: int | None, next_step: int
) -> Iterator[str]:
    places = find_places(plan, doc_id)
    held_out = [place for place in places if place.is_held_out]
    uses = uses_of(plan, doc_id, places)
    doc_ids, first_steps = plan.overlay.first_steps(plan.phases, plan.name)
    for step in first_steps[doc_ids == doc_id].tolist():
        yield f"{plan.name}: taken back, padding from step {step:,} on"
    if held_out:
        rows = ", ".join(f"{place.bucket}:{place.row}" for place in held_out)
        yield f"{plan.name}: held out for evaluation, in {rows}; no step of training reads it"
    elif not places:
        yield f"{plan.name}: in no row of the pack {plan.manifest.pack}"
    else:
        read = sum(use.step < next_step for use in uses)
        yield (
            f"{plan.name}: read {len(uses):,} times in its {plan.num_steps:,} steps, "
            f"{read:,} of them so far"
        )
    if uses:
        header = ("step", "", "row", "visit", "tokens", *(("rank",) if world_size else ()))
        rows_of_uses = [_use_row(plan, use, world_size, next_step) for use in uses[:MOST_USES]]
        yield table(header, rows_of_uses)
    if len(uses) > MOST_USES:
        yield f"and {len(uses) - MOST_USES:,} more, the last at step {uses[-1].step:,}"


def _use_row(plan: PhasePlan, use: Use, world_size: int | None, next_step: int) -> tuple[str, ...]:
    place: Place = use.place
    state = "padding" if use.is_hidden else "read" if use.step < next_step else "to come"
    cells = (
        f"{use.step:,}", state, f"{place.bucket}:{place.row}", str(use.visit),
        _tokens(place.first, place.num_tokens),
    )  # fmt: skip
    if not world_size:
        return cells
    return (*cells, str(use.place_in_step // rows_per_rank(plan.num_rows(use.step), world_size)))


def _tokens(first: int, num_tokens: int) -> str:
    return f"tokens {first}-{first + num_tokens - 1}"


def _share(number: int, total: int) -> str:
    return f"{number:,} ({number / max(total, 1):.1%})"
