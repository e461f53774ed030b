"""Rows of a factorization machine in vector registers, as LLVM code: what the loops of `fm_kernels` are made of.

Numba unrolls a loop over 16 factors into 16 single operations; as vectors they are two. Vectors are 8 floats wide: one register
with AVX, two with SSE or on ARM. A row is the factors, zeros up to one less than a multiple of 8, and the bias in the last lane.
Addresses are bytes; `width` is the floats of a row, known when the code is compiled.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from palate.models.fm_learning import LANES

FLOAT, I32, I64 = ir.FloatType(), ir.IntType(32), ir.IntType(64)
VECTOR = ir.VectorType(FLOAT, LANES)
NOTHING = ir.Constant(VECTOR, ir.Undefined)
ZERO = ir.Constant(VECTOR, [0.0] * LANES)
FAST = ("contract", "reassoc", "nsz")
BIAS_LANE = ir.Constant(I32, LANES - 1)
LINE = 64
"""Bytes that a processor fetches at a time."""

Builder = Any
Value = Any

_PAIR = cast(Any, types).UniTuple(types.float32, 2)
_code: Any = intrinsic(prefer_literal=True)


def _pointer(b: Builder, address: Value, block: int) -> Value:
    return b.inttoptr(b.add(address, ir.Constant(I64, 4 * LANES * block)), VECTOR.as_pointer())


def _blocks(b: Builder, width: int, *addresses: Value) -> Iterator[tuple[int, list[Value]]]:
    """For each 8 floats of these rows, from the first: the number of the block, and pointers to it."""
    for block in range(width // LANES):
        yield block, [_pointer(b, address, block) for address in addresses]


def _spread(b: Builder, number: Value) -> Value:
    """The number in all lanes."""
    single = b.insert_element(NOTHING, number, ir.Constant(I32, 0))
    return b.shuffle_vector(single, NOTHING, ir.Constant(ir.VectorType(I32, LANES), [0] * LANES))


def _sum(b: Builder, vector: Value) -> Value:
    for half in (4, 2, 1):
        lanes = ir.Constant(ir.VectorType(I32, LANES), [(lane + half) % LANES for lane in range(LANES)])
        vector = b.fadd(vector, b.shuffle_vector(vector, NOTHING, lanes), flags=FAST)
    return b.extract_element(vector, ir.Constant(I32, 0))


def _add_product(b: Builder, x: Value, y: Value, z: Value) -> Value:
    """x · y + z"""
    return b.fadd(b.fmul(x, y, flags=FAST), z, flags=FAST)


def _without_bias(b: Builder, vector: Value) -> Value:
    return b.insert_element(vector, ir.Constant(FLOAT, 0.0), BIAS_LANE)


@_code
def products(typing: Any, own: Any, row: Any, width: Any) -> Any:
    """(⟨own, row⟩, ⟨row, row⟩) of the factors; `own` must have 0 in the lane of its bias."""

    def code(context: Any, b: Builder, signature: Any, arguments: Any) -> Value:
        sums, squares = [ZERO, ZERO], [ZERO, ZERO]  # two of each: one alone would wait for itself
        last = width.literal_value // LANES - 1
        for block, (p, q) in _blocks(b, width.literal_value, *arguments[:2]):
            mine, its = b.load(p, align=4), b.load(q, align=4)
            sums[block % 2] = _add_product(b, mine, its, sums[block % 2])
            its = _without_bias(b, its) if block == last else its
            squares[block % 2] = _add_product(b, its, its, squares[block % 2])
        found = [_sum(b, b.fadd(*pair, flags=FAST)) for pair in (sums, squares)]
        return context.make_tuple(b, signature.return_type, found)

    return _PAIR(own, row, width), code


@_code
def step(
    typing: Any, own: Any, row: Any, length: Any, its_length: Any, kept: Any, its_kept: Any, bias: Any, width: Any
) -> Any:
    """own ← (own + length · row) · kept and row ← (row + its_length · own) · its_kept, both from the old values.

    The lane of the bias becomes 0 in `own` and `bias` in `row`.
    """
    number = types.float32

    def code(context: Any, b: Builder, signature: Any, arguments: Any) -> Value:
        by, its_by, left, its_left = (_spread(b, value) for value in arguments[2:6])
        last = width.literal_value // LANES - 1
        for block, (p, q) in _blocks(b, width.literal_value, *arguments[:2]):
            mine, its = b.load(p, align=4), b.load(q, align=4)
            moved = b.fmul(_add_product(b, by, its, mine), left, flags=FAST)
            its_moved = b.fmul(_add_product(b, its_by, mine, its), its_left, flags=FAST)
            if block == last:
                moved, its_moved = _without_bias(b, moved), b.insert_element(its_moved, arguments[6], BIAS_LANE)
            b.store(moved, p, align=4)
            b.store(its_moved, q, align=4)
        return context.get_dummy_value()

    return types.void(own, row, number, number, number, number, number, width), code


@_code
def add(typing: Any, total: Any, row: Any, times: Any, width: Any) -> Any:
    """total ← total + times · row, and ⟨row, row⟩ of the factors; the lane of the bias in `total` stays as it is."""

    def code(context: Any, b: Builder, signature: Any, arguments: Any) -> Value:
        by, squares = _spread(b, arguments[2]), ZERO
        last = width.literal_value // LANES - 1
        for block, (p, q) in _blocks(b, width.literal_value, *arguments[:2]):
            its = b.load(q, align=4)
            its = _without_bias(b, its) if block == last else its
            squares = _add_product(b, its, its, squares)
            b.store(_add_product(b, by, its, b.load(p, align=4)), p, align=4)
        return _sum(b, squares)

    return types.float32(total, row, types.float32, width), code


@_code
def blend(typing: Any, row: Any, total: Any, kept: Any, times: Any, bias: Any, width: Any) -> Any:
    """row ← kept · row + times · total, with `bias` in the lane of the bias."""
    number = types.float32

    def code(context: Any, b: Builder, signature: Any, arguments: Any) -> Value:
        left, by = _spread(b, arguments[2]), _spread(b, arguments[3])
        last = width.literal_value // LANES - 1
        for block, (p, q) in _blocks(b, width.literal_value, *arguments[:2]):
            moved = _add_product(b, by, b.load(q, align=4), b.fmul(left, b.load(p, align=4), flags=FAST))
            if block == last:
                moved = b.insert_element(moved, arguments[4], BIAS_LANE)
            b.store(moved, p, align=4)
        return context.get_dummy_value()

    return types.void(row, total, number, number, number, width), code


@_code
def prefetch(typing: Any, row: Any, width: Any) -> Any:
    """Ask for a row that will be written soon."""

    def code(context: Any, b: Builder, signature: Any, arguments: Any) -> Value:
        pointer = ir.IntType(8).as_pointer()
        function = b.module.globals.get("llvm.prefetch.p0") or ir.Function(
            b.module, ir.FunctionType(ir.VoidType(), [pointer, I32, I32, I32]), "llvm.prefetch.p0"
        )
        for offset in range(0, 4 * width.literal_value, LINE):
            place = b.inttoptr(b.add(arguments[0], ir.Constant(I64, offset)), pointer)
            b.call(function, [place, *(ir.Constant(I32, flag) for flag in (1, 3, 1))])
        return context.get_dummy_value()

    return types.void(row, width), code
