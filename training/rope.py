"""Rotary positions: pairs of numbers in queries and keys turn by angles that grow with the place.

    pairs      interleaved  (0, 1) (2, 3) ...          GPT-J, NeoBERT
               halves       (0, d/2) (1, d/2 + 1) ...  GPT-NeoX, ModernBERT

Only halves are turned: the rows of a matrix with interleaved pairs are brought into their order
where it is used (`pairs_to_halves`), alike for queries and keys, so no product of the two changes.
Both styles then read and write whole runs of numbers.

The angles come from the positions themselves, so there is no table that a longer phase outgrows,
and another theta compiles nothing anew. They are computed once a micro-batch for all layers, in 32
bits, and the turning is done in 32 bits too, whatever the vectors are.

YaRN (arXiv:2309.00071, "NTK by parts") stretches the slow pairs, those that turn less than once
over the length trained on before, by its factor, leaves those that turn more than 32 times, goes
in a straight line between them, and lengthens queries and keys by 0.1 ln(factor) + 1. Layers with a
window see no further than before and are not stretched.
"""

import math

import torch
from torch import Tensor

from tokenmill.training.encoder_config import RopeConfig

FAST_TURNS, SLOW_TURNS = 32, 1
"""YaRN's beta and alpha (section 3.2), found on Llama; transformers has the same defaults."""


def global_angles(position_ids: Tensor, pairs: int, rope: RopeConfig) -> Tensor:
    """(2, tokens, 1, pairs) cosines and sines for layers that see the whole sequence.

    Args:
        position_ids: (tokens,) integers, from 0 in every sequence.
        pairs: half of a head's numbers.
    """
    speeds = _speeds(pairs, rope.theta, position_ids.device)
    if rope.yarn_factor == 1:
        return _angles(position_ids, speeds)
    assert rope.original_length is not None
    fast = _pair_that_turns(FAST_TURNS, rope.original_length, pairs, rope.theta)
    slow = _pair_that_turns(SLOW_TURNS, rope.original_length, pairs, rope.theta)
    low, high = max(math.floor(fast), 0), min(math.ceil(slow), 2 * pairs - 1)
    ramp = (torch.arange(pairs, device=speeds.device) - low) / max(high - low, 1e-3)
    stretched = ramp.clamp(0, 1)  # (pairs,) 0: left as it is; 1: slowed by the whole factor
    speeds = speeds / rope.yarn_factor * stretched + speeds * (1 - stretched)
    return _angles(position_ids, speeds) * (0.1 * math.log(rope.yarn_factor) + 1)


def local_angles(position_ids: Tensor, pairs: int, rope: RopeConfig) -> Tensor:
    """(2, tokens, 1, pairs) cosines and sines for layers that see a window."""
    theta = rope.theta if rope.local_theta is None else rope.local_theta
    return _angles(position_ids, _speeds(pairs, theta, position_ids.device))


def rotate(x: Tensor, angles: Tensor) -> Tensor:
    """(tokens, heads, head_dim) each pair (i, i + half) turned by its angle.

    Source: RoFormer, arXiv:2104.09864, equation 15.
    """
    cos, sin = angles.unbind()
    first, second = x.chunk(2, dim=-1)
    # A product of 16 and 32 bits has 32.
    turned = torch.cat([first * cos - second * sin, first * sin + second * cos], dim=-1)
    return turned.to(x.dtype)


def pairs_to_halves(rows: Tensor) -> Tensor:
    """(heads, head_dim, ...) rows of interleaved pairs, all firsts before all seconds."""
    return torch.unflatten(rows, 1, (-1, 2)).transpose(1, 2).flatten(1, 2)


def _speeds(pairs: int, theta: float, device: torch.device) -> Tensor:
    """(pairs,) radians a token."""
    exponents = torch.arange(pairs, device=device) / pairs
    return theta**-exponents


def _angles(position_ids: Tensor, speeds: Tensor) -> Tensor:
    turns = torch.outer(position_ids.float(), speeds)  # (tokens, pairs)
    return torch.stack([turns.cos(), turns.sin()]).unsqueeze(2)


def _pair_that_turns(times: int, length: int, pairs: int, theta: float) -> float:
    """Which pair, in fractions of one, turns so many times over a length."""
    return pairs * math.log(length / (times * 2 * math.pi)) / math.log(theta)
