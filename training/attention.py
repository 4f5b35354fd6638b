"""Attention inside packed documents: every token sees its own document, none sees another's.

    cu_seqlens = [0, 3, 5, 8, 8, 8]    sequences 0-2, 3-4, 5-7, then zero-length tails

Two ways to the same numbers. On a GPU in 16 bits, `torch.nn.attention.varlen` takes the bounds as
they are (FlashAttention 2, no host sync). Elsewhere one scaled_dot_product_attention call is made
for each sequence, which reads the bounds on the host; on a CPU that costs nothing and is twice as
fast as a dense mask. `block_diagonal_attention` is that dense mask: quadratic in all tokens, the
slow and obvious version that tests compare with.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def packed_attention(
    query: Tensor, key: Tensor, value: Tensor, cu_seqlens: Tensor, max_length: int
) -> Tensor:
    """(tokens, heads, head_dim) attention of each sequence within itself, in both directions.

    Args:
        query: (tokens, heads, head_dim), positions already rotated in; key and value likewise.
        cu_seqlens: (sequences + 1,) int32 from 0 to tokens; repeated ends are empty sequences.
        max_length: at least the longest sequence.
    """
    if query.is_cuda and query.dtype in (torch.bfloat16, torch.float16):
        # Here, because it brings torch's compiler along: a second that a CPU need not wait.
        from torch.nn.attention.varlen import varlen_attn

        attended = varlen_attn(query, key, value, cu_seqlens, cu_seqlens, max_length, max_length)
        assert isinstance(attended, Tensor)  # a pair only where return_aux is asked for
        return attended
    return attention_by_sequence(query, key, value, cu_seqlens)


def attention_by_sequence(query: Tensor, key: Tensor, value: Tensor, cu_seqlens: Tensor) -> Tensor:
    """(tokens, heads, head_dim) one call a sequence, for any device and precision."""
    # An empty sequence has nothing to attend to, and the kernel refuses it.
    lengths = [length for length in cu_seqlens.diff().tolist() if length]
    # split, not slices: its backward joins the gradients once instead of adding T rows a sequence.
    parts = (torch.split(tensor, lengths) for tensor in (query, key, value))
    return torch.cat([_attend(*sequence) for sequence in zip(*parts, strict=True)])


def block_diagonal_attention(
    query: Tensor, key: Tensor, value: Tensor, cu_seqlens: Tensor
) -> Tensor:
    """(tokens, heads, head_dim) the same through one dense mask: tests compare with it."""
    positions = torch.arange(len(query), device=query.device)
    document = torch.bucketize(positions, cu_seqlens, right=True)
    return _attend(query, key, value, document[:, None] == document[None, :])


def _attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None) -> Tensor:
    # (length, heads, head_dim) to (1, heads, length, head_dim)
    query, key, value = (tensor.transpose(0, 1)[None] for tensor in (query, key, value))
    attended = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
    return attended[0].transpose(0, 1)  # (length, heads, head_dim)
