"""Take documents back after a build: by name, or by a text that they hold.

    tokenmill retract runs/web --ids FILE      doc_ids, or the source's ids or addresses, one a line
    tokenmill retract runs/web --texts FILE    jsonl with `text`, or a text a line

A document holds a text when its tokens cover at least four fifths of the text's words by runs of
13 (fewer where the text has fewer, 8 at least), whatever the case, the punctuation and the white
space; or when it is equal to it, byte by byte, which is the only way for a shorter text. What is
found becomes an entry of RUN/overlay.jsonl (shards/overlay.py), with the documents that stand for
it where it was a duplicate: training leaves them out from the entry's step on, and a later build
leaves them and all their duplicates out (retracted.py).

The price of --texts is one pass over the tokens of the run, 40 million a second and core; of --ids
a pass over three columns of its decisions.
"""

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
from numpy.typing import NDArray

from tokenmill.errors import FormatError, RecipeError
from tokenmill.pipeline.decontaminate.config import SetConfig
from tokenmill.pipeline.decontaminate.index import RunIndex, build_index
from tokenmill.pipeline.decontaminate.items import find_files, read_items
from tokenmill.pipeline.decontaminate.judge import Hits, judge_hits
from tokenmill.pipeline.decontaminate.scan import find_hits
from tokenmill.pipeline.decontaminate.words import TokenTable
from tokenmill.pipeline.lock import locked
from tokenmill.pipeline.mill import content_hashes
from tokenmill.shards.arrays import as_numpy
from tokenmill.shards.files import read_json
from tokenmill.shards.listing import read_listing
from tokenmill.shards.overlay import Retraction, append_entry, entry_start, read_overlay
from tokenmill.shards.run import read_run
from tokenmill.tokenizer import load_tokenizer

RUN_WORDS = 13
MIN_WORDS = 8
MIN_SHARE = 0.8
MOST_SHOWN = 20
"""Lines of the file that were not found and are shown."""


@dataclass(frozen=True, slots=True)
class Retracted:
    """What came of it."""

    start: tuple[str, int]
    """The phase and its step from which the documents are left out."""
    fates: dict[str, int]
    """Documents by where they stand: in rows to train on, held out, or the reason they left."""
    num_new: int
    """Documents of the entry; 0: all were taken back before, and there is no new entry."""
    missing: tuple[str, ...]
    """What of the file was not found."""


def retract(
    run: Path,
    *,
    ids: Path | None = None,
    texts: Path | None = None,
    start: tuple[str, int] | None = None,
    reached: tuple[str, int] | None = None,
) -> Retracted:
    """Add what a file names to the run's overlay.

    Args:
        ids: doc_ids, or the source's ids or addresses.
        texts: texts that documents hold. One of the two.
        start: the phase and its step from which the documents are left out; None: where training
            stands.
        reached: the phase in which training stands, and its next step; None: it has not begun.

    Raises:
        FormatError: the run is not finished, or lacks the tokens of its documents.
        RecipeError: the file is missing or empty, there is no such phase, or training has read
            steps that would change.
    """
    read_listing(run)
    phases = tuple(read_run(run).phases)
    start = entry_start(phases, start, reached)
    with locked(run):
        if texts is not None:
            doc_ids, missing = _find_by_text(run, texts)
        else:
            assert ids is not None
            doc_ids, missing = _find_by_name(run, ids)
        doc_ids, fates = _with_those_that_stand_for_them(run, doc_ids)
        known, steps = read_overlay(run, phases).first_steps(phases, start[0])
        new = doc_ids - set(known[steps <= start[1]].tolist())
        if new:
            append_entry(run, Retraction(*start, tuple(sorted(new))))
    return Retracted(start, fates, len(new), tuple(missing))


def describe(retracted: Retracted) -> str:
    """What was found and what was not, in words."""
    lines = [f"{count:8,} documents {fate}" for fate, count in sorted(retracted.fates.items())]
    if retracted.num_new:
        phase, step = retracted.start
        lines.append(
            f"{retracted.num_new:,} documents are left out from {phase} step {step:,} on, and by "
            "every later build"
        )
    else:
        lines.append("nothing new: the overlay stays as it is")
    if retracted.missing:
        lines.append(f"not found: {len(retracted.missing):,}")
        lines += [f"  {name[:100]}" for name in retracted.missing[:MOST_SHOWN]]
        if len(retracted.missing) > MOST_SHOWN:
            lines.append(f"  and {len(retracted.missing) - MOST_SHOWN:,} more")
    return "\n".join(lines)


def _find_by_name(run: Path, path: Path) -> tuple[set[int], list[str]]:
    names = _lines(path)
    numbers = [int(name) for name in names if name.isascii() and name.isdecimal()]
    wanted = (
        pc.field("id").isin(names)
        | pc.field("url").isin(names)
        | pc.field("doc_id").isin(pa.array([n for n in numbers if n < 1 << 64], pa.uint64()))
    )
    rows = _decisions(run, ["doc_id", "id", "url"], wanted)
    columns = [rows[name].to_pylist() for name in ("doc_id", "id", "url")]
    found = {str(value) for column in columns for value in column}
    return set(columns[0]), [name for name in names if name not in found]


def _find_by_text(run: Path, path: Path) -> tuple[set[int], list[str]]:
    texts = _texts(path)
    files = _token_files(run)
    encoder = load_tokenizer(run / "tokenizer")
    table, index = build_index(texts, encoder, RUN_WORDS, MIN_WORDS)
    hashes = content_hashes(pa.array(texts, pa.large_string()))
    found: set[int] = set()
    seen = np.zeros(len(texts), np.bool_)

    def search(file: Path) -> list[tuple[NDArray[np.uint64], NDArray[np.int64]]]:
        return list(_documents_with(file, table, index, hashes))

    # The search releases Python's lock, so threads share the index and each has a core.
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        for parts in threads.map(search, files):
            for doc_ids, items in parts:
                found.update(doc_ids.tolist())
                seen[items] = True
    return found, [text for text, is_seen in zip(texts, seen, strict=True) if not is_seen]


def _documents_with(
    file: Path, table: TokenTable, index: RunIndex, hashes: pa.Array
) -> Iterator[tuple[NDArray[np.uint64], NDArray[np.int64]]]:
    """The documents of a file and the text that each holds, batch by batch; each (pairs,)."""
    reader = pa.ipc.open_file(pa.memory_map(str(file)))
    for number in range(reader.num_record_batches):
        batch = reader.get_batch(number)
        doc_ids, lists = as_numpy(batch["doc_id"]), batch["tokens"]
        equal = pc.index_in(batch["content_hash"], hashes)
        yield doc_ids[as_numpy(pc.is_valid(equal))], as_numpy(equal.drop_null()).astype(np.int64)
        hits = find_hits(table, index, as_numpy(lists.values), as_numpy(lists.offsets))
        if len(hits.documents):
            rows = Hits(
                doc_ids[hits.documents],
                np.zeros(len(hits.documents), np.int64),
                *(column.astype(np.int64) for column in hits[1:]),
            )
            held, _ = judge_hits(rows, index, np.zeros(len(rows.runs), np.bool_), MIN_SHARE)
            yield held.doc_ids[held.decided], held.items[held.decided]


def _with_those_that_stand_for_them(
    run: Path, doc_ids: set[int]
) -> tuple[set[int], dict[str, int]]:
    """Also the documents whose duplicates these are; and how many of them stand where."""
    fates: Counter[str] = Counter()
    found: set[int] = set()
    todo = doc_ids
    while todo:
        wanted = pc.field("doc_id").isin(pa.array(sorted(todo), pa.uint64()))
        rows = _decisions(run, ["doc_id", "reason", "duplicate_of", "held_out"], wanted)
        for row in rows.to_pylist():
            in_rows = "held out for evaluation" if row["held_out"] else "in rows to train on"
            fates[f"that left before ({row['reason']})" if row["reason"] else in_rows] += 1
        found |= todo
        todo = set(rows["duplicate_of"].to_pylist()) - found - {0}
    return found, dict(fates)


def _decisions(run: Path, columns: Sequence[str], wanted: pc.Expression) -> pa.Table:
    dataset = ds.dataset(run / "decisions", format="parquet")
    return dataset.to_table(columns=list(columns), filter=wanted)


def _token_files(run: Path) -> list[Path]:
    receipts: list[Mapping[str, Any]] = [
        read_json(path) for path in sorted((run / "receipts" / "mill").rglob("*.json"))
    ]
    names = [output["path"] for receipt in receipts for output in receipt["outputs"]]
    files = [run / name for name in names if name.rsplit("/", 1)[-1].startswith("tokens-")]
    missing = [file for file in files if not file.exists()]
    if missing or not receipts:
        raise FormatError(
            f"{missing[0] if missing else run / 'receipts' / 'mill'}: no such file. Texts are "
            "looked for in milled tokens: build the run again, or give documents with --ids."
        )
    return files


def _texts(path: Path) -> list[str]:
    if ".jsonl" not in path.name:
        return _lines(path)
    _refuse_missing(path)
    sets = {"texts": SetConfig(path=str(path))}
    return list(dict.fromkeys(item.text for item in read_items(find_files(sets), sets)))


def _lines(path: Path) -> list[str]:
    """The lines of a file, each once, blank ones left out."""
    _refuse_missing(path)
    try:
        lines = [line.strip() for line in path.read_text().splitlines()]
    except UnicodeDecodeError as error:
        raise RecipeError(f"{path}: not UTF-8: {error}") from None
    names = list(dict.fromkeys(line for line in lines if line))
    if not names:
        raise RecipeError(f"{path}: the file is empty. Give a document or a text a line.")
    return names


def _refuse_missing(path: Path) -> None:
    if not path.exists() or path.is_dir():  # a pipe will do
        raise RecipeError(f"{path}: no such file.")
