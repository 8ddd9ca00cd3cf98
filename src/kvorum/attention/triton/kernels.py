"""The Triton kernels of a tick: store new keys and values, attend item by item, merge the partial results.

An *item* is a tile of queries times a range of one segment's keys; see ``tables`` for how a plan becomes items.
Each program takes one item and one KV head: it loads the range's keys and values once for all its queries (rows times
the heads that share the KV head), which it rotates itself by each row's distance. Partial results carry the log2 of
their softmax's denominator; ``merge`` weighs them by it. Rotations come as tables of cosines and sines, one line per
position that the tick needs, because the hardware's sine is not exact far from zero.

Covers bfloat16, float16 and float32 (accumulated in float32, never rounded to TF32), caches of these and of int8, any
head size, any group size, windows, soft caps, sinks, both pairings, partial rotation. What is read of a cache in int8
goes on in the dtype of the queries. Imports triton: see ``triton`` for what to do without.
"""

# mypy: disable-error-code="untyped-decorator,no-untyped-def,no-untyped-call"

from __future__ import annotations

import triton
import triton.language as tl

from kvorum.attention.triton.rows import load, load_turned, put

FIELDS = 8
"""Numbers of an item: first query, queries, first partial result, base slot, place in the gathered slots, first key,
last key + 1, frame position of key 0. The base is -1 where slots are gathered, -2 where their keys are turned too."""

INTERPRETED = bool(triton.knobs.runtime.interpret)
"""Whether the kernels run in Triton's interpreter: TRITON_INTERPRET=1 when this module was imported."""

LOG2E = tl.constexpr(1.4426950408889634)
FIELDS_ = tl.constexpr(FIELDS)
INTERPRETED_ = tl.constexpr(INTERPRETED)


@triton.jit
def product(a, b):
    """``a @ b``, accumulated in float32."""
    if INTERPRETED_:  # it would multiply the bits of bfloat16 as whole numbers
        a = a.to(tl.float32)
        b = b.to(tl.float32)
    return tl.dot(a, b, input_precision="ieee")


@triton.jit(do_not_specialize=["tokens"])
def store(
    new_keys,
    new_values,
    keys,
    values,
    key_scales,
    value_scales,
    cos,
    sin,
    slots,
    tokens,
    new_key_head,
    new_key_token,
    new_value_head,
    new_value_token,
    key_head,
    value_head,
    K_DIM: tl.constexpr,
    V_DIM: tl.constexpr,
    START: tl.constexpr,
    ROTATED: tl.constexpr,
    INTERLEAVED: tl.constexpr,
    INT8: tl.constexpr,
    K_ROW: tl.constexpr,
    V_ROW: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_V: tl.constexpr,
):
    """Write BLOCK_T tokens of one KV head: keys turned to their index in the block, values as they are. Negative
    slots are padding. The first lines of the tables are the tokens' indices."""
    head = tl.program_id(1).to(tl.int64)
    token = tl.program_id(0) * BLOCK_T + tl.arange(0, BLOCK_T)
    slot = tl.load(slots + token, mask=token < tokens, other=-1).to(tl.int64)
    live = slot >= 0
    wide = token.to(tl.int64)
    feature = tl.arange(0, BLOCK_K)
    source = new_keys + head * new_key_head
    lines = wide * new_key_token
    key = load_turned(source, source, lines, live, cos, sin, wide, feature, K_DIM, START, ROTATED, INTERLEAVED, False)
    scales = key_scales + head * (key_head // 4)
    put(keys + head * key_head, scales, slot * K_ROW, live, key, K_DIM, INT8, BLOCK_T, BLOCK_K)
    feature = tl.arange(0, BLOCK_V)
    mask = live[:, None] & (feature < V_DIM)[None, :]
    source = new_values + head * new_value_head + wide[:, None] * new_value_token + feature[None, :]
    value = tl.load(source, mask=mask, other=0.0)
    scales = value_scales + head * (value_head // 4)
    put(values + head * value_head, scales, slot * V_ROW, live, value, V_DIM, INT8, BLOCK_T, BLOCK_V)


@triton.jit(do_not_specialize=["delta_line", "shift_line", "window"])
def attend(
    query,
    keys,
    values,
    key_scales,
    value_scales,
    cos,
    sin,
    items,
    queries,
    deltas,
    gathered,
    partial,
    lse,
    query_head,
    query_token,
    key_head,
    value_head,
    delta_line,
    shift_line,
    window,
    scale,
    softcap,
    GROUP: tl.constexpr,
    K_DIM: tl.constexpr,
    V_DIM: tl.constexpr,
    START: tl.constexpr,
    ROTATED: tl.constexpr,
    INTERLEAVED: tl.constexpr,
    INT8: tl.constexpr,
    K_ROW: tl.constexpr,
    V_ROW: tl.constexpr,
    CAPPED: tl.constexpr,
    TURNED: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_V: tl.constexpr,
):
    """One item and one KV head: ``partial [parts, q_heads, V_DIM]`` and ``lse [parts, q_heads]`` (base 2), float32.

    ``delta_line`` and ``shift_line``: where the tables' lines of the queries and of the gathered keys begin.
    ``window``: distances below it are seen.
    """
    item = items + tl.program_id(0) * FIELDS_
    lo = tl.load(item + 5)
    hi = tl.load(item + 6)
    if lo >= hi:  # padding
        return
    begin = tl.load(item)
    count = tl.load(item + 1)
    part = tl.load(item + 2)
    base = tl.load(item + 3)
    place = tl.load(item + 4)
    first = tl.load(item + 7)
    kv_head = tl.program_id(1).to(tl.int64)
    heads = tl.num_programs(1) * GROUP

    local = tl.arange(0, BLOCK_M) // GROUP
    head = kv_head * GROUP + tl.arange(0, BLOCK_M) % GROUP
    live = local < count
    token = tl.load(queries + begin + local, mask=live, other=0).to(tl.int64)
    delta = tl.load(deltas + begin + local, mask=live, other=-1)
    k_feature = tl.arange(0, BLOCK_K)
    v_feature = tl.arange(0, BLOCK_V)
    q_lines = token * query_token + head * query_head
    q_angles = delta_line + begin + local
    q = load_turned(
        query, query, q_lines, live, cos, sin, q_angles, k_feature, K_DIM, START, ROTATED, INTERLEAVED, False
    )
    if not INT8:
        q = q.to(keys.dtype.element_ty)

    # keys outside every query's sight are not read
    nearest = tl.min(tl.where(live, delta, 2147483647), 0)
    farthest = tl.max(delta, 0)
    lo = tl.maximum(lo, nearest - window + 1 - first)
    hi = tl.minimum(hi, farthest + 1 - first)
    end = tl.where(base < 0, hi, lo)  # of those whose slots are gathered

    keys += kv_head * key_head
    values += kv_head * value_head
    key_scales += kv_head * (key_head // 4)
    value_scales += kv_head * (value_head // 4)
    top = tl.full([BLOCK_M], float("-inf"), tl.float32)
    total = tl.full([BLOCK_M], 0.0, tl.float32)
    acc = tl.full([BLOCK_M, BLOCK_V], 0.0, tl.float32)
    for start in range(lo, hi, BLOCK_N):
        at = start + tl.arange(0, BLOCK_N)
        inside = at < hi
        slot = tl.load(gathered + place + at, mask=at < end, other=0)
        slot = tl.where(base < 0, slot, base + at).to(tl.int64)
        mask = inside[:, None] & (k_feature < K_DIM)[None, :]
        lines = slot * K_ROW
        if TURNED:
            if base == -2:
                k = load_turned(
                    keys,
                    key_scales,
                    lines,
                    inside,
                    cos,
                    sin,
                    shift_line + place + at,
                    k_feature,
                    K_DIM,
                    START,
                    ROTATED,
                    INTERLEAVED,
                    INT8,
                )
            else:
                k = load(keys, key_scales, lines, k_feature, mask, K_DIM, INT8)
        else:
            k = load(keys, key_scales, lines, k_feature, mask, K_DIM, INT8)
        mask = inside[:, None] & (v_feature < V_DIM)[None, :]
        v = load(values, value_scales, slot * V_ROW, v_feature, mask, V_DIM, INT8).to(q.dtype)

        scores = product(q, tl.trans(k.to(q.dtype))) * scale
        if CAPPED:
            scores = softcap * (1.0 - 2.0 / (tl.exp2(scores / softcap * (2.0 * LOG2E)) + 1.0))
        distance = delta[:, None] - (first + at)[None, :]
        seen = inside[None, :] & (distance >= 0) & (distance < window)
        scores = tl.where(seen, scores * LOG2E, float("-inf"))
        higher = tl.maximum(top, tl.max(scores, 1))
        safe = tl.where(higher == float("-inf"), 0.0, higher)  # -inf - -inf would be NaN
        weights = tl.exp2(scores - safe[:, None])
        shrunk = tl.exp2(top - safe)
        total = total * shrunk + tl.sum(weights, 1)
        acc = acc * shrunk[:, None] + product(weights.to(v.dtype), v)
        top = higher

    some = tl.where(total == 0.0, 1.0, total)
    line = (part + local).to(tl.int64) * heads + head
    tl.store(lse + line, top + tl.log2(some), mask=live)
    mask = live[:, None] & (v_feature < V_DIM)[None, :]
    tl.store(partial + line[:, None] * V_DIM + v_feature[None, :], acc / some[:, None], mask=mask)


@triton.jit
def merge(
    partial,
    lse,
    ends,
    parts,
    sinks,
    out,
    heads,
    V_DIM: tl.constexpr,
    SINKS: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_H: tl.constexpr,
    BLOCK_V: tl.constexpr,
):
    """One token and BLOCK_H query heads: weigh its partial results by their share of the softmax, a sink counted once.

    Token t has the results ``parts[ends[t] : ends[t + 1]]``. ``out [tokens, heads, V_DIM]``; 0 where there are none.
    """
    token = tl.program_id(0)
    head = tl.program_id(1) * BLOCK_H + tl.arange(0, BLOCK_H)
    begin = tl.load(ends + token)
    end = tl.load(ends + token + 1)
    feature = tl.arange(0, BLOCK_V)
    top = tl.full([BLOCK_H], float("-inf"), tl.float32)
    total = tl.full([BLOCK_H], 0.0, tl.float32)
    acc = tl.full([BLOCK_H, BLOCK_V], 0.0, tl.float32)
    if SINKS:
        top = tl.load(sinks + head, mask=head < heads, other=0.0).to(tl.float32) * LOG2E
        total += 1.0
    for start in range(begin, end, BLOCK_P):
        at = start + tl.arange(0, BLOCK_P)
        live = (at < end)[:, None] & (head < heads)[None, :]
        line = tl.load(parts + at, mask=at < end, other=0).to(tl.int64)[:, None] * heads + head[None, :]
        share = tl.load(lse + line, mask=live, other=float("-inf"))
        higher = tl.maximum(top, tl.max(share, 0))
        safe = tl.where(higher == float("-inf"), 0.0, higher)
        weights = tl.exp2(share - safe[None, :])
        shrunk = tl.exp2(top - safe)
        mask = live[:, :, None] & (feature < V_DIM)[None, None, :]
        tile = tl.load(partial + line[:, :, None] * V_DIM + feature[None, None, :], mask=mask, other=0.0)
        acc = acc * shrunk[:, None] + tl.sum(weights[:, :, None] * tile, 0)
        total = total * shrunk + tl.sum(weights, 0)
        top = higher
    acc = acc / tl.where(total == 0.0, 1.0, total)[:, None]
    line = token.to(tl.int64) * heads + head
    mask = (head < heads)[:, None] & (feature < V_DIM)[None, :]
    tl.store(out + line[:, None] * V_DIM + feature[None, :], acc.to(out.dtype.element_ty), mask=mask)
