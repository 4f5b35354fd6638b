"""Attention inside packed sequences: every token sees its own sequence, none sees another's.

    cu_seqlens = [0, 3, 5, 8, 8, 8]    sequences 0-2, 3-4, 5-7, then zero-length tails

Three ways to the same numbers:

    varlen        a GPU in 16 bits: `torch.nn.attention.varlen` (FlashAttention 2) takes the bounds
                  as they are, windows included, and waits for nothing
    by sequence   elsewhere: one scaled_dot_product_attention call for each sequence. It reads the
                  bounds on the host, which on a CPU costs nothing, and is twice as fast as a mask
    dense         one block-diagonal mask, quadratic in all tokens: the slow and obvious version
                  that tests compare with. Compiled code off the GPU takes it too, because a loop
                  over lengths that only the data tell cannot be compiled

A layer may ask for fewer queries than there are keys (the last one, see `masked_queries.py`): the
queries then have bounds of their own. A window is counted in places from the query's, so it needs
all of them.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def backend(device: torch.device | str, dtype: torch.dtype) -> str:
    """Which way `packed_attention` goes outside of compiled code; the log says it."""
    sixteen_bits = dtype in (torch.bfloat16, torch.float16)
    return "varlen" if torch.device(device).type == "cuda" and sixteen_bits else "by sequence"


def pin_backend() -> None:
    """Keep torch from taking cuDNN's kernel for varlen, in this process.

    2.15 and later prefer it where this switch allows; for an encoder it was four times slower
    (pytorch#187770). 2.14 does not ask the switch, so pyproject.toml leaves it out.
    """
    torch.backends.cuda.enable_cudnn_sdp(False)


def packed_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    cu_queries: Tensor,
    cu_keys: Tensor,
    max_queries: int,
    max_keys: int,
    window: int = 0,
) -> Tensor:
    """(queries, heads, head_dim) attention of each sequence within itself, in both directions.

    Args:
        query: (queries, heads, head_dim), positions already rotated in.
        key: (tokens, heads, head_dim), likewise; value has the same shape.
        cu_queries: (sequences + 1,) int32 bounds in query; repeated ends are empty sequences.
        cu_keys: (sequences + 1,) int32 bounds in key and value.
        max_queries: at least the most queries of a sequence.
        max_keys: at least the longest sequence.
        window: tokens seen to each side, 0 for all. With a window the queries are all tokens.
    """
    if backend(query.device, query.dtype) == "varlen":
        # Here, because it brings torch's compiler along: a second that a CPU need not wait.
        from torch.nn.attention.varlen import varlen_attn

        sides = (window, window) if window else (-1, -1)
        attended = varlen_attn(
            query, key, value, cu_queries, cu_keys, max_queries, max_keys, window_size=sides
        )
        assert isinstance(attended, Tensor)  # a pair only where return_aux is asked for
        return attended
    if torch.compiler.is_compiling():
        return block_diagonal_attention(query, key, value, cu_queries, cu_keys, window)
    return attention_by_sequence(query, key, value, cu_queries, cu_keys, window)


def attention_by_sequence(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    cu_queries: Tensor,
    cu_keys: Tensor,
    window: int = 0,
) -> Tensor:
    """(queries, heads, head_dim) one call a sequence, for any device and precision."""
    num_queries, num_keys = cu_queries.diff().tolist(), cu_keys.diff().tolist()
    # split, not slices: its backward joins the gradients once instead of adding T rows a sequence.
    parts = zip(
        torch.split(query, num_queries),
        torch.split(key, num_keys),
        torch.split(value, num_keys),
        strict=True,
    )
    band = _band(max(num_keys), window, query.device) if window else None
    attended = []
    for part in parts:
        length = len(part[1])
        if len(part[0]) == 0:  # nothing is asked, and the kernel refuses it
            continue
        mask = None if band is None or length <= window + 1 else band[:length, :length]
        attended.append(_attend(*part, mask))
    return torch.cat(attended)


def block_diagonal_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    cu_queries: Tensor,
    cu_keys: Tensor,
    window: int = 0,
) -> Tensor:
    """(queries, heads, head_dim) the same through one dense mask."""
    mask = _sequence_of(query, cu_queries)[:, None] == _sequence_of(key, cu_keys)[None, :]
    if window:
        mask &= _band(len(key), window, key.device)
    return _attend(query, key, value, mask)


def _sequence_of(tokens: Tensor, cu_seqlens: Tensor) -> Tensor:
    """(tokens,) the number of each one's sequence."""
    places = torch.arange(len(tokens), device=tokens.device, dtype=cu_seqlens.dtype)
    return torch.searchsorted(cu_seqlens, places, right=True)


def _band(length: int, window: int, device: torch.device) -> Tensor:
    """(length, length) whether two places are at most a window apart."""
    places = torch.arange(length, device=device)
    return (places[:, None] - places[None, :]).abs() <= window


def _attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
    # (length, heads, head_dim) to (1, heads, length, head_dim)
    query, key, value = (tensor.transpose(0, 1)[None] for tensor in (query, key, value))
    attended = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
    return attended[0].transpose(0, 1)  # (length, heads, head_dim)
