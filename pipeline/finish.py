"""The end of a build: what was set aside, the manifests, the run's description, the root hash.

All of it is derived from the receipts; run.json comes last but one and outputs.json last, so that
a run that is described is whole.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from tokenmill.pipeline.corpus import Corpus
from tokenmill.pipeline.filters import waterfall_order
from tokenmill.pipeline.pack import RowShape, pack_name
from tokenmill.pipeline.plan import Unreadable
from tokenmill.pipeline.receipts import Receipt, paths
from tokenmill.shards.files import writing
from tokenmill.shards.listing import Output, write_listing
from tokenmill.shards.manifest import FORMAT_VERSION, Manifest, ShardInfo, root_hash, write_manifest
from tokenmill.shards.run import TokenizerInfo, new_run, pack_folder, write_run
from tokenmill.shards.settings import read_settings


@dataclass(frozen=True, slots=True)
class Stages:
    """The receipts of a build, by name, in the order of the plan."""

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
    manifests: list[Manifest]


def finish_run(
    corpus: Corpus,
    run: Path,
    special: TokenizerInfo,
    stages: Stages,
    unreadable: Sequence[Unreadable],
) -> Built:
    """Write what stands above the shards; the run is whole when this returns."""
    num_set_aside = _write_set_aside(run, stages.mill, unreadable)
    manifests = [
        _write_manifest(corpus, run, special, shape, packed)
        for shape, packed in stages.pack.items()
    ]
    write_run(run, new_run(corpus.name, special, corpus.phases, corpus.training))
    counts: Counter[str] = Counter()
    for receipt in stages.settle.values():
        counts.update(receipt.counts)
    receipts = [*stages.mill.values(), *stages.settle.values()]
    receipts += [receipt for packed in stages.pack.values() for receipt in packed.values()]
    known: dict[str, Output] = {o.path: o for receipt in receipts for o in receipt.outputs}
    _remove_orphans(run, known, [manifest.pack for manifest in manifests])
    listing = write_listing(run, known)
    return Built(
        run, listing.root, dict(counts), reasons_of(corpus, counts), num_set_aside, manifests
    )


def reasons_of(corpus: Corpus, counts: Mapping[str, int]) -> list[str]:
    """Every reason of a run, in the order in which they decide."""
    known = ("kept", "held_out")
    found = [name.partition(".")[2] for name in counts if name.startswith("documents.")]
    return waterfall_order(corpus.filters, [name for name in found if name not in known])


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


def _write_manifest(
    corpus: Corpus,
    run: Path,
    special: TokenizerInfo,
    shape: RowShape,
    packed: Mapping[str, Receipt],
) -> Manifest:
    packing = corpus.packing
    shards = [
        read_settings(ShardInfo, shard, receipt.name)
        for receipt in packed.values()
        for shard in receipt.details["shards"]
    ]
    name = pack_name(packing, shape)
    manifest = Manifest(
        format_version=FORMAT_VERSION,
        pack=name,
        row_tokens=shape.row_tokens,
        max_length=shape.max_length,
        overlong=packing.overlong,
        dtype="uint16" if special.vocab_size <= 1 << 16 else "uint32",
        bucket_edges=packing.bucket_edges,
        tokenizer_sha256=special.sha256,
        keys=tuple(receipt.key for receipt in packed.values()),
        tokens_cut=sum(receipt.counts["tokens_cut"] for receipt in packed.values()),
        shards=tuple(shards),
        root=root_hash((shard.path, shard.sha256) for shard in shards),
    )
    write_manifest(pack_folder(run, name), manifest)
    return manifest
