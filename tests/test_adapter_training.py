"""Training an adapter: what its oracle teaches, pieces that go on, an adapter that loads.

Covers: nobody names what was begun at an earlier tick that it sees; targets are all that was as likely; the trace is
filled with what the oracle wrote; two pieces make the adapter of one, and merged it computes what was trained; it is
judged on other topics; that the loss of a real model falls (slow). Not covered: how good an adapter becomes (studies/).
"""

from __future__ import annotations

import asyncio
from functools import cache
from itertools import product
from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from kvorum import Engine, Row, View
from kvorum.errors import BadRequest
from kvorum.lab.training.adapter_training import AdapterRecipe, AdapterTraining, loss
from kvorum.lab.training.forward import TeamForward
from kvorum.lab.training.list_lessons import BY_TOPIC, BY_WORDS, TOPICS, ListLessons
from kvorum.lab.training.low_rank import add_low_rank
from kvorum.lab.training.vocabulary import tokenizer
from kvorum.models.load import load_model
from kvorum.tasks import lists, topics

TINY = AdapterRecipe(steps=4, teams=2, rank=2, targets=("q_proj", "o_proj", "down_proj"))


@cache
def words() -> PreTrainedTokenizerFast:
    """Whole words: those of the topics, and rare ones as blanks."""
    members = [member for line in TOPICS.values() for member in line]
    blanks = ["blank" + "".join(pair) for pair in product("abcdefghijklmnop", repeat=2)]
    told = ["Notes of others who work on this at the same time:", *BY_TOPIC, *BY_WORDS, *TOPICS]
    lines = [line for member in members for line in (member, f" {member}", member[0].upper() + member[1:])]
    return tokenizer([*told, *lines, " ".join(["", *blanks])])


def tiny() -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(words()),
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        initializer_range=0.2,
        bos_token_id=None,
        eos_token_id=0,
        pad_token_id=None,
    )
    model = LlamaForCausalLM(config)
    model.eval()
    return model


def lessons(seed: int = 0) -> ListLessons:
    return ListLessons(words(), torch.Generator().manual_seed(seed))


ITEMS = [[7, 1], [8, 1], [8, 5, 1], [8, 5, 6, 1], *([at, 1] for at in range(20, 60))]
"""As token ids, each ended by 1; three begin alike."""


@pytest.mark.parametrize("shared", [True, False])
def test_nobody_begins_what_it_has_seen_begun(shared: bool) -> None:
    repeats = 0
    for seed in range(20):
        played = lessons(seed).play(ITEMS, workers=3, ticks=18, shared=shared)
        begun: list[list[tuple[int, list[int]]]] = []
        for tokens, targets, begins in played:
            starts = [tick for tick in range(18) if begins[tick]]
            assert starts == [0, *(tick + 1 for tick in range(17) if tokens[tick] == 1)]
            begun.append([(tick, tokens[tick : [*tokens, 1].index(1, tick) + 1]) for tick in starts])
            assert all(sum(likely.values()) == pytest.approx(1) for likely in targets)
            assert all(token in likely for token, likely in zip(tokens, targets, strict=True))
        for at, (tokens, targets, begins) in enumerate(played):
            for tick in (tick for tick in range(18) if begins[tick]):
                seen = [
                    item
                    for other, line in enumerate(begun)
                    for when, item in line
                    if when < tick and (shared or other == at)
                ]
                whole = [item for item in seen if item[-1] == 1]  # what was cut at the end is not known here
                mine = tokens[tick : [*tokens, 1].index(1, tick) + 1]
                assert mine not in whole
                if len(whole) == len(seen):
                    left = [item for item in ITEMS if item not in whole]
                    assert targets[tick][left[-1][0]] == pytest.approx(1 / len(left), rel=1e-6)
                    assert set(targets[tick]) == {item[0] for item in left}
                repeats += sum(mine == item for other, line in enumerate(begun) for _, item in line if other != at)
    assert repeats, "two may begin the same thing in one tick"


def test_within_an_item_all_that_begin_so_are_as_likely() -> None:
    for seed in range(40):
        ((tokens, targets, _),) = lessons(seed).play(ITEMS[1:4], workers=1, ticks=2, shared=True)
        assert targets[0] == {8: 1.0}
        assert targets[1] == pytest.approx({1: 1 / 3, 5: 2 / 3})
        if tokens[1] == 5:
            return
    raise AssertionError("never drawn")


@pytest.mark.parametrize("given", [True, False])
def test_a_lesson_is_a_run_in_which_the_oracle_wrote(given: bool) -> None:
    made = lessons(3)
    found = asyncio.run(made.lesson(2, given=given, shared=True))
    drawn, trace = found.template.drawn, found.template.trace
    assert found.target.shape == found.choices.shape
    assert found.target.sum(-1) == pytest.approx(torch.ones(found.begins.shape))
    fed = found.ids[:, drawn[:, 1:]]  # [teams, workers, ticks - 1]
    likely = (found.choices[:, :, :-1] == fed[..., None]) & (found.target[:, :, :-1] > 0)
    assert bool(likely.any(-1).all()), "each token is one that the oracle may have drawn"
    first, second = int(drawn[0, -1]), int(drawn[1, -1])
    assert trace.distance[first, second] >= 0, "in its last tick a worker sees what the other was fed in it"
    text = str(words().decode(found.ids[0]))
    known = {member.lower() for members in TOPICS.values() for member in members}
    lines = str(words().decode(fed[0, 0])).split("\n")
    assert {line.strip().lower() for line in lines[:-1]} <= known
    assert any(topic in text for topic in TOPICS) or given
    apart = asyncio.run(made.lesson(2, given=given, shared=False)).template
    assert apart.trace.distance[int(apart.drawn[0, -1]), int(apart.drawn[1, -1])] < 0


def trained(folder: Path, pieces: int) -> AdapterTraining:
    for piece in range(pieces):
        training = AdapterTraining(TINY, folder, tiny(), words())
        assert training.done == piece * TINY.steps // pieces
        for _ in range(TINY.steps // pieces):
            asyncio.run(training.step())
        asyncio.run(training.run(0, print))
    return training


def test_two_pieces_make_the_adapter_of_one_and_it_loads(tmp_path: Path) -> None:
    one, two = trained(tmp_path / "one", 1), trained(tmp_path / "two", 2)
    assert one.done == two.done == TINY.steps
    for name, value in one.parameters.items():
        torch.testing.assert_close(value, two.parameters[name], rtol=0, atol=0)
    assert all(bool(value.any()) for value in one.parameters.values())
    for name, value in tiny().named_parameters():
        layer, _, leaf = name.rpartition(".")
        kept = f"{layer}.base.{leaf}" if layer in one.layers else name
        assert torch.equal(value, one.model.get_parameter(kept)), "the model itself stays"
    tiny().save_pretrained(tmp_path / "model")
    words().save_pretrained(tmp_path / "model")
    one.finish(tmp_path / "adapter", str(tmp_path / "model"))
    merged = Engine.load(tmp_path / "adapter", quantize=None, kv_tokens=256)
    explicit = Engine(one.model, kv_tokens=256)
    found = [
        engine.forward([Row(View(engine.block()), ids=list(range(50, 90)))]).logits for engine in (merged, explicit)
    ]
    torch.testing.assert_close(*found, rtol=1e-3, atol=2e-3)


def test_an_adapter_is_judged_on_other_topics() -> None:
    assert not set(TOPICS) & set(topics.TOPICS)
    learnt = {member.lower() for members in TOPICS.values() for member in members}
    judged = {member.lower() for members in topics.TOPICS.values() for member in members}
    assert len(learnt & judged) < 0.03 * len(judged), "words of two senses, such as mouse"
    assert len(learnt & {name.lower() for name in (*lists.MONTHS, *lists.GREEK)}) <= 2, "to march, and a river's delta"


def test_layers_that_are_not_there_are_named() -> None:
    with pytest.raises(BadRequest, match="no linear layer query"):
        add_low_rank(tiny(), ["q_proj", "query"], 2, 2.0, torch.Generator())


@pytest.mark.slow
def test_the_loss_of_a_real_model_falls(tmp_path: Path) -> None:
    loaded = load_model("smollm2-135m", dtype=torch.float32)
    assert loaded.tokenizer is not None
    training = AdapterTraining(AdapterRecipe(steps=200, teams=1, warm=2), tmp_path, loaded.model, loaded.tokenizer)
    lesson = asyncio.run(ListLessons(loaded.tokenizer, torch.Generator()).lesson(1, given=False, shared=True))

    def measured() -> float:
        with torch.no_grad():
            return float(loss(TeamForward(training.model, lesson.template.trace, training.rotaries), lesson).mean())

    before = measured()
    for _ in range(10):
        asyncio.run(training.step())
    assert measured() < 0.9 * before
