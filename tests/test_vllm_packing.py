"""What goes between the engine and vLLM's workers, without vLLM: ticks as bytes, and heads and layers of many ranks.

A fake backend that packs and unpacks every tick must answer as one that does not, over random view programs with
latent rows and copies; draws with everything that a draw can have must come out equal; a cache that is cut over ranks
must hold, together, what one process holds. Not covered: that vLLM carries the bytes (`tests/vllm`).
"""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from kvorum import Engine, Row, Sampling, View
from kvorum.attention import view_structure
from kvorum.attention.plan import Planner
from kvorum.attention.rotary import Rotary
from kvorum.attention.tap import Tap
from kvorum.backends.backend import Done, Work
from kvorum.backends.fake import FakeBackend
from kvorum.backends.vllm.joined import Place, Ranks, cache_shapes
from kvorum.backends.vllm.packing import Answer, Order, pack_answer, pack_order, unpack_answer, unpack_order
from kvorum.backends.vllm.tensors import pack, unpack
from kvorum.errors import BadRequest, UnsupportedModel
from kvorum.kv import CacheConfig, CacheShape, KVCache
from kvorum.kv.cache import CachePart
from kvorum.kv.derived_blocks import imitate
from kvorum.sampling.grammar import Grammar
from kvorum.sampling.sampling import Draw, History, Pick
from view_programs import Maker, play


class Packed(FakeBackend):
    """Answers what came out of the bytes."""

    def forward(self, work: Work) -> Done:
        order = unpack_order(pack_order(Order(7, (3, 5), work), work.draws()), 1)
        assert (order.number, list(order.forget)) == (7, [3, 5])
        done = super().forward(order.work)
        told = unpack_answer(pack_answer(Answer(done.picks, done.hidden)))
        return Done(done.logits, told.hidden, told.picks)


@settings(max_examples=60)
@given(data=st.data(), join_below=st.sampled_from((0, 3, 64)))
def test_packed_ticks_say_what_ticks_say(data: st.DataObject, join_below: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(view_structure, "JOIN_BELOW", join_below)
        maker = Maker(data.draw, Engine(FakeBackend(), kv_tokens=4096), vocab=256, width=8)
        maker.make(data.draw(st.integers(2, 14)))
        again = play(Engine(Packed(), kv_tokens=4096), maker.script)
    for kind in ("logits", "hidden"):
        for ours, theirs in zip(getattr(again, kind), getattr(maker.played, kind), strict=True):
            assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def _work(draws: list[Draw | None], tap: Tap | None = None) -> Work:
    engine = Engine(FakeBackend(), kv_tokens=64)
    view = View(engine.block())
    assert view.own is not None
    view.own.append([1, 2])
    plan = Planner().plan([view], [2])
    return Work(plan, [1, 2], [], torch.tensor([1]), draws=lambda: draws, tap=tap)


def test_tensors_of_any_kind_come_out_as_they_went_in() -> None:
    tensors = {
        "empty": torch.empty(3, 0, dtype=torch.long),
        "number": torch.tensor(2.5, dtype=torch.float64),
        "odd": torch.tensor([True, False, True]),
        "half": torch.randn(5, 3).bfloat16(),
        "turned": torch.arange(24, dtype=torch.int8).view(4, 6).t(),
        "again": torch.arange(24, dtype=torch.int8).view(4, 6)[1],
    }
    header, found = unpack(pack({"ä": [1, None, math.inf]}, tensors))
    assert header == {"ä": [1, None, math.inf]}
    assert list(found) == list(tensors)
    for name, tensor in tensors.items():
        assert (found[name].dtype, found[name].shape) == (tensor.dtype, tensor.shape)
        assert torch.equal(found[name], tensor)
        found[name].zero_()
    assert int(tensors["again"].sum()), "what came out has memory of its own"


def test_draws_come_out_as_they_went_in() -> None:
    bits = np.packbits(np.arange(40) % 3 == 0, bitorder="little")
    full = Sampling(
        0.7, 0.9, 40, 0.05, banned=(3, 9), repetition_penalty=1.2, frequency_penalty=0.1, presence_penalty=-0.2,
        penalty_last_n=64, dry_multiplier=0.8, dry_allowed_length=3, logit_bias={5: -1.5, 11: 2.0},
    )  # fmt: skip
    history = History([4, -1, 6], [6], {7: ((), (8, 9))})
    draws: list[Draw | None] = [
        None,
        Draw(Sampling(), 2**70, -3, 0),
        Draw(full, 1, 2, 3, False, bits, history),
        Draw(full, 1, 2, 4, True, None, History([], [])),
    ]
    found = unpack_order(pack_order(Order(1, (), _work(draws)), draws), 1).work.draws()
    assert found[0] is None
    for ours, theirs in zip(found[1:], draws[1:], strict=True):
        assert ours is not None
        assert theirs is not None
        assert (ours.sampling, ours.seed, ours.stream, ours.step, ours.telling) == (
            theirs.sampling, theirs.seed, theirs.stream, theirs.step, theirs.telling,
        )  # fmt: skip
        assert (ours.allowed is None) == (theirs.allowed is None)
        assert ours.history == theirs.history
    assert found[2] is not None
    assert found[2].allowed is not None
    assert np.array_equal(found[2].allowed, bits)


def test_a_row_without_its_mask_is_not_drawn_elsewhere() -> None:
    held = Draw(Sampling(grammar=Grammar.choice(["yes", "no"])), 0, 0, 0)
    assert unpack_order(pack_order(Order(1, (), _work([])), [held]), 1).work.draws() == [None]


def test_a_tap_is_one_for_the_layers_of_the_rank() -> None:
    groups = torch.arange(64, dtype=torch.int32) % 3
    work = _work([], Tap(groups, 3, [1], 2, 12))
    tap = unpack_order(pack_order(Order(1, (), work), []), 5).work.tap
    assert tap is not None
    assert torch.equal(tap.groups, groups)
    assert tap.tokens.tolist() == [1]
    assert tap.lines.tolist() == [-1, 0]
    assert tap.shares.shape == (5, 1, 3)


def test_answers_keep_picks_errors_and_what_has_no_chance() -> None:
    picks = [None, Pick(7, -0.123456789012345678), BadRequest("None is left."), Pick(2, math.nan)]
    told = unpack_answer(pack_answer(Answer(picks, torch.ones(2, 3, dtype=torch.bfloat16))))
    assert told.picks[0] is None
    assert told.picks[1] == picks[1]
    assert isinstance(told.picks[2], BadRequest)
    assert str(told.picks[2]) == "None is left."
    assert isinstance(told.picks[3], Pick)
    assert math.isnan(told.picks[3].logprob)
    assert told.hidden is not None
    assert told.hidden.dtype == torch.bfloat16
    assert told.shares is None


# --- many ranks


LAYERS = tuple(CacheShape(heads, 4, 6) for heads in (4, 4, 4))


def _parts(degree: int, stages: list[list[int]]) -> tuple[Ranks, list[CachePart]]:
    places = [Place(tp, pp, tuple(layers)) for pp, layers in enumerate(stages) for tp in range(degree)]
    same = max(1, degree // LAYERS[0].kv_heads)
    ranks = Ranks("tiny", places, same, len(LAYERS))
    parts = []
    for place in places:
        own = tuple(CacheShape(max(1, LAYERS[layer].kv_heads // degree), 4, 6) for layer in place.layers)
        before = ranks.heads_before[place.tp]
        parts.append(CachePart(LAYERS, place.layers[0], own, tuple(before * shape.kv_heads for shape in own)))
    return ranks, parts


@pytest.mark.parametrize(
    ("degree", "stages"), [(1, [[0, 1, 2]]), (2, [[0, 1, 2]]), (2, [[0], [1, 2]]), (4, [[0, 1], [2]]), (8, [[0, 1, 2]])]
)
@pytest.mark.parametrize("kind", ["random", "zeroed"])
def test_ranks_hold_together_what_one_process_holds(degree: int, stages: list[list[int]], kind: str) -> None:
    turns = [Rotary("half", 0, torch.tensor([1.0, 0.1]))] * 3
    whole = KVCache(CacheConfig(LAYERS, 32))
    source, target = torch.arange(5), torch.arange(9, 14)
    written = [(torch.randn(4, 5, 4), torch.randn(4, 5, 6)) for _ in LAYERS]
    for layer, (keys, values) in enumerate(written):
        whole.write(layer, source, keys, values)
    imitate(whole, turns, kind, 3, source, target)

    ranks, parts = _parts(degree, stages)
    caches = []
    for part in parts:
        cache = KVCache(CacheConfig(part.own, 32))
        for layer, (keys, values) in enumerate(written):
            own = part.take(layer, keys), part.take(layer, values)
            if own[0] is not None and own[1] is not None:
                cache.write(layer - part.first, source, own[0], own[1])
        imitate(cache, turns[: len(part.own)], kind, 3, source, target, part)
        caches.append(cache)
    for slots in (source, target):
        answers = []
        for cache in caches:
            held = {f"keys.{at}": rows[:, slots] for at, rows in enumerate(cache.keys)}
            held |= {f"values.{at}": rows[:, slots] for at, rows in enumerate(cache.values)}
            answers.append(pack(None, held))
        for layer, (keys, values) in enumerate(ranks.read(answers)):
            assert torch.equal(keys, whole.keys[layer][:, slots])
            assert torch.equal(values, whole.values[layer][:, slots])


def test_shapes_and_shares_of_all_ranks_are_joined() -> None:
    ranks, _ = _parts(2, [[0], [1, 2]])
    frequencies = torch.tensor([1.0, 0.1])

    def told(layers: int) -> bytes:
        header = [[3, 2, 4, 6, None, "half", 0] for _ in range(layers)]
        return pack(header, {str(at): frequencies.clone() for at in range(layers)})

    shapes = ranks.shapes([told(1), told(1), told(2), told(2)])
    assert cache_shapes(shapes) == LAYERS
    assert [shape.q_heads for shape in shapes] == [6, 6, 6]
    assert len({id(shape.rotary) for shape in shapes}) == 1

    def shares(*values: float) -> Tensor:
        return torch.tensor(values).view(-1, 1, 1)

    joined = ranks.shares([shares(0.2), shares(0.4), shares(0.1, 0.5), shares(0.3, 0.7)])
    assert joined is not None
    assert torch.allclose(joined.flatten(), torch.tensor([0.3, 0.2, 0.6]))
    assert ranks.shares([shares(0.2), None, shares(0.1), None]) is None


def test_a_layer_that_no_rank_holds_is_named() -> None:
    with pytest.raises(UnsupportedModel, match=r"tiny has layers without attention \(such as 1\)"):
        Ranks("tiny", [Place(0, 0, (0, 2))], 1, 3)


def test_tensors_of_any_type_and_size_come_back() -> None:
    kinds = (torch.float32, torch.bfloat16, torch.float16, torch.int64, torch.int32, torch.uint8)
    given_tensors = {
        str(at): torch.arange(n).to(kind) for at, (kind, n) in enumerate(itertools.product(kinds, (0, 1, 9)))
    }
    header, found = unpack(pack({"a": [1, None, "ü"]}, given_tensors))
    assert header == {"a": [1, None, "ü"]}
    assert found.keys() == given_tensors.keys()
    for name, tensor in given_tensors.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor)
        found[name] += 1  # nobody gets memory that cannot be written to


def test_engines_of_fake_backends_agree_on_latent_rows() -> None:
    plain, packed = (Engine(kind(), kv_tokens=64) for kind in (FakeBackend, Packed))
    embeds = torch.randn(3, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = [one.forward([Row(View(one.block()), embeds=embeds)]).logits for one in (plain, packed)]
    assert torch.equal(*found)
