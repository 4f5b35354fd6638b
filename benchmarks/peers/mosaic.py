"""mosaicml-streaming: MDS shards on a local disk, shuffled by its default py1e."""

import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from peers.corpus import BATCH_ROWS, SIMULATED_SHARD_ROWS, SIMULATED_TOKENS, Batches, Corpus
from peers.masks import numpy_collator, transformers_collator
from peers.no_torchvision import allow_no_torchvision
from torch.utils.data import DataLoader

allow_no_torchvision()
from streaming import MDSWriter, StreamingDataset  # noqa: E402  it imports torchvision


def contenders(folder: Path, corpus: Corpus, rate: float) -> dict[str, Batches]:
    write(folder, corpus)
    theirs = transformers_collator(corpus.tokenizer, rate)
    fast = numpy_collator(corpus.tokenizer, rate)
    return {
        "mosaicml-streaming, transformers' masks": partial(batches, folder, theirs),
        "mosaicml-streaming, numpy masks": partial(batches, folder, fast),
    }


def write(folder: Path, corpus: Corpus) -> None:
    rows = corpus.rows()
    columns = {"input_ids": f"ndarray:uint16:{rows.shape[1]}"}
    with MDSWriter(out=str(folder), columns=columns) as writer:
        for row in rows:
            writer.write({"input_ids": row})


def batches(folder: Path, collate: Callable[..., Any]) -> Iterator[Any]:
    """Batches of shuffled rows."""
    dataset = StreamingDataset(local=str(folder), shuffle=True, batch_size=BATCH_ROWS)
    yield from DataLoader(dataset, BATCH_ROWS, collate_fn=collate, drop_last=True)


def resume(folder: Path, num_rows: int, step: int, batch_rows: int) -> Iterator[Any]:
    """Over an index of as many shards as are needed, all links to one."""
    with MDSWriter(out=str(folder), columns={"input_ids": "ndarray:uint16"}) as writer:
        for row in np.zeros((SIMULATED_SHARD_ROWS, SIMULATED_TOKENS), np.uint16):
            writer.write({"input_ids": row})
    index = json.loads((folder / "index.json").read_text())
    (shard,) = index["shards"]
    real = folder / shard["raw_data"]["basename"]
    for number in range(1, -(-num_rows // SIMULATED_SHARD_ROWS)):
        name = f"shard.{number:05d}.mds"
        (folder / name).symlink_to(real)
        index["shards"].append({**shard, "raw_data": {**shard["raw_data"], "basename": name}})
    (folder / "index.json").write_text(json.dumps(index))
    yield None
    dataset = StreamingDataset(
        local=str(folder), shuffle=True, batch_size=batch_rows, num_canonical_nodes=1
    )
    epoch, of_epoch = divmod(step, num_rows // batch_rows)
    state = {
        "epoch": epoch,
        "sample_in_epoch": of_epoch * batch_rows,
        "num_canonical_nodes": 1,
        "shuffle_seed": dataset.shuffle_seed,
        "initial_physical_nodes": 1,
    }
    yield state
    dataset.load_state_dict(state)
    yield next(iter(DataLoader(dataset, batch_rows)))
