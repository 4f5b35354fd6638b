"""Packed batches for the model's tests, small enough to check by eye."""

import torch

from tokenmill.loader import TorchBatch
from tokenmill.loader.masking import NO_TARGET


def make_batch(
    lengths: list[int],
    vocab_size: int,
    *,
    masked: list[int],
    unused: int = 0,
    seed: int = 0,
    pairs: bool = False,
) -> TorchBatch:
    """A batch of sequences of these lengths, 0 for none, and random ids.

    Args:
        masked: places of the masked tokens, rising.
        unused: slots for masked tokens that are not in use.
        pairs: the second half of each sequence is another text; every third is no pair.
    """
    generator = torch.Generator().manual_seed(seed)
    num_tokens, slots = sum(lengths), len(masked) + unused
    ids = torch.randint(1, vocab_size, (num_tokens + slots,), generator=generator)
    targets = torch.full((slots,), NO_TARGET)
    targets[: len(masked)] = ids[num_tokens:][: len(masked)]
    positions = torch.zeros(slots, dtype=torch.int64)
    positions[: len(masked)] = torch.tensor(masked)
    next_sentence = torch.tensor(
        [
            [1, 0, NO_TARGET][place % 3] if length else NO_TARGET
            for place, length in enumerate(lengths)
        ]
    )
    second = [torch.arange(length) >= (length + 1) // 2 for length in lengths]
    return TorchBatch(
        step=0,
        micro_batch=0,
        num_micro_batches=1,
        input_ids=ids[:num_tokens].int(),
        position_ids=torch.cat([torch.arange(length) for length in lengths]).int(),
        cu_seqlens=torch.tensor([0, *lengths]).cumsum(0).int(),
        max_length=max(lengths),
        masked_positions=positions,
        targets=targets,
        doc_ids=torch.arange(1, len(lengths) + 1),
        row_weights=torch.ones(1),
        num_tokens=num_tokens,
        step_targets=len(masked),
        step_pairs=len(lengths) if pairs else 0,
        pad_id=0,
        segment_ids=torch.cat(second).int() if pairs else None,
        next_sentence=next_sentence if pairs else None,
    )
