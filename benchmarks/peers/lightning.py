"""litdata: chunks of tokens on a local disk, cut into rows by its TokensLoader."""

import contextlib
import json
import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from peers.corpus import BATCH_ROWS, SIMULATED_SHARD_ROWS, SIMULATED_TOKENS, Batches, Corpus
from peers.masks import numpy_collator, transformers_collator
from peers.no_torchvision import allow_no_torchvision

allow_no_torchvision()
from litdata import (  # noqa: E402  it imports torchvision
    StreamingDataLoader,
    StreamingDataset,
    TokensLoader,
    optimize,
)


def contenders(folder: Path, corpus: Corpus, rate: float) -> dict[str, Batches]:
    write(folder, corpus)
    theirs = transformers_collator(corpus.tokenizer, rate)
    fast = numpy_collator(corpus.tokenizer, rate)
    return {
        "litdata, transformers' masks": partial(batches, folder, theirs, corpus.max_length),
        "litdata, numpy masks": partial(batches, folder, fast, corpus.max_length),
    }


def write(folder: Path, corpus: Corpus) -> None:
    _write(folder, corpus.rows())


def _write(folder: Path, rows: NDArray[np.uint16]) -> None:
    parts = [range(start, min(start + 1024, len(rows))) for start in range(0, len(rows), 1024)]
    with (
        Path(os.devnull).open("w") as nowhere,
        contextlib.redirect_stdout(nowhere),
        contextlib.redirect_stderr(nowhere),
    ):
        optimize(
            partial(_tokens, rows),
            parts,
            str(folder),
            num_workers=1,
            chunk_bytes="64MB",
            item_loader=TokensLoader(rows.shape[1]),
        )


def batches(folder: Path, collate: Callable[..., Any], row_tokens: int) -> Iterator[Any]:
    """Batches of shuffled rows."""
    dataset = StreamingDataset(str(folder), item_loader=TokensLoader(row_tokens), shuffle=True)
    yield from StreamingDataLoader(
        dataset,
        batch_size=BATCH_ROWS,
        num_workers=0,
        # Collators write int64 ids into the rows.
        collate_fn=lambda rows: collate([row.long() for row in rows]),
        drop_last=True,
    )


def _tokens(rows: NDArray[np.uint16], part: range) -> Iterator[torch.Tensor]:
    yield torch.from_numpy(rows[part.start : part.stop].astype(np.int32).ravel())


def resume(folder: Path, num_rows: int, step: int, batch_rows: int) -> Iterator[Any]:
    """With the batch size that the state was saved with."""
    return _resume(folder, num_rows, step, batch_rows, saved_batch_rows=batch_rows)


def resume_elastic(folder: Path, num_rows: int, step: int, batch_rows: int) -> Iterator[Any]:
    """With another batch size: the rows that are left are dealt anew."""
    return _resume(folder, num_rows, step, batch_rows, saved_batch_rows=2 * batch_rows)


def _resume(
    folder: Path, num_rows: int, step: int, batch_rows: int, *, saved_batch_rows: int
) -> Iterator[Any]:
    """Over an index of as many chunks as are needed, all links to one."""
    _write(folder, np.zeros((SIMULATED_SHARD_ROWS, SIMULATED_TOKENS), np.uint16))
    index = json.loads((folder / "index.json").read_text())
    (chunk,) = index["chunks"]
    for number in range(1, -(-num_rows // SIMULATED_SHARD_ROWS)):
        name = f"chunk-0-{number}.bin"
        (folder / name).symlink_to(folder / chunk["filename"])
        index["chunks"].append({**chunk, "filename": name})
    (folder / "index.json").write_text(json.dumps(index))
    yield None
    loader = _loader(folder, batch_rows)
    # The state of the first batch of another loader, with the counters that the step would have.
    other = _loader(folder, saved_batch_rows)
    next(iter(other))
    state = other.state_dict()
    epoch, of_epoch = divmod(step, num_rows // batch_rows)
    rows = of_epoch * batch_rows
    state["current_epoch"] = state["dataset"]["current_epoch"] = epoch + 1
    state["num_samples_yielded"] = state["dataset"]["num_samples_yielded"] = rows
    state["dataset"]["sample_in_epoch"] = rows
    yield state
    loader.load_state_dict(state)
    yield next(iter(loader))


def _loader(folder: Path, batch_rows: int) -> StreamingDataLoader:
    dataset = StreamingDataset(
        str(folder), item_loader=TokensLoader(SIMULATED_TOKENS), shuffle=True
    )
    return StreamingDataLoader(dataset, batch_size=batch_rows, num_workers=0)
