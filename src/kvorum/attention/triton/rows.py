"""How the Triton kernels read and write the numbers of one token and head: as they are, turned, or in int8.

A cache in int8 is given twice, as bytes and as the float32 numbers that its scales are among (``kvorum.kv.int8_rows``).
"""

# mypy: disable-error-code="untyped-decorator,no-untyped-def,no-untyped-call"

from __future__ import annotations

import triton
import triton.language as tl

from kvorum.kv.int8_rows import GROUP

SHARED_ = tl.constexpr(GROUP)  # numbers under one scale
LEAST_ = tl.constexpr(2.0**-100)  # a group that is all below it is stored as zeros
ROUNDS_ = tl.constexpr(1.5 * 2.0**23)  # added and taken away again: the nearest whole number, to even from a half


@triton.jit
def load(source, scales, lines, feature, mask, DIM: tl.constexpr, INT8: tl.constexpr):
    """Load ``[lines, features]``: what is there, or in float32 what rows of a cache in int8 stand for.

    ``lines``: int64, where each line begins. ``scales``: the same memory in float32.
    """
    if INT8:
        SKIPPED: tl.constexpr = (DIM + SHARED_ - 1) // SHARED_ * 4
        codes = tl.load(source + lines[:, None] + SKIPPED + feature[None, :], mask=mask, other=0)
        by = tl.load(scales + (lines // 4)[:, None] + (feature // SHARED_)[None, :], mask=mask, other=0.0)
        x = codes.to(tl.float32) * by
    else:
        x = tl.load(source + lines[:, None] + feature[None, :], mask=mask, other=0.0)
    return x


@triton.jit
def put(
    into,
    scales,
    lines,
    live,
    x,
    DIM: tl.constexpr,
    INT8: tl.constexpr,
    LINES: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Store ``x [LINES, BLOCK]``, DIM features of which are real, at ``lines``: in int8 as by ``int8_rows.encode``."""
    feature = tl.arange(0, BLOCK)
    mask = live[:, None] & (feature < DIM)[None, :]
    if INT8:
        GROUPS: tl.constexpr = (DIM + SHARED_ - 1) // SHARED_
        grouped = tl.reshape(x.to(tl.float32), (LINES, BLOCK // SHARED_, SHARED_))
        most = tl.max(tl.abs(grouped), 2)
        wrong = tl.max((grouped != grouped).to(tl.int32), 2) > 0  # the greatest of some numbers leaves out what is none
        empty = wrong | (most < LEAST_) | (most == float("inf"))
        scale = tl.where(most < LEAST_, 0.0, tl.div_rn(most, tl.full(most.shape, 127.0, tl.float32)))
        scale = tl.where(wrong, float("nan"), scale)
        some = tl.where(empty, 1.0, most)
        codes = (
            tl.where(empty[:, :, None], 0.0, grouped)
            * tl.div_rn(tl.full(most.shape, 127.0, tl.float32), some)[:, :, None]
        )
        codes = codes + ROUNDS_ - ROUNDS_
        codes = tl.reshape(codes, (LINES, BLOCK)).to(tl.int8)
        tl.store(into + lines[:, None] + 4 * GROUPS + feature[None, :], codes, mask=mask)
        group = tl.arange(0, BLOCK // SHARED_)
        mask = live[:, None] & (group < GROUPS)[None, :]
        tl.store(scales + (lines // 4)[:, None] + group[None, :], scale, mask=mask)
    else:
        tl.store(into + lines[:, None] + feature[None, :], x.to(into.dtype.element_ty), mask=mask)


@triton.jit
def load_turned(
    source,
    scales,
    lines,
    live,
    cos,
    sin,
    angles,
    feature,
    DIM: tl.constexpr,
    START: tl.constexpr,
    ROTATED: tl.constexpr,
    INTERLEAVED: tl.constexpr,
    INT8: tl.constexpr,
):
    """As ``load``, line i rotated by the angles of table line ``angles[i]``.

    The features from START to START + ROTATED turn, the others stay.
    """
    x = load(source, scales, lines, feature, live[:, None] & (feature < DIM)[None, :], DIM, INT8)
    if ROTATED > 0:
        HALF: tl.constexpr = ROTATED // 2
        place = feature - START
        if INTERLEAVED:
            pair = place // 2
            first = place % 2 == 0
            partner = tl.where(first, feature + 1, feature - 1)
        else:
            first = place < HALF
            pair = tl.where(first, place, place - HALF)
            partner = tl.where(first, feature + HALF, feature - HALF)
        turns = live[:, None] & ((place >= 0) & (place < ROTATED))[None, :]
        other = load(source, scales, lines, partner, turns, DIM, INT8).to(tl.float32)
        at = angles[:, None] * HALF + pair[None, :]
        c = tl.load(cos + at, mask=turns, other=1.0)
        s = tl.load(sin + at, mask=turns, other=0.0)
        other = tl.where(first[None, :], -other, other)
        x = (x.to(tl.float32) * c + other * s).to(x.dtype)
    return x
