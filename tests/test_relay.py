"""relay against an independent dense computation of LatentMAS with transformers' own forward and cache, in float64."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer
from transformers.models.llama.modeling_llama import rotate_half

from kvorum import Budget, Result, Row, Run, Sampling, Task, View
from kvorum.errors import BadRequest, KvorumError, UnknownName
from kvorum.kv import Block
from kvorum.programs.relay.relay import relay
from kvorum.runs.start import arun
from kvorum.store.events import note_data
from latent_oracle import GREEDY, STEPS, dense_agent, engine, oracle_model, parts, solve


def final_logits(run: Run) -> Tensor:
    """After the last token that the last worker was fed."""
    own = run.workers[-1].view.own
    assert own is not None
    assert own.logits is not None
    return own.logits


# -- the published algorithm, densely ------------------------------------------------------------------------------


def own(run: Run, at: int) -> Block:
    block = run.workers[at].view.own
    assert block is not None
    return block


@pytest.mark.parametrize("align", ["norm", "ridge", "soft"])
@pytest.mark.parametrize("name", ["llama", "qwen3"])
def test_sequence_equals_the_dense_algorithm(name: str, align: str) -> None:
    result, run = solve(name=name, align=align)
    assert result.ledger.latent == 3 * STEPS
    past = DynamicCache(config=oracle_model(name).config)
    for at in range(3):
        prompt, steps = parts(own(run, at))
        assert steps == STEPS
        dense_agent(oracle_model(name), past, prompt, steps, align)
    expected = dense_agent(oracle_model(name), past, own(run, 3).ids, 0)
    assert torch.allclose(final_logits(run), expected, atol=1e-9)
    # the same prompts without the hand-over, or with one agent's blocks out of order, are far from that
    alone = dense_agent(oracle_model(name), DynamicCache(config=oracle_model(name).config), own(run, 3).ids, 0)
    assert (alone - expected).abs().max() > 1e-3
    shuffled = View(own(run, 1), own(run, 0), own(run, 2), engine(name).block())
    moved = engine(name).forward([Row(shuffled, ids=own(run, 3).ids)]).logits[0]
    assert (moved - expected).abs().max() > 1e-6


@torch.no_grad()
def test_hierarchy_equals_caches_computed_apart_and_merged() -> None:
    """Experts, each alone with the question; their keys moved to follow one another; then the summariser."""
    model = oracle_model()
    result, run = solve(form="hierarchical")
    question = run.workers[0].view.blocks[0]
    experts = [own(run, at) for at in range(3)]
    assert question.name == "question"
    assert all(worker.view.blocks[0] is question for worker in run.workers)
    merged = DynamicCache(config=model.config)
    shift = 0
    for at, expert in enumerate(experts):
        past = DynamicCache(config=model.config)
        prompt, steps = parts(expert)
        dense_agent(model, past, question.ids + prompt, steps)
        start = 0 if at == 0 else len(question)
        for layer, cached in enumerate(past.layers):
            assert isinstance(cached, DynamicLayer)
            assert cached.keys is not None
            assert cached.values is not None
            keys, values = cached.keys[:, :, start:], cached.values[:, :, start:]
            cos, sin = model.model.rotary_emb(keys, torch.tensor([[shift]]))
            merged.update(keys * cos + rotate_half(keys) * sin, values, layer)
        shift += len(expert)
    expected = dense_agent(model, merged, own(run, 3).ids, 0)
    assert torch.allclose(final_logits(run), expected, atol=1e-9)
    # the three experts took one tick for each step: 1 question, 1 prompts, STEPS latent
    assert result.ledger.latent == 3 * STEPS
    before = sum(1 for event in result.trace.events if event["event"] == "tick")
    assert result.ledger.ticks - before == 2 + STEPS


@pytest.mark.parametrize(
    ("form", "handover"),
    [("sequential", "cache"), ("hierarchical", "cache"), ("hierarchical", "both"), ("sequential", "text")],
)
def test_many_tasks_at_once_equal_each_alone(form: str, handover: str) -> None:
    prompts = ["What is 2+3?", "Name a prime number above ten, and say why it is prime.", "Is it?"]
    options: dict[str, Any] = {"form": form, "latent_steps": 2, "handover": handover, "text_tokens": 2}
    options |= {"sampling": Sampling(temperature=0.8), "budget": Budget(ticks=25), "final_tokens": 2}
    runs: list[Run] = []

    async def together() -> list[Result]:
        return await asyncio.gather(*(arun(engine(), relay, text, control=runs.append, **options) for text in prompts))

    before = engine().ledger.ticks
    batch = asyncio.run(together())
    shared = engine().ledger.ticks - before
    assert shared == max(result.ledger.ticks for result in batch) < sum(result.ledger.ticks for result in batch)
    for text, result, run in zip(prompts, batch, runs, strict=True):
        held: list[Run] = []
        alone = engine().run(relay, text, control=held.append, **options)
        assert [worker.ids for worker in alone.workers] == [worker.ids for worker in result.workers]
        assert torch.allclose(final_logits(held[0]), final_logits(run), atol=1e-9)
        for key in ("prefill", "decoded", "latent", "ticks", "kv_written"):
            assert getattr(alone.ledger, key) == getattr(result.ledger, key)


# -- channels and controls -----------------------------------------------------------------------------------------


def test_text_and_both_quote_what_was_written() -> None:
    for handover, think in (("text", "latent"), ("both", "latent"), ("text", "text"), ("cache", "text")):
        result, run = solve(handover=handover, think=think, text_tokens=4, ticks=60)
        wrote = [worker.text for worker in result.workers[:3]]
        assert [len(worker.ids) for worker in result.workers[:3]] == [4, 4, 4]
        prompt = run.read(own(run, 3).ids)
        quoted = [
            f"The {role} says: {text.strip()}" in prompt
            for role, text in zip(("planner", "critic", "refiner"), wrote, strict=True)
        ]
        assert quoted == [handover != "cache"] * 3
        assert len(run.workers[3].view.blocks) == (1 if handover == "text" else 4)
        assert result.ledger.latent == (3 * STEPS if think == "latent" else 0)
        last = own(run, 0).ids[-1]
        assert (last == run.workers[0].ids[-1]) == (handover != "text")  # a reader of the cache sees the last word too


@torch.no_grad()
def test_text_in_the_cache_equals_the_dense_algorithm() -> None:
    _, run = solve(think="text", text_tokens=4, ticks=60)
    model = oracle_model()
    ids = [token for at in range(4) for token in own(run, at).ids]
    assert torch.allclose(final_logits(run), model(torch.tensor([ids])).logits[0, -1], atol=1e-9)


def test_arms_change_only_what_is_handed_over() -> None:
    seen = {}
    for arm in ("real", "mismatched", "zeroed", "random", "none"):
        options: dict[str, Any] = {"other": "Why is the sky blue at noon?"} if arm == "mismatched" else {}
        result, run = solve(arm=arm, **options)
        seen[arm] = (result, run)
    prompts = {arm: run.read(own(run, 3).ids).split("}.")[0] for arm, (_, run) in seen.items()}
    assert prompts["real"].startswith("What is 2+3?")
    assert set(prompts.values()) == {prompts["real"]}
    real, mismatched = (seen[arm][1].workers[3].view for arm in ("real", "mismatched"))
    for arm in ("zeroed", "random"):
        result, run = seen[arm]
        view = run.workers[3].view
        assert [len(block) for block in view.blocks[:3]] == [len(block) for block in real.blocks[:3]]
        assert result.ledger.kv_written > seen["real"][0].ledger.kv_written
        assert result.ledger.latent == 3 * STEPS
    assert "sky" in engine().tokenizer.decode([token for token in mismatched.ids if token >= 0])
    assert seen["none"][1].workers[3].view.blocks == (own(seen["none"][1], 3),)
    assert seen["none"][0].ledger.latent == 0
    for arm in ("mismatched", "zeroed", "random", "none"):
        short = own(seen[arm][1], 3).ids[:60]
        logits = []
        for run in (seen["real"][1], seen[arm][1]):
            view = View(*run.workers[3].view.items[:-1], engine().block())
            logits.append(engine().forward([Row(view, ids=short)]).logits[0])
        assert (logits[0] - logits[1]).abs().max() > 1e-3


def test_private_words_reach_their_worker_alone() -> None:
    _, run = solve(private=["the code is 7319"])
    assert "7319" in run.read(own(run, 0).ids)
    assert not any("7319" in run.read(own(run, at).ids) for at in (1, 2, 3))


def test_no_latent_steps_still_hand_over_the_prompts() -> None:
    """The published code drops the cache then."""
    result, run = solve(latent_steps=0)
    assert result.ledger.latent == 0
    assert len(run.workers[3].view.blocks) == 4
    ids = [token for at in range(4) for token in own(run, at).ids]
    expected = oracle_model()(torch.tensor([ids])).logits[0, -1].detach()
    assert torch.allclose(final_logits(run), expected, atol=1e-9)


# -- budgets, replay, refusals -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("budget", "latents"),
    [
        (Budget(latent=4), 4),
        (Budget(ticks=6), 3),
        (Budget(tokens=620), None),
    ],
)
@pytest.mark.parametrize("form", ["sequential", "hierarchical"])
def test_a_spent_budget_forces_an_answer_from_what_is_there(budget: Budget, latents: int | None, form: str) -> None:
    result, run = solve(budget=budget, form=form)
    assert result.outcome == "forced"
    assert result.spent is not None
    assert result.workers[3].ids
    if latents is not None and form == "sequential":
        assert result.ledger.latent == latents
    assert result.ledger.latent <= 3 * STEPS
    assert all(getattr(result.ledger, name) <= limit for name, limit in budget.limits().items())
    assert all(len(block) for block in run.workers[3].view.blocks)


@pytest.mark.parametrize("size", [1, 2, 3, 6])
@pytest.mark.parametrize("form", ["sequential", "hierarchical"])
def test_any_number_of_workers(size: int, form: str) -> None:
    result, _ = solve(workers=size, form=form, latent_steps=1, ticks=12)
    assert result.ledger.latent == size - 1


@pytest.mark.parametrize("options", [{}, {"form": "hierarchical", "handover": "both", "text_tokens": 3}])
def test_a_killed_run_resumes_and_repeats(options: dict[str, Any]) -> None:
    settings: dict[str, Any] = {"sampling": Sampling(temperature=0.9), "budget": Budget(ticks=30), "latent_steps": 2}
    whole = engine().run(relay, "What is 2+3?", **settings, **options)
    events = whole.trace.events
    notes = [note_data(event) for event in events if event["event"] == "note" and event["kind"] == "latent"]
    steps = [note["steps"] for note in notes]
    assert steps == ([2] if options else [2, 2, 2])
    for cut in (1, 6, len(events) // 2, len(events) - 1):
        again = engine().run(relay, "What is 2+3?", replay=events[:cut], **settings, **options)
        assert again.differences == []
        drop = ("seconds", "ledger")
        assert [{k: v for k, v in e.items() if k not in drop} for e in again.trace.events] == [
            {k: v for k, v in e.items() if k not in drop} for e in events
        ]


def test_the_clock_of_a_replay_is_the_trace_s() -> None:
    """A budget of seconds that ended the latent steps ends them at the same step again."""
    whole, _ = solve()
    events = [dict(event) for event in whole.trace.events]
    forwards = [event for event in events if event["event"] == "forward"]
    assert [event["tokens"] for event in forwards[1:4]] == [1, 1, 1]
    forwards[2]["seconds"] = 1e9
    again, _ = solve(budget=Budget(seconds=1e6), replay=events[: events.index(forwards[2]) + 1])
    assert (again.outcome, again.spent) == ("none", "seconds")  # no time for an answer
    assert again.ledger.latent == 2


def test_wrong_parameters_are_refused_with_what_to_do() -> None:
    wrong: list[tuple[type[KvorumError], str, dict[str, Any]]] = [
        (UnknownName, "sequential, hierarchical", {"form": "ring"}),
        (UnknownName, "auto, norm, ridge, soft", {"align": "qqq"}),
        (BadRequest, "at least 0", {"latent_steps": -1}),
        (BadRequest, "other", {"arm": "mismatched"}),
        (BadRequest, "handover='text'", {"arm": "zeroed", "handover": "text"}),
        (BadRequest, "5 private texts", {"private": ["x"] * 5}),
    ]
    for error, words, options in wrong:
        with pytest.raises(error, match=words):
            solve(**options)


def test_an_answer_asked_for_ends_the_thinking() -> None:
    from kvorum import Command

    def ask(run: Run) -> None:
        run.commands.append(Command("answer"))

    options: dict[str, Any] = {"think": "text", "text_tokens": 5, "final_tokens": 2}
    result = engine().run(relay, Task("What is 2+3?"), control=ask, sampling=GREEDY, budget=Budget(ticks=50), **options)
    assert result.outcome == "forced"
    assert [len(worker.ids) for worker in result.workers] == [1, 0, 0, 2]
