"""The texts of a recipe's sources as they were read, for those who want nothing but text."""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pyarrow as pa

from tokenmill.pipeline.documents import Documents, SetAside
from tokenmill.pipeline.fetch.in_turn import fetch_tasks, let_go
from tokenmill.pipeline.fetch.listing import list_source
from tokenmill.pipeline.fetch.stage import fetch, fetched_files
from tokenmill.pipeline.plan import Unreadable, check_columns, plan_units
from tokenmill.pipeline.read import read_unit
from tokenmill.pipeline.sources import InputFile, SourceConfig


def source_texts(
    sources: Mapping[str, SourceConfig], folder: Path, set_aside: list[SetAside | Unreadable]
) -> Iterator[pa.Array]:
    """Batches of text, source by source in their order.

    Args:
        folder: where remote files come to, one after the other; they leave when they were read.
        set_aside: gets what cannot be read.
    """
    for name, config in sources.items():
        if config.format == "tokens":
            continue  # there is no text of it
        listed = list_source(name, config)
        near = [file for file in listed if not file.remote]
        check_columns(name, config, [(file.name, Path(file.address)) for file in near])
        files = [InputFile(f.name, f.address, f.bytes or 0, "") for f in near]
        yield from _texts(name, config, files, set_aside)
        far = [file for file in listed if file.remote]
        if not far:
            continue
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".downloads-", dir=folder) as place:
            for task in fetch_tasks(Path(place), name, config, far):
                come = fetched_files(task, fetch(task))
                yield from _texts(name, config, come, set_aside)
                let_go([task])


def _texts(
    source: str,
    config: SourceConfig,
    files: Sequence[InputFile],
    set_aside: list[SetAside | Unreadable],
) -> Iterator[pa.Array]:
    units, unreadable = plan_units(source, config, files)
    set_aside += unreadable
    for unit in units:
        for item in read_unit(unit, config):
            if isinstance(item, Documents):
                yield item.texts
            elif isinstance(item, SetAside):
                set_aside.append(item)
