"""Keys: 64-bit numbers drawn from a seed, names and counters, the same on any machine.

    derive_key(seed, "order", "short", "0-1023", epoch)

A key is a chain: each part is mixed into the key of the parts before it, so a prefix can be kept
and extended by one part later. Part of "order-1": a change here changes every order and every mask.

Source: splitmix64 of Steele, Lea and Flood, "Fast splittable pseudorandom number generators",
OOPSLA 2014.
"""

from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

GOLDEN = 0x9E3779B97F4A7C15
MIX_1 = 0xBF58476D1CE4E5B9
MIX_2 = 0x94D049BB133111EB
_64_BITS = (1 << 64) - 1


def derive_key(*parts: int | str) -> int:
    """The key of these parts, each an integer of 0 to 2**64 - 1 or a name."""
    key = 0
    for part in parts:
        key = extend_key(key, part)
    return key


def extend_key(key: int, part: int | str) -> int:
    """The key that one more part makes of this one."""
    if isinstance(part, str):
        part = int.from_bytes(blake2b(part.encode(), digest_size=8).digest(), "little")
    assert 0 <= part <= _64_BITS
    return splitmix64(key ^ part)


def extend_keys(keys: NDArray[np.uint64], parts: NDArray[np.int64]) -> NDArray[np.uint64]:
    """(n,) extend_key for arrays: each key by the part at its place."""
    mixed = (keys ^ parts.astype(np.uint64)) + np.uint64(GOLDEN)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(MIX_1)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(MIX_2)
    return mixed ^ (mixed >> np.uint64(31))


def splitmix64(value: int) -> int:
    """A 64-bit number that looks random; different values give different numbers."""
    mixed = (value + GOLDEN) & _64_BITS
    mixed = ((mixed ^ (mixed >> 30)) * MIX_1) & _64_BITS
    mixed = ((mixed ^ (mixed >> 27)) * MIX_2) & _64_BITS
    return mixed ^ (mixed >> 31)
