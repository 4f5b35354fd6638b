"""Held-out losses, and what a model without context could reach.

The loss is the mean over the masked tokens of held-out rows, masks always the same (the loader's
`held_out_batches`), so it compares between steps and phases. A model that has learnt how often each
token comes, and nothing else, cannot get below `unigram_entropy`: whatever lies below it is owed
to the context.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from tokenmill.loader import held_out_batches
from tokenmill.loader.masking import NO_TARGET
from tokenmill.shards.manifest import read_manifest
from tokenmill.shards.run import pack_folder, read_run
from tokenmill.shards.shard import open_shard
from tokenmill.training.loss import batch_loss
from tokenmill.training.model import MaskedLanguageModel


@dataclass(frozen=True, slots=True)
class HeldOutLoss:
    """What the model makes of a subset's held-out rows."""

    loss: float
    """Nats a masked token."""
    masked_tokens: int
    """Over how many it is the mean; 0 where the subset has no held-out rows, and the loss is 0."""


@torch.no_grad()
def held_out_loss(
    model: MaskedLanguageModel,
    run: Path,
    phase: str,
    subset: str,
    *,
    micro_batch_rows: int,
    max_batches: int,
    device: str,
) -> HeldOutLoss:
    """The loss over the held-out rows of a subset, or over batches spread evenly among them.

    Args:
        max_batches: the most that are read; where there are more, every second, third, ... is.
    """
    total = torch.zeros((), dtype=torch.float64, device=device)
    masked = torch.zeros((), dtype=torch.int64, device=device)
    batches = held_out_batches(run, phase, subset=subset, micro_batch_rows=micro_batch_rows)
    for numpy_batch in batches:
        # Rows stand by their bucket; the first ones alone would be the short documents.
        if numpy_batch.micro_batch % -(-numpy_batch.num_micro_batches // max_batches):
            continue
        batch = numpy_batch.to_torch(device)
        total += batch_loss(model, batch)
        masked += (batch.targets != NO_TARGET).sum()
    count = int(masked.item())
    return HeldOutLoss(total.item() / max(count, 1), count)


def unigram_entropy(run: Path, phase: str) -> float:
    """The entropy in nats of the held-out tokens that can be masked, by their own frequencies.

    Counted are the tokens of all held-out rows of the phase's pack but the special ones; [UNK]
    counts, as it may be masked. 0 where nothing is held out.
    """
    info = read_run(run)
    folder = pack_folder(run, info.phase(phase).pack)
    counts = np.zeros(info.tokenizer.vocab_size, np.int64)
    for shard in read_manifest(folder).shards:
        if shard.held_out:
            tokens = open_shard(folder / shard.path).tokens.ravel()
            counts += np.bincount(tokens, minlength=len(counts))
    counts[[token for token in info.tokenizer.special_ids if token != info.tokenizer.unk_id]] = 0
    shares = counts[counts > 0] / max(counts.sum(), 1)
    return float(-(shares * np.log(shares)).sum())
