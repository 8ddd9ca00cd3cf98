"""Speculation against the same engine without it: the same tokens and log-probabilities, to the last bit, and the same
pages, at any temperature, with penalties, grammars and stop strings; a sample here, a thousand runs in the slow lane.

Covers streams that share ticks, caches in float32, float16 and int8, programs with their budgets, traces, replays and
resumes, rows that see each other's words, what stands ahead of a block's end and how it goes away, and where there is
no speculation. Forms, agents, chats and crews: ``test_speculation_programs.py``. Not covered: speed
(``kvorum bench --speculation``).
"""

from __future__ import annotations

import asyncio
import functools
import io
import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from transformers import LlamaConfig, LlamaForCausalLM

import toy_engine
from grammar_texts import KINDS
from kvorum import Budget, Engine, Grammar, Row, Sampling, View
from kvorum.backends.fake import FakeBackend
from kvorum.bench import speculation as bench
from kvorum.bench import speculation_report
from kvorum.bench.machine import describe_machine
from kvorum.engine.budget import Ledger
from kvorum.engine.speculation.depth import COST, CROWD, DEEPEST, Record, depth
from kvorum.engine.speculation.repeats import Repeats
from kvorum.errors import BadRequest, OutOfPages
from kvorum.kv import Block
from kvorum.models.packed.products import native_path
from kvorum.models.packed.quantize import quantize_model
from kvorum.programs import find

WORDS = "the cat sat on the mat, the dog sat on the cat; "


@functools.cache
def packed() -> LlamaForCausalLM:
    """A tiny random Llama in packed weights. It loops when it is greedy, so that much of it can be foreseen."""
    made = toy_engine.model(seed=5)
    config = LlamaConfig(
        vocab_size=made.config.vocab_size,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        bos_token_id=None,
        eos_token_id=made.config.eos_token_id,
        pad_token_id=None,
    )
    torch.manual_seed(2)
    model = LlamaForCausalLM(config)
    model.eval()
    quantize_model(model)
    return model


def engine(speculate: bool | None, kind: str = "fake", **options: Any) -> Engine:
    """An engine of that kind: "packed" weights on the native kernels, or the "fake" backend, which has none. "packed
    int8": over a cache of that dtype."""
    if kind == "fake":
        backend = FakeBackend(266, ends=[265], **options)
        return Engine(backend, toy_engine.tokenizer(), speculate=speculate)
    if native_path() is None:
        pytest.skip("needs kvorum-native")
    kept = kind.removeprefix("packed").strip()
    options = {"kv_tokens": 4096, **({"kv_dtype": kept} if kept else {}), **options}
    return Engine(packed(), toy_engine.tokenizer(), weights="packed", speculate=speculate, **options)


def drawn(seed: int) -> tuple[list[dict[str, Any]], list[int]]:
    """What to decode: of each of some streams the arguments, and the prompt that all see."""
    die = random.Random(seed)
    alphabet = die.sample(range(97, 123), 4)
    prompt = [int(i) for i in toy_engine.tokenizer()(WORDS * die.randint(1, 3))["input_ids"]]
    prompt += die.choices(alphabet, k=die.randint(1, 40))
    streams: list[dict[str, Any]] = []
    for _ in range(die.choice([1, 1, 2, 3])):
        grammar = KINDS[die.choice(list(KINDS))] if die.random() < 0.3 else None
        if grammar is None and die.random() < 0.2:
            grammar = Grammar.json({"const": {"items": [1, 2, 3] * 3, "name": "the cat sat"}})
        few = dict.fromkeys(alphabet, 9.0) if die.random() < 0.6 else {}
        sampling = Sampling(
            temperature=die.choice([0.0, 0.0, 0.3, 1.0]),
            top_k=die.choice([0, 0, 5]),
            top_p=die.choice([1.0, 0.9]),
            min_p=die.choice([0.0, 0.05]),
            repetition_penalty=die.choice([1.0, 1.0, 1.2]),
            frequency_penalty=die.choice([0.0, 0.0, 0.3]),
            presence_penalty=die.choice([0.0, 0.2]),
            dry_multiplier=die.choice([0.0, 0.0, 0.5]),
            logit_bias=few,
            grammar=grammar,
            seed=die.randrange(1000),
        )
        stop = [die.choice(["ab", "\n", "z"])] if die.random() < 0.3 else []
        streams.append(
            {"sampling": sampling, "stop": stop, "max_tokens": die.randint(1, 60), "forced": die.random() < 0.3}
        )
    return streams, prompt


def written(engine: Engine, seed: int) -> tuple[list[Any], Ledger]:
    """Every stream's tokens with their log-probabilities and reasons, and how many pages were free at each."""
    streams, prompt = drawn(seed)
    ledger = Ledger()
    text = engine.block("prompt")
    engine.forward([Row(View(text), ids=prompt[:-1])])

    async def one(at: int, options: dict[str, Any]) -> list[Any]:
        own = engine.block()
        view = View(text, own)
        found: list[Any] = []
        async for token in engine.decode(view, ids=prompt[-1:], stream=at, top=at, ledger=ledger, **options):
            pages = (len(own), len(own.table), engine.pool.free if len(streams) == 1 else 0)
            found.append((int(token), token.text, repr(token.logprob), token.finish, repr(token.top), pages))
        assert own.logits is not None
        return [*found, own.ids, own.logits.tolist()]

    async def every() -> list[Any]:
        return list(await asyncio.gather(*(one(at, options) for at, options in enumerate(streams))))

    return asyncio.run(every()), ledger


def same(kind: str, seeds: range) -> Ledger:
    """Compare with and without; what was supposed, and came, all together."""
    ahead, plain = engine(True, kind), engine(False, kind)
    total = Ledger()
    for seed in seeds:
        found, ledger = written(ahead, seed)
        expected, before = written(plain, seed)
        assert found == expected, seed
        assert (ledger.ticks, ledger.decoded, ledger.prefill) == (before.ticks, before.decoded, before.prefill), seed
        assert ledger.kv_written == before.kv_written
        assert ahead.pool.free == plain.pool.free
        total.add(ledger)
    return total


KINDS_OF_ENGINES = ["packed", "packed int8", "packed float16", "fake"]


@pytest.mark.parametrize("kind", KINDS_OF_ENGINES)
def test_streams_to_the_last_bit(kind: str) -> None:
    total = same(kind, range(20))
    assert total.accepted > 50, "what comes true often enough to be a test"
    assert total.drafted > total.accepted, "and what does not"


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS_OF_ENGINES)
def test_a_thousand_runs_to_the_last_bit(kind: str) -> None:
    """Of each two kinds together."""
    assert same(kind, range(1000, 1500)).accepted > 2000


@pytest.mark.parametrize("program", ["plain", "solo", "vote", "hogwild", "async_reasoning"])
def test_programs_and_their_traces(program: str, tmp_path: Path) -> None:
    """The same tokens in the same ticks, on the same budget; a trace repeats under either, and goes on after a kill."""
    made = {on: engine(on) for on in (True, False)}
    options: dict[str, Any] = {"budget": Budget(ticks=60), "sampling": Sampling(temperature=0.3, top_k=3), "seed": 4}
    if find(program).most_workers != 1 and program != "async_reasoning":
        options["workers"] = 4 if program == "vote" else 2
    runs = {
        on: one.run(find(program), WORDS * 2, trace=tmp_path / f"{on}.jsonl", **options) for on, one in made.items()
    }
    ids = {on: [worker.ids for worker in run.workers] for on, run in runs.items()}
    assert ids[True] == ids[False]
    assert runs[True].answer == runs[False].answer
    assert runs[True].ledger.ticks == runs[False].ledger.ticks
    events = {on: [json.loads(line) for line in (tmp_path / f"{on}.jsonl").read_text().splitlines()] for on in made}
    told = [row for event in events[True] if event["event"] == "tick" for row in event["rows"]]
    assert sum(row.get("drafted", 0) for row in told) == runs[True].ledger.drafted
    assert sum(row.get("ahead", False) for row in told) == runs[True].ledger.accepted
    if program in ("hogwild", "async_reasoning"):
        assert not any(row.get("ahead") for row in told), "who sees unfinished words supposes nothing"
    ticks = [at for at, event in enumerate(events[True]) if event["event"] == "tick"]
    for on, whole in (((True, False), events[True]), ((False, True), events[False])):
        again = made[on[1]].run(find(program), WORDS * 2, replay=whole, **options)
        assert not again.differences
    cut = events[True][: ticks[len(ticks) // 2] + 1]
    resumed = made[True].run(find(program), WORDS * 2, replay=cut, **options)
    assert [worker.ids for worker in resumed.workers] == ids[True]


def test_four_questions_of_one_text() -> None:
    """Rows that wait for each other: what is supposed of them is worth as much as all of it comes."""
    asked = ["the cat?", "the mat?", "the dog?", "who sat on the cat?"]
    made = {on: engine(on, "packed") for on in (True, False)}
    told = {on: one.ask(WORDS * 4, asked, tokens=40) for on, one in made.items()}
    assert [one.text for one in told[True].answers] == [one.text for one in told[False].answers]
    assert made[True].ledger.ticks == made[False].ledger.ticks
    assert made[True].ledger.drafted > 0


def test_a_row_is_taken_over_and_what_does_not_come_goes_away() -> None:
    one = engine(True, page_size=4)
    block = one.block()
    free = one.pool.free
    block.append([1, 2, 3])
    count, loan = block.suppose([4, 5, 6])
    assert (count, len(block), len(block.table), len(loan)) == (3, 6, 2, 1)
    block.unsuppose(count, len(loan))
    assert (block.ids, len(block.table), one.pool.free) == ([1, 2, 3], 1, free - 1), "lent pages count as free"
    one.pool.give(loan)
    assert one.pool.free == free - 1


def ahead_of(one: Engine) -> tuple[View, Block]:
    """A row that has just picked what was supposed, with more ahead of its end."""
    own = one.block()
    view = View(own)
    ids = [int(i) for i in one.tokenizer(WORDS * 3).input_ids]

    async def go() -> None:
        async for _ in one.decode(view, ids=ids, sampling=Sampling(logit_bias={98: 99.0}), max_tokens=40, keep=False):
            if own.ahead is not None and own.ahead.left > 2:
                break

    asyncio.run(go())
    assert own.ahead is not None
    return view, own


def test_whatever_else_is_written_drops_it() -> None:
    for act in ("append", "seal", "other token", "reserve", "full"):
        one = engine(True, page_size=4, kv_tokens=400)
        view, own = ahead_of(one)
        if act == "append":
            own.append([5])
        elif act == "seal":
            own.seal()
        elif act == "other token":
            one.forward([Row(view, ids=[7])])
        elif act == "reserve":
            own.reserve(64)
        else:  # lent pages are taken back where somebody needs them; what they held is computed again
            other = one.block()
            before = one.pool.free
            other.reserve(before * 4)
            assert one.pool.free == 0
            with pytest.raises(OutOfPages):
                one.block().reserve(1)
            assert not own.has_ahead(98, view.shown) or not own.table.needed(len(own) + 1)
            continue
        assert own.ahead is None, act


def test_a_tick_that_fails_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    one = engine(True, page_size=4)
    view, own = ahead_of(one)
    free, length, pages = one.pool.free, len(own), len(own.table)
    own.drop_ahead()

    def fail(work: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(one.backend, "forward", fail)

    async def go() -> None:
        async for _ in one.decode(view, ids=[98], sampling=Sampling(), max_tokens=4):
            pass

    with pytest.raises(KeyboardInterrupt):
        asyncio.run(go())
    assert (len(own), own.ahead) == (length, None)
    assert one.pool.free >= free - 1
    assert len(own.table) <= pages + 1


def test_where_bits_depend_on_company_there_is_none() -> None:
    exact = toy_engine.engine()
    assert not exact.speculates
    with pytest.raises(BadRequest, match="Speculation needs packed weights"):
        toy_engine.engine(speculate=True)
    assert engine(None).speculates
    assert not engine(False).speculates


def test_repeats_are_found_and_go_on() -> None:
    one = engine(False)
    text, own, beside = one.block(), one.block(), one.block()
    text.append([1, 2, 3, 4, 5, 6, -1, 8])
    own.append([9, 2, 3])
    repeats = Repeats()
    found = repeats.find(View(text, own), [], (), 8)
    assert (found.ids, found.length) == ([4, 5, 6], 2), "until a latent step"
    own.append([4])
    assert repeats.find(View(text, own), [5], (), 2).ids == [6]
    beside.append([0, 9, 2, 3, 4, 7])
    assert repeats.find(View(text, own), [], [beside], 8).ids == [7], "the longest repeat counts"
    own.append([30, 31, 30, 31, 30, 31])
    assert repeats.find(View(text, own), [], (), 5).ids == [30, 31, 30, 31, 30], "a loop goes on as it is"
    assert not repeats.find(View(one.block()), [], (), 5).ids


def test_how_deep() -> None:
    record = Record()
    sure, unsure = record.chances([24] * 20), record.chances([2] * 20)
    assert depth([sure], [], 1).tokens > depth([unsure], [], 1).tokens
    for _ in range(40):
        record.learn(2, came=True)
        record.learn(24, came=False)
    assert record.chance(2) > 0.8 > COST > record.chance(24), "what a text tells counts more than what texts do"
    certain = [1.0] * 50
    assert depth([certain], [], 1).tokens == DEEPEST
    assert depth([certain], [], CROWD + 1).tokens == 0
    assert depth([certain, []], [], 2).tokens == 0, "rows that wait for each other gain nothing if one is not foreseen"
    assert depth([certain], [3], 2).tokens == 3
    assert depth([], [3], 1).tokens == 0
    assert depth([[0.6]], [], 1).tokens == 1
    assert depth([[0.6]], [], 10).tokens == 0, "in company a tick costs less for each row"


# -- the benchmark ----------------------------------------------------------------------------------------------------


def test_the_benchmark_compares_equal_tokens_and_says_what_came_true(monkeypatch: pytest.MonkeyPatch) -> None:
    made = engine(True, "packed", kv_tokens=16384)
    monkeypatch.setattr(bench, "TOKENS", 48)
    found = bench.measure(made, 1, lambda words: None, (1, 2))
    assert [(gain.kind, gain.temperature, gain.rows, gain.in_step) for gain in found] == [
        *((kind, temperature, 1, False) for kind in bench.prompts() for temperature in (0.0, 0.7)),
        *((kind, 0.7, 2, in_step) for in_step in (False, True) for kind in bench.prompts()),
    ]
    assert all(gain.tokens >= 40 * gain.rows and gain.accepted <= gain.drafted for gain in found)
    assert any(gain.accepted for gain in found)
    assert made.speculates, "it is left as it was"
    shown = io.StringIO()
    speculation_report.show_gains(found, "toy", describe_machine(), Console(file=shown, width=120))
    assert "code editing" in shown.getvalue()
    assert "2 in step" in shown.getvalue()
    with pytest.raises(BadRequest, match="loaded without speculation"):
        bench.measure(engine(False), 1, lambda words: None)
