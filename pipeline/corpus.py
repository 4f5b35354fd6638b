"""What the pipeline has to know of a recipe, and the disk that it will need."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tokenmill.errors import RunError
from tokenmill.pipeline.decontaminate.config import DecontaminationConfig
from tokenmill.pipeline.dedup.config import DedupConfig
from tokenmill.pipeline.edits.config import EditConfig
from tokenmill.pipeline.fetch.in_turn import DownloadConfig
from tokenmill.pipeline.fetch.limit import parse_bytes
from tokenmill.pipeline.filters import FilterConfig
from tokenmill.pipeline.pack import PackingConfig, RowShape
from tokenmill.pipeline.sources import SourceConfig, SourceFile
from tokenmill.shards.listing import FOLDERS
from tokenmill.shards.run import PhaseInfo

COMPRESSION = 4
"""Bytes of text in a byte of parquet, gz or zst: 3.5 to 4 in RefinedWeb."""
TOKEN_SHARE = 0.5
"""Bytes of uint16 tokens for a byte of text: 0.45 for English and BERT's words."""
TEXT_SHARE = 0.4
"""Bytes of zstd parquet for a byte of text."""


OWN_FOLDERS = (
    "receipts", "milled", "removals", "spans", "dedup", "decontamination", "words", *FOLDERS,
)  # fmt: skip
"""The folders of a run that a build writes into."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Corpus:
    """What a recipe says of the shards: everything that decides their bytes."""

    name: str
    sources: dict[str, SourceConfig]
    tokenizer: str
    filters: FilterConfig
    edits: EditConfig
    dedup: DedupConfig
    decontamination: DecontaminationConfig | None
    retracted: tuple[str, ...]
    """Files of documents that are left out, with their duplicates."""
    packing: PackingConfig
    text: Literal["keep", "drop"]
    held_out: float
    shapes: tuple[RowShape, ...]
    """Of the phases' rows; each once."""
    downloads: DownloadConfig
    phases: dict[str, PhaseInfo]
    """For run.json; the pipeline does not read them."""
    training: dict[str, Any]


def check_disk(corpus: Corpus, run: Path, listed: Mapping[str, Sequence[SourceFile]]) -> int:
    """About how many bytes the run will take at most.

    Raises:
        RunError: the disk has not that much left beyond what the run holds already.
    """
    text = coming = 0
    for name, files in listed.items():
        packed = corpus.sources[name].format == "parquet"
        for file in files:
            dense = packed or file.name.endswith((".gz", ".zst"))
            text += (file.bytes or 0) * (COMPRESSION if dense else 1)
            coming += (file.bytes or 0) if file.remote else 0
    kept_text = TEXT_SHARE if corpus.text == "keep" else 0.0
    if corpus.downloads.keep == "none":
        coming = min(coming, parse_bytes(corpus.downloads.max_bytes))
    needed = coming + int(text * (TOKEN_SHARE * (1 + len(corpus.shapes)) + kept_text))
    own = [path for folder in (*OWN_FOLDERS, "downloads") for path in (run / folder).rglob("*")]
    held = sum(path.stat().st_size for path in own if path.is_file())
    free = shutil.disk_usage(next(p for p in (run, *run.absolute().parents) if p.exists())).free
    if needed > free + held:
        raise RunError(
            f"{run}: the run needs about {needed / 1e9:,.1f} GB of disk, "
            f"{free / 1e9:,.1f} GB are free. Choose another --out, or set text: drop"
            f"{' or --keep-downloads none' * (coming > 0)}."
        )
    return needed
