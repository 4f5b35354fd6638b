"""Hugging Face datasets: an Arrow file of rows, mapped, behind torch's DataLoader."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from accelerate import skip_first_batches
from datasets import Dataset, disable_progress_bars, load_from_disk
from peers.corpus import BATCH_ROWS, SIMULATED_TOKENS, Batches, Corpus
from peers.masks import numpy_collator, transformers_collator
from torch.utils.data import DataLoader


def contenders(folder: Path, corpus: Corpus, rate: float) -> dict[str, Batches]:
    write(folder, corpus)
    theirs = transformers_collator(corpus.tokenizer, rate)
    fast = numpy_collator(corpus.tokenizer, rate)
    return {
        "datasets, transformers' masks": partial(batches, folder, theirs, as_arrays=False),
        "datasets, numpy masks": partial(batches, folder, fast, as_arrays=True),
    }


def write(folder: Path, corpus: Corpus) -> None:
    rows = corpus.rows()
    column = pa.FixedSizeListArray.from_arrays(pa.array(rows.ravel()), rows.shape[1])
    disable_progress_bars()
    Dataset(pa.table({"input_ids": column})).save_to_disk(str(folder))


def batches(folder: Path, collate: Callable[..., Any], *, as_arrays: bool) -> Iterator[Any]:
    """Batches of shuffled rows.

    Args:
        as_arrays: rows as numpy arrays; transformers' collator is given lists, as in run_mlm.py.
    """
    dataset = load_from_disk(str(folder)).with_format("numpy" if as_arrays else None)
    yield from DataLoader(dataset, BATCH_ROWS, shuffle=True, collate_fn=collate, drop_last=True)


def resume(folder: Path, num_rows: int, step: int, batch_rows: int) -> Iterator[Any]:
    """As transformers' Trainer does it: the random states and the step are its state."""
    yield None
    tokens = pa.array(np.zeros(num_rows * SIMULATED_TOKENS, np.uint16))
    rows = pa.FixedSizeListArray.from_arrays(tokens, SIMULATED_TOKENS)
    dataset = Dataset(pa.table({"input_ids": rows})).with_format("numpy")
    loader = DataLoader(dataset, batch_rows, shuffle=True)
    yield {"step": step, "random": torch.get_rng_state()}
    yield next(iter(skip_first_batches(loader, step % (num_rows // batch_rows))))
