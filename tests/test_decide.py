"""Decisions against plain forwards of the model: the same numbers for whole options, in any company and order."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

import toy_engine
from engines import model_of
from kvorum import Budget, Choice, Decisions, Engine, Option, Row, Run, Sampling, Score, Task, View, YesNo, program
from kvorum.errors import BadRequest, OutOfPages
from kvorum.harness.decisions.answers import Decision
from kvorum.harness.decisions.decide import decide as decide_in
from kvorum.harness.decisions.option_trie import OptionTrie
from kvorum.harness.decisions.prompts import orders_of
from kvorum.harness.decisions.questions import Question
from kvorum.models.load import load_model
from kvorum.programs import decide as program_decide
from kvorum.store.kept_blocks import KeptBlocks
from kvorum.store.traces import read as read_trace

STATE = "The pump in the cellar is wet and the valve above it drips. Nobody has called the plumber."
ASKED: list[Question] = [
    YesNo("Is the pump wet?", "wet"),
    Choice("What drips?", "drips", options=["valve", "valve above", "pump", Option("pipe", "a pipe"), True, "true"]),
    Score("How urgent is it?", "urgent", levels=["not at all", "this week", "now"]),
]
LEAD = "You judge a text.\n\n"


LINES = ("- valve\n", "- valve above\n", "- pump\n", "- pipe: a pipe\n", "- true\n", '- "true"\n')
REQUEST = "Answer with one of these options, word for word:\n"


def plain_logprobs(
    engine: Engine, prompt: Sequence[int], labels: Sequence[Sequence[int]], ends: Sequence[int] = ()
) -> list[float]:
    """Each label's log-probability behind a prompt by transformers alone; ``ends``: with one of these behind it."""
    found, model = [], model_of(engine)
    for label in labels:
        with torch.no_grad():
            lines = model(torch.tensor([[*prompt, *label]])).logits[0].double().log_softmax(-1)[len(prompt) - 1 :]
        total = sum(float(lines[at, token]) for at, token in enumerate(label))
        if ends:
            total += float(lines[len(label), list(ends)].logsumexp(0))
        found.append(total)
    return found


def normal(scores: Sequence[float]) -> list[float]:
    return torch.tensor(scores, dtype=torch.float64).softmax(0).tolist()


def toy_prompt(asked: Question) -> str:
    """What a model without a chat template reads, written out by hand."""
    if isinstance(asked, YesNo):
        words = f"Question: {asked.text} Answer with Yes or No."
    elif isinstance(asked, Score):
        levels = "".join(f"\n{at}: {level}" for at, level in enumerate(asked.levels))
        words = f"Question: {asked.text}{levels}\nAnswer with the number of a level."
    else:
        words = f"Question: {asked.text}\n{REQUEST}{''.join(LINES)}"
    return f"{LEAD}{STATE}\n\n{words}\n\nAnswer:"


@pytest.mark.parametrize("dtype", [torch.float64, pytest.param(torch.float32, marks=pytest.mark.forward)])
def test_whole_options_have_the_plain_forwards_probabilities(dtype: torch.dtype) -> None:
    engine = toy_engine.engine(dtype)
    found = engine.decide(STATE, ASKED)
    assert found.ledger.ticks == 1
    newline = engine.tokenizer("\n").input_ids
    for decision in found:
        question = decision.question
        prompt = engine.tokenizer(toy_prompt(question)).input_ids
        labels = [engine.tokenizer(f" {label}").input_ids for label in question.labels]
        beginnings = isinstance(question, Choice)  # "valve" begins "valve above"
        scores = plain_logprobs(engine, prompt, labels, [*newline, *engine.ends] if beginnings else [])
        near = 1e-6 if dtype == torch.float64 else 2e-4  # transformers turns keys in float32
        assert decision.probabilities == pytest.approx(normal(scores), abs=near)
        assert decision.mass == pytest.approx(sum(map(math.exp, scores)), rel=1e-5 if dtype == torch.float64 else 1e-3)
    assert found["wet"].question is ASKED[0] or found["wet"].name == "wet"
    assert [type(option.value) for option in found["drips"].question.answers[-2:]] == [bool, str]


def test_a_longer_option_takes_nothing_from_the_one_it_begins_with() -> None:
    """Without their ends "valve" would always beat "valve above"."""
    trie = OptionTrie([[1, 2], [1, 2, 3], [4]], ends=[9])
    assert trie.whole
    assert sorted(map(tuple, (branch.ids for branch in trie.branches))) == [(1, 2, 3), (4,)]
    free = OptionTrie([[1, 2], [1, 3], [4]], ends=[9])
    assert not free.whole
    assert [branch.ids for branch in free.branches] == [[1]]
    assert OptionTrie([[1], [2]], ends=[9]).branches == []
    logits = torch.zeros(10)
    logits[3] = 8.0
    assert trie.score(logits, [logits.repeat(len(branch.ids), 1) for branch in trie.branches])[0] < -20


def test_several_orders_are_the_mean_of_views_over_two_lists() -> None:
    """Against a dense forward: options see those before them in the list as it was encoded, forwards or backwards, and
    what follows sees them at the places where the order has them."""
    engine = toy_engine.engine(torch.float64)
    question = Choice("What drips?", options=["valve", "valve above", "pump", "tap"])
    found = engine.decide(STATE, question, orders=4)[0]

    def encode(words: str) -> list[int]:
        return list(engine.tokenizer(words).input_ids)

    head = encode(f"{LEAD}{STATE}\n\nQuestion: {question.text}\n{REQUEST}")
    lines = [encode(f"- {label}\n") for label in question.labels]
    ends = [*encode("\n"), *engine.ends]
    forwards, backwards = (0, 1, 2, 3), (3, 2, 1, 0)
    orders = [(forwards, (0, 1, 2, 3)), (backwards, (3, 2, 1, 0)), (forwards, (2, 3, 0, 1)), (backwards, (1, 0, 3, 2))]
    assert [(order.encoded, order.seen) for order in orders_of(4, 4)] == orders
    means = torch.zeros(4, dtype=torch.float64)
    for encoded, seen in orders:
        starts = {at: len(head) + sum(len(lines[one]) for one in seen[: seen.index(at)]) for at in seen}
        scores = []
        for label in (encode(f" {words}") for words in question.labels):
            listed = [token for at in encoded for token in lines[at]]
            ids = [*head, *listed, *encode("\n\nAnswer:"), *label]
            place = torch.arange(len(ids))
            moved = list(range(len(head))) + [starts[at] + n for at in encoded for n in range(len(lines[at]))]
            moved += range(len(moved), len(ids))
            behind = place >= len(head) + len(listed)
            distance = place[:, None] - place[None, :]
            apart = place[:, None] - torch.tensor(moved)[None, :]
            distance = torch.where(behind[:, None] & ~behind[None, :], apart, distance)
            rows = toy_engine.dense(toy_engine.llama(engine), ids, distance).log_softmax(-1)[-len(label) - 1 :]
            total = sum(rows[at, token] for at, token in enumerate(label)) + rows[len(label), ends].logsumexp(0)
            scores.append(float(total))
        means += torch.tensor(normal(scores), dtype=torch.float64) / len(orders)
    assert found.orders == 4
    assert found.probabilities == pytest.approx(means.tolist(), abs=1e-9)


@pytest.mark.forward
def test_orders_encoded_anew_are_the_mean_of_plain_forwards() -> None:
    engine = toy_engine.engine()
    options = ["valve", "pump", "pipe"]
    found = engine.decide(STATE, [Choice("What drips?", options=options)], orders=2, order_by="encoded")[0]
    each = [
        engine.decide(STATE, [Choice("What drips?", options=list(order))])[0].shares
        for order in (options, options[::-1])
    ]
    for label, share in found.shares.items():
        assert share == pytest.approx((each[0][label] + each[1][label]) / 2, abs=1e-6)


@pytest.mark.parametrize("count", [1, 2, 3, 5, 8])
def test_orders_put_each_option_everywhere_and_are_the_same_set_backwards(count: int) -> None:
    for orders in (1, 2, 4, 8, 1000):
        found = [order.seen for order in orders_of(count, orders)]
        assert len(found) == len(set(found)) <= orders
        assert all(sorted(order) == list(range(count)) for order in found)
        if orders % 2 == 0:
            assert {order[::-1] for order in found} == set(found)
    for option in range(8):
        assert sorted(order.seen.index(option) for order in orders_of(8, 8)) == list(range(8))


@pytest.mark.forward
def test_a_chain_is_told_earlier_answers_and_is_plain_text_too() -> None:
    engine = toy_engine.engine()
    questions: list[Question] = [
        YesNo("Is it wet?", "a"),
        YesNo("Is it old?", "b"),
        YesNo("Is it both?", "c", ["a", "b"]),
    ]
    found = engine.decide(STATE, questions)
    told = "".join(f"Question: {one.question.text}\nAnswer: {one.label}\n\n" for one in found.items[:2])
    text = f"{LEAD}{STATE}\n\n{told}Question: Is it both? Answer with Yes or No.\n\nAnswer:"
    labels = [engine.tokenizer(words).input_ids for words in (" Yes", " No")]
    scores = plain_logprobs(engine, engine.tokenizer(text).input_ids, labels)
    assert found["c"].probabilities == pytest.approx(normal(scores), abs=1e-6)
    assert found["b"].probabilities == pytest.approx(engine.decide(STATE, questions[1:2])["b"].probabilities)
    chain = engine.decide(STATE, [YesNo(one.text, one.name) for one in questions], sees="earlier")
    assert chain["c"].probabilities == pytest.approx(found["c"].probabilities, abs=0.2)
    assert chain.ledger.ticks == 3
    with pytest.raises(BadRequest, match="its own answer"):
        engine.decide(STATE, [YesNo("x?", "a", ["b"]), YesNo("y?", "b", ["a"])])


@pytest.mark.forward
def test_prior_divides_by_what_is_answered_about_nothing() -> None:
    engine = toy_engine.engine()
    found = engine.decide(STATE, ASKED[:1], prior=True)[0]
    blanks = [engine.decide(blank, ASKED[:1])[0].probabilities for blank in ("N/A", "[MASK]")]
    nothing = engine.tokenizer(f"{LEAD}Question: Is the pump wet? Answer with Yes or No.\n\nAnswer:").input_ids
    labels = [engine.tokenizer(words).input_ids for words in (" Yes", " No")]
    blanks.append(tuple(normal(plain_logprobs(engine, nothing, labels))))
    prior = [sum(column) / 3 for column in zip(*blanks, strict=True)]
    weights = [share / other for share, other in zip(found.uncorrected, prior, strict=True)]
    assert found.probabilities == pytest.approx([weight / sum(weights) for weight in weights], abs=1e-6)
    assert found.uncorrected == engine.decide(STATE, ASKED[:1])[0].probabilities


def test_any_view_can_be_asked_and_stays_as_it_is() -> None:
    """A program that asks itself, behind what a worker has written, and goes on as if nothing had been."""

    @program("asks_itself", "writes, asks, writes on")
    async def asks(run: Run, *, look: bool = True) -> str | None:
        worker = run.workers[0]
        worker.view = View(run.block(worker.name))
        worker.feed(run.chat(("user", run.task.prompt)))
        for _ in range(4):
            await run.tick([worker])
        if look:
            run.product = await decide_in(run, worker.view, [YesNo("Has it been answered?")])
        for _ in range(4):
            await run.tick([worker])
        return worker.text

    engine = toy_engine.engine(torch.float64)
    greedy = Sampling(temperature=0.0)
    looked, not_looked = (engine.run(asks, "Say ab.", sampling=greedy, look=look) for look in (True, False))
    assert looked.answer == not_looked.answer
    assert looked.ledger.decoded == not_looked.ledger.decoded
    [decision] = looked.product
    ids = [*engine.tokenizer("Say ab.\n\n").input_ids, *looked.workers[0].ids[:3]]
    ids += engine.tokenizer("\n\nQuestion: Has it been answered? Answer with Yes or No.\n\nAnswer:").input_ids
    labels = [engine.tokenizer(words).input_ids for words in (" Yes", " No")]
    assert decision.probabilities == pytest.approx(normal(plain_logprobs(engine, ids, labels)), abs=1e-6)
    block = engine.block()
    engine.forward([Row(View(block), ids=ids[:12])])
    by_block, by_view = (engine.decide(state, ["Is it?"]) for state in (block, View(block)))
    assert by_block[0].probabilities == by_view[0].probabilities
    assert len(block) == 12
    head, rest = engine.block(), engine.block()
    engine.forward([Row(View(head), ids=ids[:5])])
    engine.forward([Row(View(head, rest), ids=ids[5:12])])
    assert engine.decide([head, rest], ["Is it?"])[0].probabilities == pytest.approx(
        by_view[0].probabilities, abs=1e-12
    )
    inside = engine.run(
        program_decide,
        "Is it?",
        questions=[{"type": "noul", "instructions": "Is it?"}],
        state=[head, rest],  # type: ignore[arg-type]
    )
    assert inside.product[0].probabilities == pytest.approx(by_view[0].probabilities, abs=1e-12)


@pytest.mark.forward
@pytest.mark.parametrize("words", [STATE, f"{STATE} " * 12, "Wet."])
def test_a_kept_state_gives_the_same_shares_and_ledger_and_is_not_encoded_again(tmp_path: Path, words: str) -> None:
    """To rounding: plain float32 products depend on how many rows there are. The same bits have a test of their own."""
    kept = KeptBlocks(tmp_path)
    found = [
        toy_engine.engine(torch.float32, prefill_chunk=128).decide(words, ASKED, kept=where)
        for where in (None, kept, kept)
    ]
    assert len(list(tmp_path.glob("*/*.safetensors"))) == 1
    engine = toy_engine.engine(torch.float32, prefill_chunk=128)
    before = engine.ledger.prefill
    other = engine.decide(words, [YesNo("Is it old?")], kept=kept)
    computed = engine.ledger.prefill - before
    assert computed < other.ledger.prefill - 3
    for again in found[2:]:
        for one, first in zip(again, found[1], strict=True):
            assert one.probabilities == pytest.approx(first.probabilities, abs=1e-6)
        assert again.ledger.as_dict() | {"seconds": 0} == found[1].ledger.as_dict() | {"seconds": 0}
    for one, plain in zip(found[1], found[0], strict=True):
        assert one.probabilities == pytest.approx(plain.probabilities, abs=1e-6)
    assert found[0].ledger.tokens == found[1].ledger.tokens
    budget = Budget(tokens=other.ledger.tokens - 1)
    assert not len(toy_engine.engine(torch.float32).decide(words, ["Is it old?"], kept=kept, budget=budget))


def test_the_real_model_says_the_same_as_transformers(smollm2: Engine) -> None:
    """Chat template and all, as text that transformers makes."""
    question = Choice("Who was called?", options=["nobody", "the plumber", "the fire brigade"])
    found = smollm2.decide(STATE, [question, "Is the pump wet?"])
    bodies = [
        f"Question:§ Who was called?\n{REQUEST}§- nobody\n§- the plumber\n§- the fire brigade\n§",
        "Question:§ Is the pump wet? Answer with Yes or No.§",
    ]
    for decision, body in zip(found, bodies, strict=True):
        words = [{"role": "system", "content": LEAD.strip()}, {"role": "user", "content": f"§{STATE}\n\n§{body}"}]
        text = smollm2.tokenizer.apply_chat_template(words, tokenize=False, add_generation_prompt=True)
        parts = [smollm2.tokenizer(part, add_special_tokens=False).input_ids for part in text.split("§")]
        prompt = [token for part in parts for token in part]  # cut where decide cuts, for words may be cut otherwise
        labels = [smollm2.tokenizer(label, add_special_tokens=False).input_ids for label in decision.question.labels]
        assert decision.probabilities == pytest.approx(normal(plain_logprobs(smollm2, prompt, labels)), abs=1e-4)


def test_the_same_bits_in_any_company(tmp_path: Path) -> None:
    """Packed weights and native kernels: alone, among nineteen others, in another order, with a chain or orders by, and
    with the state encoded in the same tick, kept, or loaded."""
    kept = KeptBlocks(tmp_path)
    pytest.importorskip("kvorum_native")
    loaded = load_model("smollm2-135m", packed=True)
    engine = Engine(loaded.model, loaded.tokenizer, kv_tokens=8192, attention="native", weights="packed")
    mine: list[Question] = [ASKED[0], ASKED[1], YesNo("Mind this.\n\nIs the valve dry?", "dry")]
    mine.append(YesNo("Is this true? It drips. The pump is wet.", "true"))
    others: list[Question] = [
        YesNo(f"Is the {thing} wet?") for thing in ["roof", "wall", "door", "lamp", "oven", "sink", "bath", "tap"]
    ]
    others += [YesNo("Is this true? It drips. Ann is wet."), YesNo("Is this true? It is dry.")]
    others += [YesNo("Mind this.\n\nIs the tap dry?"), Choice("Who?", options=["valve", "pump", "Ann"])]
    others += [Score(f"How wet is room {n}?", levels=["dry", "damp", "wet"]) for n in range(6)]
    for orders in (1, 4):
        alone = [engine.decide(STATE, [question], orders=orders)[0] for question in mine]
        for company in ([*mine, *others], [*others, *mine[::-1]], [others[0], *mine, *others[1:9]]):
            found = engine.decide(STATE, company, orders=orders, kept=kept)
            for one in alone:
                assert found[one.name].probabilities == one.probabilities
                assert found[one.name].mass == one.mass


@pytest.mark.parametrize("count", [1_500, pytest.param(10_000, marks=pytest.mark.slow)])
def test_many_questions_go_in_waves_and_blocks_are_given_back(count: int) -> None:
    engine = toy_engine.fake(kv_tokens=2048)
    free = engine.pool.free_tokens
    questions = [f"Is {n} in it?" for n in range(count)]
    found = engine.decide(STATE, questions)
    assert len(found) == count
    assert engine.pool.free_tokens >= free - 64
    assert found.ledger.ticks > count // 100
    for n in (0, count // 2, count - 1):
        assert found[n].probabilities == engine.decide(STATE, [YesNo(questions[n])])[0].probabilities


@pytest.mark.forward
def test_a_long_question_works_and_one_that_finds_no_room_is_named() -> None:
    long = YesNo("Is this long? " + "It is. " * 100, "long")
    engine = toy_engine.engine(kv_tokens=8192, prefill_chunk=64)
    found = engine.decide(STATE, [long, "Short?"])
    prompt = engine.tokenizer(toy_prompt(YesNo(long.text.strip()))).input_ids
    labels = [engine.tokenizer(words).input_ids for words in (" Yes", " No")]
    assert found["long"].probabilities == pytest.approx(normal(plain_logprobs(engine, prompt, labels)), abs=1e-6)
    longer = YesNo("Is this long? " + "It is. " * 700, "longer")
    assert len(engine.tokenizer(longer.text).input_ids) > 4_900
    assert len(toy_engine.fake().decide(STATE, ["Short?", longer])) == 2
    small = toy_engine.fake(kv_tokens=2048)
    with pytest.raises(OutOfPages) as error:
        small.decide(STATE, ["Short?", longer])
    assert "'longer'" in "".join(error.value.__notes__)
    assert small.decide(STATE, ["Short?"])[0].probabilities


def test_a_state_beyond_the_context_is_an_error_with_the_numbers() -> None:
    """P96: nothing is cut without a word."""
    engine = toy_engine.fake(max_positions=400)
    with pytest.raises(BadRequest, match=r"The state has \d+ tokens .* takes 400"):
        engine.decide(STATE * 5, ["Is it?"])
    with pytest.raises(BadRequest, match=r"'q2' has \d+ tokens behind a state of \d+; this model takes 400"):
        engine.decide(STATE, ["Is it?", "Is it? " * 60])
    assert engine.ledger.ticks == 0


def test_a_budget_is_kept_and_what_was_answered_is_there(tmp_path: Path) -> None:
    engine = toy_engine.fake()
    questions = [f"Is {n} in it, or is it not in it at all?" for n in range(200)]
    found = engine.decide(STATE, questions, budget=Budget(ticks=3), trace=tmp_path / "run.jsonl")
    assert found.ledger.ticks == 3
    assert 0 < len(found) < 200
    assert found.spent == "ticks"
    assert [one.name for one in found] == [f"q{n + 1}" for n in range(len(found))]
    whole = engine.decide(STATE, questions)
    assert whole.spent is None
    assert [one.probabilities for one in found] == [one.probabilities for one in whole.items[: len(found)]]
    events = read_trace(tmp_path / "run.jsonl")
    task = Task(STATE)
    [start] = [event for event in events if event["event"] == "start"]
    params: Any = start["params"]
    again = engine.run(program_decide, task, replay=events, budget=Budget(), **params)
    assert len(again.product) == 200
    assert str(again.answer).startswith("q1: ")


def test_what_follows_from_probabilities() -> None:
    def made(question: Question, *shares: float) -> Decision:
        return Decision(question, shares, shares, 1.0)

    three = Choice("Which?", options=["a", "b", "c"])
    # P97: System One's own formula, (n max - 1) / (n - 1); a server's 0.8906 for these is 1 - entropy / log n
    assert made(three, 0.0125, 0.9781, 0.0094).confidence == pytest.approx(0.96715)
    assert made(three, 1 / 3, 1 / 3, 1 / 3).confidence == pytest.approx(0.0)
    assert made(three, 0.2, 0.5, 0.3).margin == pytest.approx(0.2)
    assert made(Choice("Which?", options=["a"]), 1.0).confidence == made(Choice("?", options=["a"]), 1.0).margin == 1.0
    score = made(Score("How?", levels=["low", "mid", "high"]), 0.2, 0.3, 0.5)
    assert score.value == 2
    assert score.score == pytest.approx(1.3)
    yes = made(YesNo("Is it?"), 0.25, 0.75)
    assert (yes.value, yes.label, yes.yes) == (False, "No", 0.25)
    assert made(Choice("Is it?", options=[True, "true", 1]), 0.2, 0.5, 0.3).value == "true"
    assert Decisions([yes])[0] is yes


def test_without_questions_the_problem_is_one() -> None:
    engine = toy_engine.fake()
    result = engine.run(program_decide, "Is 17 a prime?")
    assert result.answer in ("Yes", "No")
    assert result.ledger.decoded == 0
