"""``decode`` and the scheduler: streams of tokens that share ticks and do not disturb each other.

Covers greedy and sampled streams against a loop over ``forward``, shared ticks and the ledger, stop strings, end
tokens, lengths, banned ids, going on from a block, breaking off, cancelling, and mistakes of the caller. A tiny random
model with a made-up alphabet as tokenizer; the real one is in ``test_exactness.py``. Not covered: programs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
import torch

from families import VOCAB, build, random_ids
from kvorum import Cost, Engine, Row, Sampling, Token, View
from kvorum.errors import BadRequest, BadRow, NotWritable, SealedBlock
from kvorum.sampling.reference import pick
from kvorum.sampling.sampling import Draw

MODEL = build("llama")


class Alphabet:
    """Token i is the i-th letter from "!" on."""

    eos_token_id = None

    def decode(self, ids: Sequence[int], **_: Any) -> str:
        return "".join(chr(33 + token) for token in ids)

    def __call__(self, text: str, **_: Any) -> dict[str, list[int]]:
        return {"input_ids": [ord(letter) - 33 for letter in text]}


@pytest.fixture
def engine() -> Engine:
    return Engine(MODEL, Alphabet(), kv_tokens=1024, page_size=4, prefill_chunk=16, seed=7)


def ids(count: int, seed: int) -> list[int]:
    return random_ids(count, seed).tolist()


async def take(engine: Engine, view: View, **options: Any) -> list[Token]:
    return [token async for token in engine.decode(view, **options)]


def stream(engine: Engine, view: View, **options: Any) -> list[Token]:
    return asyncio.run(take(engine, view, **options))


def looped(engine: Engine, prompt: list[int], count: int, sampling: Sampling, stream: int = 0) -> list[int]:
    """The same with ``forward`` and ``pick`` alone."""
    view, out, pending = View(engine.block()), [], prompt
    for _ in range(count):
        logits = engine.forward([Row(view, ids=pending)]).logits[0]
        seed = engine.seed if sampling.seed is None else sampling.seed
        own = view.own
        assert own is not None
        pending = [pick(logits, Draw(sampling, seed, stream, step=len(own))).id]
        out += pending
    return out


@pytest.mark.parametrize("sampling", [Sampling(), Sampling(temperature=1.0, top_p=0.9), Sampling(1.0, seed=3)])
def test_a_stream_is_a_loop_over_forward(engine: Engine, sampling: Sampling) -> None:
    prompt, view = ids(9, 1), View(engine.block())
    got = stream(engine, view, ids=prompt, sampling=sampling, max_tokens=12)
    assert got == looped(engine, prompt, 12, sampling)
    assert [token.finish for token in got] == [None] * 11 + ["length"]
    own = view.own
    assert own is not None
    assert own.ids == prompt + got
    assert "".join(token.text for token in got) == Alphabet().decode(got)
    assert all(token.logprob < 0 for token in got)
    assert got[0].id == int(got[0])


def test_streams_share_ticks_and_are_as_if_alone(engine: Engine) -> None:
    """Three streams that see each other's prompt: as many ticks as the longest takes, and the tokens of each alone."""
    sampling = Sampling(temperature=1.0)
    prompts = [ids(5, 1), ids(8, 2), ids(3, 3)]
    alone = [looped(engine, prompt, 10, sampling, at) for at, prompt in enumerate(prompts)]
    engine.ledger.ticks = engine.ledger.decoded = engine.ledger.prefill = 0

    async def together() -> list[list[Token]]:
        return await asyncio.gather(
            *(
                take(engine, View(engine.block()), ids=prompt, sampling=sampling, max_tokens=10, stream=at)
                for at, prompt in enumerate(prompts)
            )
        )

    assert asyncio.run(together()) == alone
    assert engine.ledger.ticks == 11
    assert (engine.ledger.prefill, engine.ledger.decoded) == (16, 30)


def test_streams_that_see_each_other_do_so_in_the_same_tick(engine: Engine) -> None:
    a, b = engine.block(), engine.block()
    first, second = ids(4, 1), ids(4, 2)

    async def together() -> tuple[list[Token], list[Token]]:
        one = take(engine, View(b, a), ids=first, max_tokens=6)
        return await asyncio.gather(one, take(engine, View(a, b), ids=second, max_tokens=6))

    got = asyncio.run(together())
    c, d = engine.block(), engine.block()
    pending = [first, second]
    for _ in range(6):
        logits = engine.forward([Row(View(d, c), ids=pending[0]), Row(View(c, d), ids=pending[1])]).logits
        pending = [[int(token)] for token in logits.argmax(-1)]
        for own, token in zip((c, d), pending, strict=True):
            assert token[0] == got[0 if own is c else 1][len(own) - 4]
    assert a.ids[:-1] == c.ids


def test_seeds_and_streams(engine: Engine) -> None:
    def run(seed: int | None, number: int) -> list[Token]:
        sampling = Sampling(temperature=1.0, seed=seed)
        return stream(engine, View(engine.block()), ids=[5], sampling=sampling, max_tokens=12, stream=number)

    assert run(1, 0) == run(1, 0)
    assert run(None, 0) == run(7, 0)  # the engine's own
    assert len({tuple(run(seed, number)) for seed, number in ((1, 0), (2, 0), (1, 1))}) == 3


def test_stop_strings(engine: Engine) -> None:
    """The text before the mark is given, the mark itself is not, and the ids stay in the block."""
    free = stream(engine, View(engine.block()), ids=[5], sampling=Sampling(1.0), max_tokens=12)
    text = "".join(token.text for token in free)
    for lo, hi in ((4, 5), (3, 6), (0, 1)):
        mark = text[lo:hi]
        end = text.index(mark) + len(mark)
        for marks in ([mark], mark, ["~~~~", mark], [mark, text]):
            view = View(engine.block())
            got = stream(engine, view, ids=[5], sampling=Sampling(1.0), stop=marks, max_tokens=12)
            own = view.own
            assert own is not None
            assert got == free[:end]
            assert got[-1].finish == "stop"
            assert "".join(token.text for token in got) == text[: end - len(mark)]
            assert own.ids == [5, *free[:end]]
    got = stream(engine, View(engine.block()), ids=[5], sampling=Sampling(1.0), stop=["", "~~~~"], max_tokens=12)
    assert got == free


def test_end_tokens(engine: Engine) -> None:
    free = stream(engine, View(engine.block()), ids=[5], sampling=Sampling(1.0), max_tokens=12)
    engine.tokenizer.eos_token_id = int(free[6])
    view = View(engine.block())
    got = stream(engine, view, ids=[5], sampling=Sampling(1.0), max_tokens=12)
    end = free.index(free[6]) + 1
    assert got == free[:end]
    assert got[-1].finish == "end"
    own = view.own
    assert own is not None
    assert own.ids == [5, *got]


def test_banned_tokens_never_come(engine: Engine) -> None:
    banned = tuple(range(0, VOCAB, 2))
    for sampling in (Sampling(banned=banned), Sampling(temperature=2.0, banned=banned)):
        got = stream(engine, View(engine.block()), ids=[5], sampling=sampling, max_tokens=30)
        assert all(token % 2 == 1 for token in got)


def test_going_on_from_a_block(engine: Engine) -> None:
    """In two halves, in one, from a prefill by ``forward``: the same tokens."""
    whole = stream(engine, View(engine.block()), ids=ids(4, 1), sampling=Sampling(1.0), max_tokens=10)
    view = View(engine.block())
    engine.forward([Row(view, ids=ids(4, 1))])
    first = stream(engine, view, sampling=Sampling(1.0), max_tokens=4)
    assert first + stream(engine, view, sampling=Sampling(1.0), max_tokens=6) == whole


def test_breaking_off_leaves_the_last_token_unwritten(engine: Engine) -> None:
    view = View(engine.block())

    async def some() -> list[int]:
        out = []
        decoding = engine.decode(view, ids=[5])
        async for token in decoding:
            out.append(int(token))
            if len(out) == 4:
                break
        return out

    got = asyncio.run(some())
    own = view.own
    assert own is not None
    assert own.ids == [5, *got[:3]]


def test_a_cancelled_stream_does_not_hold_up_others(engine: Engine) -> None:
    expected = looped(engine, [6], 10, Sampling())
    view = View(engine.block())

    async def both() -> list[Token]:
        gone = asyncio.create_task(take(engine, View(engine.block()), ids=[5], max_tokens=500))
        stays = asyncio.create_task(take(engine, view, ids=[6], max_tokens=10))
        while len(view) < 4:
            await asyncio.sleep(0)
        gone.cancel()
        with pytest.raises(asyncio.CancelledError):
            await gone
        return await stays

    assert asyncio.run(both()) == expected


def test_a_cancelled_long_prefill_leaves_nothing(engine: Engine) -> None:
    view, own = View(engine.block()), engine.block()
    rows = [Row(View(*view.items[:0], own), ids=ids(90, 4))]

    async def go() -> None:
        task = asyncio.create_task(engine.scheduler.submit(rows, [Cost()]))
        while len(own) < 20:
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(go())
    assert len(own) == 0
    assert engine.forward(rows).logits.shape == (1, VOCAB)
    assert len(own) == 90


def test_long_prefills_do_not_hold_up_others(engine: Engine) -> None:
    """Ninety tokens go in parts of 16 beside a stream; both are as if alone, and the parts share its ticks."""
    expected = looped(engine, [6], 10, Sampling())
    whole = engine.forward([Row(View(engine.block()), ids=ids(90, 4))]).logits[0]
    engine.ledger.ticks = 0

    async def both() -> tuple[Any, list[Token]]:
        prefill = engine.scheduler.submit([Row(View(engine.block()), ids=ids(90, 4))], [Cost()])
        return await asyncio.gather(prefill, take(engine, View(engine.block()), ids=[6], max_tokens=10))

    reply, got = asyncio.run(both())
    assert got == expected
    assert torch.allclose(reply.output.logits[0], whole, atol=1e-4)
    assert engine.ledger.ticks == 11
    assert (reply.cost.ticks, reply.cost.prefill, reply.cost.decoded) == (6, 90, 0)


def test_a_long_row_counts_what_was_decoded(engine: Engine) -> None:
    reply = asyncio.run(engine.scheduler.submit([Row(View(engine.block()), ids=ids(40, 4))], [Cost(1)]))
    assert (reply.cost.prefill, reply.cost.decoded) == (39, 1)


def test_replies_bear_their_own_share(engine: Engine) -> None:
    """What groups are charged adds up to what the engine spent, shared bytes read once."""
    shared = engine.block()
    engine.forward([Row(View(shared), ids=ids(12, 1))])
    before = engine.ledger.kv_read, engine.ledger.kv_written

    async def go() -> list[Any]:
        groups = [[Row(View(shared, engine.block()), ids=[at])] for at in range(3)]
        return await asyncio.gather(*(engine.scheduler.submit(rows, [Cost(1)]) for rows in groups))

    replies = asyncio.run(go())
    size = engine.pool.bytes_per_token
    assert engine.ledger.kv_read - before[0] == (12 + 3) * size
    assert engine.ledger.kv_written - before[1] == 3 * size
    assert [reply.cost.kv_read for reply in replies] == [5 * size] * 3
    assert [reply.cost.kv_written for reply in replies] == [size] * 3


def test_mistakes_of_the_caller(engine: Engine) -> None:
    block = engine.block()
    for view, options, error in (
        (View(), {"ids": [1]}, NotWritable),
        (View(engine.block().seal()), {"ids": [1]}, SealedBlock),
        (View(block), {}, BadRequest),
        (View(block), {"ids": [1], "max_tokens": 0}, BadRequest),
        (View(block), {"ids": []}, BadRow),
        (View(block), {"ids": [VOCAB]}, BadRow),
    ):
        with pytest.raises(error):
            stream(engine, view, **options)
    assert len(block) == 0


def test_a_new_event_loop_each_time(engine: Engine) -> None:
    """The scheduler belongs to no loop: run after run, also after one that was cut off in the middle."""
    view = View(engine.block())
    first = stream(engine, view, ids=[5], max_tokens=3)

    async def cut() -> None:
        await asyncio.wait_for(take(engine, View(engine.block()), ids=[5], max_tokens=100_000), 0.05)

    with pytest.raises(TimeoutError):
        asyncio.run(cut())
    assert stream(engine, View(engine.block()), ids=[5], max_tokens=3) == first
