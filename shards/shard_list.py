"""The shards of a pack: a sequence of ShardInfo, kept as one array a field.

    shards[7].path    shards.column("rows").sum()    shards.where(shards.column("held_out"))

A corpus of 1e12 tokens has 15,000 shards, one of 1e13 250,000. As arrays they are summed and chosen
from without a loop, and Python's garbage collector has nothing to walk through: a collection over a
quarter of a million objects takes 20 ms, whenever it comes.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from tokenmill.errors import RecipeError
from tokenmill.shards.settings import read_settings


@dataclass(frozen=True, kw_only=True, slots=True)
class ShardInfo:
    """One shard, as its manifest describes it."""

    path: str
    """Relative to the pack's folder."""
    bucket: str
    held_out: bool
    rows: int
    real_tokens: int
    """Tokens that are not padding."""
    sequences: int
    pieces: int
    max_pieces: int
    """The most pieces in one of its rows."""
    generation: int
    """0 for the first build; a corpus that grows adds shards of later generations."""
    offsets: tuple[int, ...]
    """The byte of the file at which each of its buffers begins, so that it can be read without
    Arrow; in the order of shards/mapped.py."""
    bytes: int
    sha256: str


_DTYPES = {int: np.int64, bool: np.bool_, str: object}
NUM_OFFSETS = 7
"""Buffers of a shard."""


class ShardList(Sequence[ShardInfo]):
    """Shards, as many as there are entries in each column."""

    def __init__(self, columns: dict[str, NDArray[Any]]) -> None:
        self._columns = columns

    @staticmethod
    def of(shards: Iterable[ShardInfo]) -> "ShardList":
        """The list of these shards."""
        shards = list(shards)
        return ShardList(
            {
                field.name: _column(field.name, [getattr(shard, field.name) for shard in shards])
                for field in fields(ShardInfo)
            }
        )

    @staticmethod
    def from_lists(lists: object, where: str) -> "ShardList":
        """What `to_lists` gave, from a file. The first shard is read with all checks; the others
        must have values of its types.

        Raises:
            RecipeError: these are no shards, with the place.
        """
        if not isinstance(lists, dict) or not all(isinstance(v, list) for v in lists.values()):
            raise RecipeError(f"{where}: expected a list for each field of a shard.")
        num_shards = max(map(len, lists.values()), default=0)
        for name, values in lists.items():
            kinds = set(map(type, values))
            if len(values) != num_shards or len(kinds) > 1:
                raise RecipeError(
                    f"{where}.{name}: expected {num_shards} values of one type, found "
                    f"{len(values)} of {', '.join(sorted(kind.__name__ for kind in kinds))}."
                )
        if not num_shards:
            return ShardList.of(())
        first = {name: values[0] for name, values in lists.items()}
        read_settings(ShardInfo, first, f"{where}[0]")
        try:
            return ShardList({name: _column(name, values) for name, values in lists.items()})
        except (TypeError, ValueError, OverflowError) as error:
            raise RecipeError(f"{where}: expected numbers of bytes and rows ({error}).") from None

    def to_lists(self) -> dict[str, list[Any]]:
        """A list for each field, for JSON."""
        return {name: column.tolist() for name, column in self._columns.items()}

    def column(self, name: str) -> NDArray[Any]:
        """(shards,) one field of all; offsets are (shards, buffers)."""
        return self._columns[name]

    def where(self, chosen: NDArray[np.bool_] | NDArray[np.int64]) -> "ShardList":
        """Some of the shards: those for which (shards,) holds, or those of these numbers."""
        return ShardList({name: column[chosen] for name, column in self._columns.items()})

    def __len__(self) -> int:
        return len(self._columns["rows"])

    @overload
    def __getitem__(self, index: int) -> ShardInfo: ...

    @overload
    def __getitem__(self, index: slice) -> "ShardList": ...

    def __getitem__(self, index: int | slice) -> "ShardInfo | ShardList":
        if isinstance(index, slice):
            return ShardList({name: column[index] for name, column in self._columns.items()})
        values = {name: column[index] for name, column in self._columns.items()}
        values = {n: v.tolist() if isinstance(v, np.generic) else v for n, v in values.items()}
        return ShardInfo(**{**values, "offsets": tuple(values["offsets"].tolist())})

    def __iter__(self) -> Iterator[ShardInfo]:
        return (self[index] for index in range(len(self)))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ShardList) and self.to_lists() == other.to_lists()

    __hash__ = None  # type: ignore[assignment]  # as of any list


def _column(name: str, values: list[Any]) -> NDArray[Any]:
    if name == "offsets":
        return np.array(values, np.int64).reshape(-1, NUM_OFFSETS)
    hint: Any = next(field.type for field in fields(ShardInfo) if field.name == name)
    return np.array(values, _DTYPES[hint])
