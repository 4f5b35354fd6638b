"""Held-out losses, and what a model without context could reach.

    scores = evaluate(model, run, "phase1", subsets=["all", "1024+"], ...)

Loss and accuracy are means over the masked tokens of held-out rows, masks always the same (the
loader's `HeldOutRows`), so they compare between steps and between numbers of ranks. One pass gives
those of every subset and every source: the loss of each masked token is read when all batches are
under way, and added on the host to its bucket and to the source of its sequence's document. So it
is the same on each call, and the price is 13 bytes on the device for each masked token.

A run without its table of files (`shards/sources.py`) has no losses by source. Of a sequence that
is made of several documents the loader names one, and its source has all the tokens.

A model that has learnt how often each token comes, and nothing else, cannot get below
`unigram_entropy`: whatever lies below it is owed to the context.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from tokenmill.loader import Batch
from tokenmill.loader.held_out import HeldOutRows
from tokenmill.loader.masking import NO_TARGET
from tokenmill.shards.manifest import read_manifest
from tokenmill.shards.run import pack_folder, read_run
from tokenmill.shards.shard import open_shard
from tokenmill.shards.sources import Sources, read_sources


@dataclass(frozen=True, slots=True)
class Score:
    """What the model makes of a subset's held-out rows, or of a source's held-out documents."""

    subset: str | None
    source: str | None
    """One of the two is None."""
    loss: float
    """Nats a masked token."""
    accuracy: float
    """Share of the masked tokens that are the model's first guess."""
    masked_tokens: int
    """Over how many both are means."""


@torch.no_grad()
def evaluate(
    model: nn.Module,
    run: Path,
    phase: str,
    *,
    subsets: Sequence[str],
    micro_batch_rows: int,
    max_tokens: int,
    device: torch.device | str,
    rank: int = 0,
    world_size: int = 1,
    sum_over_ranks: Callable[[Tensor], Tensor] = lambda tensor: tensor,
    stop: Callable[[], bool] = lambda: False,
) -> list[Score] | None:
    """Scores of the held-out rows; each rank reads its share, and all have the same result.

    Args:
        model: its forward pass takes a TorchBatch and gives Predictions.
        subsets: of the phase's pack, such as "all" and "1024+".
        max_tokens: the most that are read on all ranks together, padding included; of more, rows
            spread evenly are, so a subset or a source has its share of them.
        sum_over_ranks: given float64 on the device.
        stop: asked before each batch; has to answer the same on every rank.

    Returns:
        Subsets in the order given, then sources by name, without those that have no masked tokens;
        None when told to stop.

    Raises:
        FormatError: the run is missing or damaged.
        RecipeError: there is no such phase, subset or rank, or a batch would have no row.
    """
    rows = HeldOutRows(run, phase, max_tokens=max_tokens)
    names = rows.buckets.names
    buckets_of = {
        subset: [names.index(bucket) for bucket in rows.buckets.of_subset(subset)]
        for subset in subsets
    }
    sources = read_sources(run)
    shares = rows.batches(micro_batch_rows=micro_batch_rows, rank=rank, world_size=world_size)
    found, groups = [], []
    was_training = model.training
    model.eval()
    try:
        for places, batch in shares:
            if stop():
                return None
            found.append(_of_tokens(*model(batch.to_torch(device))[:2]))
            groups.append(_groups(batch, rows.bucket_of[places.start : places.stop], sources))
    finally:
        model.train(was_training)
    shape = (3, len(names), len(sources.names) if sources else 1)
    own = torch.from_numpy(_sums(found, groups, shape[1] * shape[2]))
    sums = sum_over_ranks(own.to(device)).cpu().numpy().reshape(shape)
    scores = [_score(subset, None, sums[:, buckets]) for subset, buckets in buckets_of.items()]
    if sources:
        scores += [_score(None, name, sums[:, :, n]) for n, name in enumerate(sources.names)]
    return [score for score in scores if score.masked_tokens]


def _of_tokens(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(slots,) each: the loss, whether the first guess is right, the target."""
    losses = F.cross_entropy(logits.float(), targets, ignore_index=NO_TARGET, reduction="none")
    return losses, logits.argmax(-1) == targets, targets


def _groups(
    batch: Batch, bucket_of: NDArray[np.int64], sources: Sources | None
) -> NDArray[np.int64]:
    """(masked tokens,) a number for bucket and source of each, in the order of the batch.

    Args:
        bucket_of: (rows,) of the batch; it may have more, which only fill it up.
    """
    masked = batch.masked_positions[batch.targets != NO_TARGET]
    row_tokens = len(batch.input_ids) // len(batch.row_weights)
    bucket: NDArray[np.int64] = bucket_of[masked // row_tokens]
    if sources is None:
        return bucket
    source = np.zeros(len(batch.doc_ids), np.int64)
    in_use = batch.doc_ids != 0
    source[in_use] = sources.of(batch.doc_ids[in_use])
    sequence = np.searchsorted(batch.cu_seqlens, masked, side="right") - 1
    bucket *= len(sources.names)
    bucket += source[sequence]
    return bucket


def _sums(
    found: Sequence[tuple[Tensor, Tensor, Tensor]],
    groups: Sequence[NDArray[np.int64]],
    num_groups: int,
) -> NDArray[np.float64]:
    """(3, groups) summed losses, right guesses and masked tokens. Waits for the device."""
    if not found:
        return np.zeros((3, num_groups))
    losses, hits, targets = (torch.cat(parts).cpu().numpy() for parts in zip(*found, strict=True))
    in_use, group = targets != NO_TARGET, np.concatenate(groups)
    weights = (losses[in_use], hits[in_use], np.ones(len(group)))
    return np.stack([np.bincount(group, weight, num_groups) for weight in weights])


def _score(subset: str | None, source: str | None, sums: NDArray[np.float64]) -> Score:
    """Of (3, ...) sums."""
    loss, hits, masked = sums.reshape(3, -1).sum(1).tolist()
    return Score(subset, source, loss / max(masked, 1), hits / max(masked, 1), int(masked))


def unigram_entropy(run: Path, phase: str) -> float:
    """The entropy in nats of the held-out tokens that can be masked, by their own frequencies.

    Counted are the tokens of all held-out rows of the phase's pack but the special ones; [UNK]
    counts, as it may be masked. 0 where nothing is held out.
    """
    info = read_run(run)
    folder = pack_folder(run, info.phase(phase).pack)
    counts = np.zeros(info.tokenizer.vocab_size, np.int64)
    for shard in read_manifest(folder).up_to(info.phase(phase).generation).shards:
        if shard.held_out:
            tokens = open_shard(folder / shard.path).tokens.ravel()
            counts += np.bincount(tokens, minlength=len(counts))
    counts[[token for token in info.tokenizer.special_ids if token != info.tokenizer.unk_id]] = 0
    shares = counts[counts > 0] / max(counts.sum(), 1)
    return float(-(shares * np.log(shares)).sum())
