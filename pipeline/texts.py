"""The texts of a recipe's sources as they were read, for those who want nothing but text."""

from collections.abc import Iterator, Mapping

import pyarrow as pa

from tokenmill.pipeline.documents import Documents, SetAside
from tokenmill.pipeline.plan import Unreadable, check_columns, plan_units
from tokenmill.pipeline.read import read_unit
from tokenmill.pipeline.sources import InputFile, SourceConfig, list_files


def source_texts(
    sources: Mapping[str, SourceConfig], set_aside: list[SetAside | Unreadable]
) -> Iterator[pa.Array]:
    """Batches of text, source by source in their order; what cannot be read goes to the list."""
    for name, config in sources.items():
        listed = list_files(name, config)
        check_columns(name, config, listed)
        files = [InputFile(file, str(path), path.stat().st_size, "") for file, path in listed]
        units, unreadable = plan_units(name, config, files)
        set_aside += unreadable
        for unit in units:
            for item in read_unit(unit, config):
                if isinstance(item, Documents):
                    yield item.texts
                else:
                    set_aside.append(item)
