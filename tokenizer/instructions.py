"""Machine instructions that numba does not offer: wide loads, wide compares, prefetching.

Reading a text byte by byte costs about a nanosecond a byte. Eight bytes at a time, and the white
space of 64 bytes in one compare, cost a twentieth of it. Memory is given by its address, a plain
number: numba counts references to every array that a function is given, which costs more than the
work that is done here. So the caller sees to it that the array lives and holds what is read.

    load_bytes(address of b"the cat", 3, end)   the bytes "the" as one integer, the first one lowest
    gap_bits(address of b"a cat\\n...", end)     0b100010 and 0b000010: white space, and spaces
"""

from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from tokenmill.tokenizer.compiled import compiled_inline

ZERO, ONE, EIGHT, BLOCK_BYTES = np.uint64(0), np.uint64(1), np.uint64(8), np.uint64(64)
ALL_BITS = np.uint64(0xFFFFFFFFFFFFFFFF)
GAP_BYTES = b" \n\r\t"

_BYTE, _WORD = ir.IntType(8), ir.IntType(64)


@compiled_inline
def load_bytes(address: np.uint64, size: np.uint64, end: np.uint64) -> np.uint64:
    """Up to eight bytes as an integer, the first one lowest. The array ends at `end`."""
    if size == ZERO:
        return ZERO
    if address + EIGHT <= end:
        chunk: np.uint64 = load(address)
        return chunk & (ALL_BITS >> ((EIGHT - size) * EIGHT))
    chunk = ZERO
    for place in range(size):
        chunk |= np.uint64(load_byte(address + place)) << (EIGHT * place)
    return chunk


@compiled_inline
def gap_bits(address: np.uint64, end: np.uint64) -> tuple[np.uint64, np.uint64]:
    """A bit for each of the next 64 bytes: whether it is white space, and whether it is a space.

    What is past the end of the array is neither.
    """
    if address + BLOCK_BYTES <= end:
        return _gap_bits(address)  # type: ignore[no-any-return]
    gaps = spaces = ZERO
    for place in range(end - address):
        byte = load_byte(address + place)
        gaps |= np.uint64(byte == 32 or byte == 10 or byte == 13 or byte == 9) << place
        spaces |= np.uint64(byte == 32) << place
    return gaps, spaces


@intrinsic
def address_of(typing: Any, array: Any) -> Any:
    """Where the first entry of a contiguous array lies."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        return builder.ptrtoint(data, _WORD)

    return types.uint64(array), generate


def _loaded(builder: Any, address: Any, kind: Any) -> Any:
    return builder.load(builder.inttoptr(address, kind.as_pointer()), align=1)


@intrinsic
def load(typing: Any, address: Any) -> Any:
    """Eight bytes, wherever they start."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _loaded(builder, arguments[0], _WORD)

    return types.uint64(types.uint64), generate


@intrinsic
def load_byte(typing: Any, address: Any) -> Any:
    """One byte."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _loaded(builder, arguments[0], _BYTE)

    return types.uint8(types.uint64), generate


@intrinsic
def _gap_bits(typing: Any, address: Any) -> Any:
    block = ir.VectorType(_BYTE, 64)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        text = _loaded(builder, arguments[0], block)
        equal = [
            builder.icmp_unsigned("==", text, ir.Constant(block, [byte] * 64)) for byte in GAP_BYTES
        ]
        bits = [builder.bitcast(one, _WORD) for one in equal]
        gaps = builder.or_(builder.or_(bits[0], bits[1]), builder.or_(bits[2], bits[3]))
        return context.make_tuple(builder, signature.return_type, [gaps, bits[0]])

    two: Any = types.UniTuple(types.uint64, 2)  # type: ignore[attr-defined]  # numba has it
    return two(types.uint64), generate


def _equal_4(kind: Any) -> Any:
    """Make an instruction: a bit for each of four numbers of this kind that equals another."""
    vector = ir.VectorType(kind, 4)

    @intrinsic
    def equal_4(typing: Any, address: Any, number: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            numbers = _loaded(builder, arguments[0], vector)
            wanted = builder.trunc(arguments[1], kind) if kind != _WORD else arguments[1]
            first = builder.insert_element(
                ir.Constant(vector, ir.Undefined), wanted, ir.IntType(32)(0)
            )
            lanes = ir.Constant(ir.VectorType(ir.IntType(32), 4), [0] * 4)
            all_wanted = builder.shuffle_vector(first, first, lanes)
            equal = builder.icmp_unsigned("==", numbers, all_wanted)
            return builder.zext(builder.bitcast(equal, ir.IntType(4)), _WORD)

        return types.uint64(types.uint64, types.uint64), generate

    return equal_4


equal_4_words = _equal_4(_WORD)
equal_4_halves = _equal_4(ir.IntType(32))


@intrinsic
def load_half(typing: Any, address: Any) -> Any:
    """Four bytes, wherever they start."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        half = _loaded(builder, arguments[0], ir.IntType(32))
        return builder.zext(half, _WORD)

    return types.uint64(types.uint64), generate


@intrinsic
def store_half(typing: Any, address: Any, chunk: Any) -> Any:
    """Write the lower four bytes of a chunk."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        half = ir.IntType(32)
        address = builder.inttoptr(arguments[0], half.as_pointer())
        builder.store(builder.trunc(arguments[1], half), address, align=1)
        return context.get_dummy_value()

    return types.void(types.uint64, types.uint64), generate


@intrinsic
def store(typing: Any, address: Any, chunk: Any) -> Any:
    """Write eight bytes, wherever they go."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        builder.store(arguments[1], builder.inttoptr(arguments[0], _WORD.as_pointer()), align=1)
        return context.get_dummy_value()

    return types.void(types.uint64, types.uint64), generate


@intrinsic
def copy_16(typing: Any, target: Any, source: Any) -> Any:
    """Copy 16 bytes from one address to another."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kind = ir.VectorType(_BYTE, 16)
        chunk = _loaded(builder, arguments[1], kind)
        builder.store(chunk, builder.inttoptr(arguments[0], kind.as_pointer()), align=1)
        return context.get_dummy_value()

    return types.void(types.uint64, types.uint64), generate


@intrinsic
def lowest_bit(typing: Any, bits: Any) -> Any:
    """The place of the lowest bit that is set, 64 where none is."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 0))

    return types.uint64(types.uint64), generate


@intrinsic
def count_bits(typing: Any, bits: Any) -> Any:
    """How many bits are set."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.ctpop(arguments[0])

    return types.uint64(types.uint64), generate


@intrinsic
def prefetch(typing: Any, address: Any) -> Any:
    """Have the processor fetch the memory there, without waiting for it."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer, number = _BYTE.as_pointer(), ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [pointer, number, number, number])
        function = builder.module.declare_intrinsic("llvm.prefetch", [pointer], kind)
        at = builder.inttoptr(arguments[0], pointer)
        builder.call(function, [at, number(0), number(3), number(1)])
        return context.get_dummy_value()

    return types.void(types.uint64), generate
