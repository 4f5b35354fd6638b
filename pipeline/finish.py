"""The end of a build: what was set aside, the manifests, the run's description, the root hash.

All of it is derived from the receipts; run.json comes last but one and outputs.json last, so that
a run that is described is whole.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from tokenmill.errors import FormatError
from tokenmill.pipeline.corpus import Corpus
from tokenmill.pipeline.edits.config import EditConfig
from tokenmill.pipeline.file_names import write_file_names
from tokenmill.pipeline.filters import FilterConfig, waterfall_order
from tokenmill.pipeline.generations import Generations, changed_shards
from tokenmill.pipeline.licences import LicenceCount, count_licences, write_licences
from tokenmill.pipeline.pack import RowShape, pack_name
from tokenmill.pipeline.plan import Unit, Unreadable
from tokenmill.pipeline.receipts import Receipt, paths
from tokenmill.pipeline.sample import Draw
from tokenmill.shards.buckets import Buckets
from tokenmill.shards.files import writing
from tokenmill.shards.listing import Output, write_listing
from tokenmill.shards.manifest import (
    FORMAT_VERSION,
    Manifest,
    read_manifest,
    root_of,
    write_manifest,
)
from tokenmill.shards.run import TokenizerInfo, new_run, pack_folder, write_run
from tokenmill.shards.settings import read_settings
from tokenmill.shards.shard_list import ShardInfo, ShardList


@dataclass(frozen=True, slots=True)
class Stages:
    """The receipts of a build, by name, in the order of the plan."""

    units: Sequence[Unit]
    mill: Mapping[str, Receipt]
    settle: Mapping[str, Receipt]
    pack: Mapping[RowShape, Mapping[str, Receipt]]


@dataclass(frozen=True, slots=True)
class Built:
    """What came of a build."""

    run: Path
    root: str
    counts: dict[str, int]
    """Documents and tokens, in all and by reason."""
    reasons: list[str]
    """In the order in which they decide."""
    num_set_aside: int
    not_judged: int
    """Documents that came as tokens, past the rules and edits that the recipe has."""
    skipped: dict[str, int]
    """Records that are no documents, by what they are."""
    licences: list[LicenceCount]
    """Most tokens first."""
    manifests: list[Manifest]
    stages: Stages
    draws: dict[str, Draw]
    """By source, where the build is a sample."""
    decontaminated: bool
    """Whether evaluation sets were looked for."""
    generations: Generations
    changed: tuple[str, ...]
    """Where the corpus has grown: what an earlier phase has read and is not there as it was."""


def finish_run(
    corpus: Corpus,
    run: Path,
    special: TokenizerInfo,
    stages: Stages,
    unreadable: Sequence[Unreadable],
    draws: dict[str, Draw],
    generations: Generations,
) -> Built:
    """Write what stands above the shards; the run is whole when this returns."""
    changed: list[str] = []
    num_set_aside = _write_set_aside(run, stages.mill, unreadable)
    manifests = []
    for shape, packed in stages.pack.items():
        manifest = _manifest(corpus, special, shape, packed)
        folder = pack_folder(run, manifest.pack)
        if generations.has_grown and (folder / "manifest.json").exists():
            try:
                changed += changed_shards(read_manifest(folder), manifest)
            except FormatError as error:  # what it said cannot be known any more
                changed.append(str(error))
        write_manifest(folder, manifest)
        manifests.append(manifest)
    phases = generations.of_phases(corpus.phases)
    write_run(run, new_run(corpus.name, special, phases, corpus.training))
    write_file_names(run, stages.units)
    counts: Counter[str] = Counter()
    for receipt in stages.settle.values():
        counts.update(receipt.counts)
    licences = count_licences(stages.settle)
    write_licences(run, licences)
    receipts = [*stages.mill.values(), *stages.settle.values()]
    receipts += [receipt for packed in stages.pack.values() for receipt in packed.values()]
    known: dict[str, Output] = {o.path: o for receipt in receipts for o in receipt.outputs}
    _remove_orphans(run, known, [manifest.pack for manifest in manifests])
    listing = write_listing(run, known)
    return Built(
        run=run,
        root=listing.root,
        counts=dict(counts),
        reasons=reasons_of(corpus, counts),
        num_set_aside=num_set_aside,
        not_judged=_not_judged(corpus, stages.settle),
        skipped=_skipped(stages.mill),
        licences=licences,
        manifests=manifests,
        stages=stages,
        draws=draws,
        decontaminated=corpus.decontamination is not None,
        generations=generations,
        changed=tuple(changed),
    )


def reasons_of(corpus: Corpus, counts: Mapping[str, int]) -> list[str]:
    """Every reason of a run, in the order in which they decide."""
    known = ("kept", "held_out")
    found = [name.partition(".")[2] for name in counts if name.startswith("documents.")]
    return waterfall_order(corpus.filters, [name for name in found if name not in known])


def _not_judged(corpus: Corpus, settled: Mapping[str, Receipt]) -> int:
    if (corpus.filters, corpus.edits) == (FilterConfig(), EditConfig()):
        return 0
    of_tokens = {name for name, source in corpus.sources.items() if source.format == "tokens"}
    return sum(
        receipt.counts.get("documents", 0)
        for unit, receipt in settled.items()
        if unit.partition("/")[0] in of_tokens
    )


def _skipped(milled: Mapping[str, Receipt]) -> dict[str, int]:
    """Records that the mill passed over because they are no documents, most first."""
    counts: Counter[str] = Counter()
    for receipt in milled.values():
        for name, number in receipt.counts.items():
            if name.startswith("skipped."):
                counts[name.partition(".")[2]] += number
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def _remove_orphans(run: Path, known: Mapping[str, Output], packs: Sequence[str]) -> None:
    """Remove outputs that no receipt names: of a task that died before its receipt, or of a phase
    that the recipe no longer has."""
    kept = {*known, *(f"shards/{pack}/manifest.json" for pack in packs)}
    for folder in ("decisions", "shards", "text"):
        # Backwards, so that a folder comes after what is in it.
        for path in sorted((run / folder).rglob("*"), reverse=True):
            if path.is_dir() and not any(path.iterdir()):
                path.rmdir()
            elif path.is_file() and path.relative_to(run).as_posix() not in kept:
                path.unlink()


def _write_set_aside(
    run: Path, milled: Mapping[str, Receipt], unreadable: Sequence[Unreadable]
) -> int:
    """RUN/set-aside.jsonl: all that could not be read, in the order of the plan."""
    path = run / "set-aside.jsonl"
    count = 0
    with writing(path) as part, part.open("w", encoding="utf-8") as out:
        for file in unreadable:
            out.write(json.dumps({**asdict(file), "place": "file"}, sort_keys=True) + "\n")
            count += 1
        for receipt in milled.values():
            for name in paths(receipt, "set-aside"):
                with (run / name).open(encoding="utf-8") as lines:
                    for line in lines:
                        out.write(line)
                        count += 1
    return count


def _manifest(
    corpus: Corpus,
    special: TokenizerInfo,
    shape: RowShape,
    packed: Mapping[str, Receipt],
) -> Manifest:
    packing, buckets = corpus.packing, Buckets(corpus.packing.bucket_edges)

    def total(count: str) -> int:
        return sum(receipt.counts.get(count, 0) for receipt in packed.values())

    shards = ShardList.of(
        read_settings(ShardInfo, shard, receipt.name)
        for receipt in packed.values()
        for shard in receipt.details["shards"]
    )
    return Manifest(
        format_version=FORMAT_VERSION,
        pack=pack_name(packing, shape),
        row_tokens=shape.row_tokens,
        max_length=shape.max_length,
        overlong=packing.overlong,
        sequences=packing.sequences,
        dtype="uint16" if special.vocab_size <= 1 << 16 else "uint32",
        bucket_edges=packing.bucket_edges,
        tokenizer_sha256=special.sha256,
        keys=tuple(receipt.key for receipt in packed.values()),
        tokens_cut=total("tokens_cut"),
        tokens_cut_of={name: total(f"tokens_cut.{name}") for name in buckets.names},
        tokens_over_budget=total("tokens_over_budget"),
        shards=shards,
        root=root_of(shards),
    )
