"""The plan of a build in words: which units it would do, and why, and what it needs."""

from collections import Counter
from pathlib import Path

from tokenmill.pipeline.assets import asset_hashes
from tokenmill.pipeline.build import check_inputs, mill_tasks
from tokenmill.pipeline.corpus import Corpus, check_disk
from tokenmill.pipeline.fetch.in_turn import known_far
from tokenmill.pipeline.fetch.listing import list_source
from tokenmill.pipeline.generations import planned_generations
from tokenmill.pipeline.identify import identify_tasks
from tokenmill.pipeline.plan import check_ids, plan_units
from tokenmill.pipeline.receipts import find_receipt, why_not_done
from tokenmill.pipeline.sources import InputFile
from tokenmill.shards.table import table
from tokenmill.tokenizer import load_tokenizer


def plan_report(corpus: Corpus, run: Path) -> str:
    """What a build would do now; writes nothing, and hashes nothing: a file whose size or date
    changed counts as changed."""
    listed = {name: list_source(name, source) for name, source in corpus.sources.items()}
    check_inputs(corpus, listed)
    generations, num_new = planned_generations(run, listed, list(corpus.phases))
    encoder = load_tokenizer(corpus.tokenizer)
    assets = asset_hashes(corpus.filters, corpus.edits)
    rows = []
    lines = []
    for name, source in corpus.sources.items():
        files = []
        for task in identify_tasks(run, name, listed[name]):
            receipt = find_receipt(task)
            known = receipt.details["sha256"] if receipt else [None] * len(task.files)
            files += [
                InputFile(file, path, size, digest or "not hashed yet", modified)
                for (file, path, size, modified), digest in zip(task.files, known, strict=True)
            ]
        units, unreadable = [], []
        num_unknown = unknown_bytes = 0
        earlier: list[InputFile] = []
        for here, all_of_them in zip(
            generations.split(name, files), generations.split(name, listed[name]), strict=True
        ):
            far = known_far(run, name, source, all_of_them)
            for planned, broken in (
                plan_units(name, source, here, earlier),
                (far.units, far.unreadable),
            ):
                units += planned
                unreadable += broken
            num_unknown += far.num_unknown
            unknown_bytes += far.unknown_bytes
            earlier += here
        check_ids(units)
        todo: Counter[str] = Counter()
        for mill_task in mill_tasks(corpus, run, units, encoder.special, assets):
            todo["done" if find_receipt(mill_task) else why_not_done(mill_task)] += 1
        if num_unknown:
            todo[f"files to fetch ({unknown_bytes / 1e9:,.2f} GB) before they can be planned"] = (
                num_unknown
            )
        why = ", ".join(f"{count} {reason}" for reason, count in sorted(todo.items()))
        rows.append(
            (
                name,
                f"{len(listed[name]):,}",
                f"{sum(file.bytes or 0 for file in listed[name]) / 1e6:,.1f} MB",
                f"{len(units):,}",
                why or "nothing to do",
            )
        )
        lines += [f"  {name}/{file.file}: {file.error}" for file in unreadable]
    parts = [table(("source", "files", "on disk", "units", "mill"), rows)]
    if lines:
        parts.append("cannot be read and will be set aside:\n" + "\n".join(lines))
    if encoder.fallback:
        parts.append(f"tokenizer  the library's own path is taken: {encoder.fallback}")
    if num_new:
        parts.append(
            f"grow       {num_new:,} files are of no generation: build with --grow PHASE, the "
            "first phase that reads them"
        )
    needed = check_disk(corpus, run, listed)
    parts.append(f"disk       about {needed / 1e9:,.2f} GB at most")
    parts.append("dedup, settle and pack follow for whatever the mill changes")
    return "\n".join(parts)
