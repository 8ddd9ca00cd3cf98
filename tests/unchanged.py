"""Engines and blocks whose contents are compared before and after something that must change nothing."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor

import local_backend
from families import build, random_ids
from kvorum import Block, Engine, Row, View

MODEL = build("llama")


def new(tokens: int = 160, **options: Any) -> Engine:
    return Engine(MODEL, kv_tokens=tokens, page_size=4, **options)


def filled(engine: Engine, *lengths: int) -> list[Block]:
    made = [engine.block(f"b{at}") for at in range(len(lengths))]
    for at, (block, length) in enumerate(zip(made, lengths, strict=True)):
        if length:
            engine.forward([Row(View(block), ids=random_ids(length, at).tolist())])
    return made


def contents(engine: Engine, blocks: Sequence[Block]) -> list[Any]:
    """Everything a block is, and what the pool and the ledger say."""
    told: list[Any] = [engine.pool.free, engine.ledger.tokens, engine.ledger.kv_written]
    for block in blocks:
        slots = block.table.slot_tensor(0, len(block))
        stored = [t[:, slots].clone() for t in (*local_backend.cache(engine).keys, *local_backend.cache(engine).values)]
        told.append((block.ids, block.sealed, block.table.capacity, block.logits, stored))
    return told


def equal(left: Any, right: Any) -> bool:
    if isinstance(left, Tensor):
        return torch.equal(left, right)
    if isinstance(left, list | tuple):
        return len(left) == len(right) and all(map(equal, left, right))
    return bool(left == right)


@contextmanager
def refused(
    engine: Engine, blocks: Sequence[Block], error: type[BaseException], match: str | None = None
) -> Iterator[None]:
    """The body raises exactly ``error`` and leaves everything as it was."""
    before = contents(engine, blocks)
    with pytest.raises(error, match=match) as caught:
        yield
    assert type(caught.value) is error
    gc.collect()
    assert equal(contents(engine, blocks), before)


def goes_on(engine: Engine, blocks: Sequence[Block]) -> None:
    """A later tick over all blocks is what a fresh engine makes of the same tokens."""
    got = engine.forward([Row(View(*blocks, engine.block()), ids=[5])]).logits
    other = new()
    copies = []
    for block in blocks:
        copies.append(other.block())
        if len(block):
            other.forward([Row(View(copies[-1]), ids=block.ids)])
    expected = other.forward([Row(View(*copies, other.block()), ids=[5])]).logits
    assert torch.allclose(got, expected, atol=1e-4)


ONE = [3]
