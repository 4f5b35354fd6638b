"""Attention inside packed sequences: every token sees its own sequence, none sees another's.

    cu_seqlens = [0, 3, 5, 8, 8, 8]    sequences 0-2, 3-4, 5-7, then zero-length tails

Four ways to the same numbers:

    varlen        a GPU in 16 bits: `torch.nn.attention.varlen` (FlashAttention 2) takes the bounds
                  as they are, windows included, and waits for nothing
    by sequence   elsewhere: one scaled_dot_product_attention call for each sequence. It reads the
                  bounds on the host, which on a CPU costs nothing, and is twice as fast as a mask
    by block      elsewhere, with a window: runs of queries, each with the keys around it, so that
                  work grows with the tokens and not with their square. At sequences of 500 tokens
                  1.6 times as fast as by sequence, at 8,192 more than 30 times
    dense         one block-diagonal mask, quadratic in all tokens: the slow and obvious version
                  that tests compare with. Compiled code off the GPU takes it where there is no
                  window, because a loop over lengths that only the data tell cannot be compiled

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
    if 0 < window < max_keys - 1:
        return attention_by_block(query, key, value, cu_keys, window)
    if torch.compiler.is_compiling():
        return block_diagonal_attention(query, key, value, cu_queries, cu_keys)
    return attention_by_sequence(query, key, value, cu_queries, cu_keys)


def attention_by_sequence(
    query: Tensor, key: Tensor, value: Tensor, cu_queries: Tensor, cu_keys: Tensor
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
    # The kernel refuses sequences of which nothing is asked.
    return torch.cat([_attend(*part, None) for part in parts if len(part[0])])


def attention_by_block(
    query: Tensor, key: Tensor, value: Tensor, cu_seqlens: Tensor, window: int
) -> Tensor:
    """(tokens, heads, head_dim) with a window: blocks of twice as many queries, each with its own
    tokens and a window to both sides as keys, all in one call."""
    size, num_tokens = 2 * window, len(query)
    num_blocks = -(-num_tokens // size)
    end = num_blocks * size

    def blocks(tokens: Tensor, start: int = 0) -> Tensor:
        return torch.unflatten(tokens[start : start + end], 0, (num_blocks, size))

    def with_neighbours(tokens: Tensor) -> Tensor:
        """(end + window + size, ...) to (num_blocks, window + size + window, ...)."""
        before, own, after = (blocks(tokens, start) for start in (0, window, window + size))
        return torch.cat([before[:, :window], own, after[:, :window]], dim=1)

    def around(tokens: Tensor) -> Tensor:
        return with_neighbours(_padded(tokens, window, end - num_tokens + size)).transpose(1, 2)

    places = torch.arange(-window, end + size, device=query.device, dtype=cu_seqlens.dtype)
    # 0 before the first token; behind the last one, none's number.
    sequences = torch.searchsorted(cu_seqlens, places, right=True)
    own = blocks(sequences, window)
    mask = own[:, :, None] == with_neighbours(sequences)[:, None, :]
    mask &= _band(size, window, query.device)
    attended = F.scaled_dot_product_attention(
        blocks(_padded(query, 0, end - num_tokens)).transpose(1, 2),
        around(key),
        around(value),
        attn_mask=mask[:, None],  # (blocks, heads, queries, keys)
    )
    return attended.transpose(1, 2).flatten(0, 1)[:num_tokens]


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
        places = torch.arange(len(key), device=key.device)
        mask &= (places[:, None] - places[None, :]).abs() <= window
    return _attend(query, key, value, mask)


def _sequence_of(tokens: Tensor, cu_seqlens: Tensor) -> Tensor:
    """(tokens,) the number of each one's sequence."""
    places = torch.arange(len(tokens), device=tokens.device, dtype=cu_seqlens.dtype)
    return torch.searchsorted(cu_seqlens, places, right=True)


def _padded(tokens: Tensor, before: int, after: int) -> Tensor:
    """(before + tokens + after, heads, head_dim) with zeros around."""
    return F.pad(tokens, (0, 0, 0, 0, before, after))


def _band(size: int, window: int, device: torch.device) -> Tensor:
    """(size, window + size + window) whether a key is at most a window from a block's query."""
    queries = torch.arange(window, window + size, device=device)
    keys = torch.arange(size + 2 * window, device=device)
    return (queries[:, None] - keys[None, :]).abs() <= window


def _attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
    # (length, heads, head_dim) to (1, heads, length, head_dim)
    query, key, value = (tensor.transpose(0, 1)[None] for tensor in (query, key, value))
    attended = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
    return attended[0].transpose(0, 1)  # (length, heads, head_dim)
