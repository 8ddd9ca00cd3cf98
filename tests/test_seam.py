"""The seam: attention is ours during a call and only then; logits and hidden states are the model's own."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from families import build, random_ids
from kvorum.attention.kernel import Softmax
from kvorum.errors import KvorumError, UnsupportedModel
from kvorum.models import seam


class Alone:
    """Every token attends to itself alone; remembers what it was given."""

    def __init__(self) -> None:
        self.calls: list[tuple[int, Softmax]] = []

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, softmax: Softmax, /) -> Tensor:
        self.calls.append((layer, softmax))
        assert q.ndim == k.ndim == v.ndim == 3
        return v.repeat_interleave(q.shape[0] // v.shape[0], dim=0).transpose(0, 1)


class Failing(Alone):
    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, softmax: Softmax, /) -> Tensor:
        raise ZeroDivisionError


def test_layers_come_in_order_with_their_options() -> None:
    model = build("gemma2")
    tick = Alone()
    seam.call(model, random_ids(4), attention=tick, logits_index=torch.tensor([0]))
    assert [layer for layer, _ in tick.calls] == [0, 1, 2]
    assert [softmax.window for _, softmax in tick.calls] == [7, None, 7]
    for _, softmax in tick.calls:
        assert softmax.scale == pytest.approx(10**-0.5)
        assert softmax.softcap == 3.0
        assert softmax.sinks is None


def test_sinks_are_passed() -> None:
    model, tick = build("gpt-oss"), Alone()
    seam.call(model, random_ids(4), attention=tick, logits_index=torch.tensor([0]))
    for layer, softmax in tick.calls:
        assert softmax.sinks is not None
        assert torch.equal(softmax.sinks, model.model.layers[layer].self_attn.sinks)


@pytest.mark.parametrize("name", ["llama", "gemma4-shared", "cohere"])
def test_logits_of_chosen_rows_in_order(name: str) -> None:
    model, ids = build(name), random_ids(6)
    every = seam.call(model, ids, attention=Alone(), logits_index=torch.arange(6), hidden=True)
    rows = torch.tensor([4, 1, 1])
    some = seam.call(model, ids, attention=Alone(), logits_index=rows, hidden=True)
    assert torch.allclose(some.logits, every.logits[rows], atol=1e-6)
    assert some.hidden is not None
    assert every.hidden is not None
    assert torch.allclose(some.hidden, every.hidden[rows], atol=1e-6)
    plain = seam.call(model, ids, attention=Alone(), logits_index=rows)
    assert plain.hidden is None
    assert not plain.logits.requires_grad


@pytest.mark.parametrize("name", ["llama", "gemma3", "granite"])
def test_embeddings_stand_in_for_ids(name: str) -> None:
    model, ids, rows = build(name), random_ids(6), torch.tensor([5])
    embeds = model.get_input_embeddings()(ids).detach()
    a = seam.call(model, ids, attention=Alone(), logits_index=rows)
    b = seam.call(model, embeds, attention=Alone(), logits_index=rows)
    assert torch.equal(a.logits, b.logits)


def test_users_generate_works_before_and_after() -> None:
    model: Any = build("llama")
    ids = random_ids(5)[None]
    options = {"max_new_tokens": 6, "do_sample": False, "attention_mask": torch.ones_like(ids)}
    before = model.generate(ids, **options)
    seam.call(model, ids[0], attention=Alone(), logits_index=torch.tensor([0]), hidden=True)
    assert torch.equal(model.generate(ids, **options), before)
    assert model.config._attn_implementation == "eager"


def test_a_failing_tick_leaves_nothing_behind() -> None:
    model = build("llama")
    with pytest.raises(ZeroDivisionError):
        seam.call(model, random_ids(3), attention=Failing(), logits_index=torch.tensor([0]), hidden=True)
    assert model.config._attn_implementation == "eager"
    assert not any(module._forward_hooks for module in model.model.modules())
    some = torch.zeros(1, 2, 3, 8)
    with pytest.raises(KvorumError, match="outside a kvorum forward"):
        seam.attend(model.model.layers[0].self_attn, some, some, some)


def test_attention_outside_a_call_is_an_error() -> None:
    model = build("llama")
    model.set_attn_implementation(seam.NAME)
    with pytest.raises(KvorumError, match="outside a kvorum forward"):
        model(input_ids=random_ids(3)[None], use_cache=False)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"attention_mask": torch.ones(1, 1, 3, 3)}, "its own attention mask"),
        ({"is_causal": False}, "not causal"),
        ({"position_bias": torch.ones(1)}, "position_bias"),
    ],
)
def test_what_attention_over_views_lacks_is_refused(options: dict[str, Any], message: str) -> None:
    model, x = build("llama"), torch.zeros(1, 2, 3, 8)
    with seam.attached(model, Alone()), pytest.raises(UnsupportedModel, match=message):
        seam.attend(model.model.layers[0].self_attn, x, x, x, **options)


def test_a_batch_and_fewer_queries_than_keys_are_refused() -> None:
    model, x = build("llama"), torch.zeros(2, 2, 3, 8)
    layer = model.model.layers[0].self_attn
    with seam.attached(model, Alone()):
        with pytest.raises(UnsupportedModel, match="batch of 2"):
            seam.attend(layer, x, x, x)
        with pytest.raises(UnsupportedModel, match="some of the tokens"):
            seam.attend(layer, x[:1, :, :1], x[:1], x[:1])
