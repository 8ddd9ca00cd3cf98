"""The probe: every accepted family runs through the seam exactly, every other is refused for its own reason.

The oracle is transformers' own eager forward. `Slow` below is an independent attention: it shares no code with
kvorum but the rotation that the probe found, which is what is under test.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor
from transformers import Gemma3ForCausalLM, Gemma3TextConfig, T5Config, T5ForConditionalGeneration
from transformers.models.llama import modeling_llama

from families import ACCEPTED, REFUSED, build, random_ids
from kvorum.attention.kernel import Softmax
from kvorum.attention.rotary import Rotary
from kvorum.errors import UnsupportedModel
from kvorum.models import exactness, seam
from kvorum.models.probe import probe
from kvorum.models.shape import ModelShape

# Hybrids and learned positions: refused by what they do, even where the configuration says nothing.
TELLTALE = ("gpt2", "opt", "bamba", "falcon-h1", "lfm2")


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Tiny models are faster without threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@dataclass
class Slow:
    """One causal sequence, fed in pieces: keeps rotated keys, loops over heads and queries."""

    shape: ModelShape
    keys: dict[int, Tensor] = field(default_factory=dict)
    values: dict[int, Tensor] = field(default_factory=dict)

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, softmax: Softmax, /) -> Tensor:
        scale, window, softcap, sinks = softmax
        assert window == self.shape.layers[layer].window
        past = self.keys[layer].shape[1] if layer in self.keys else 0
        positions = torch.arange(past, past + q.shape[1])
        rotary = self.shape.layers[layer].rotary
        q, k = rotary.rotate(q, positions), rotary.rotate(k, positions)
        self.keys[layer] = torch.cat((self.keys[layer], k), 1) if past else k
        self.values[layer] = torch.cat((self.values[layer], v), 1) if past else v
        out = torch.empty(q.shape[1], q.shape[0], v.shape[2], dtype=q.dtype)
        for head in range(q.shape[0]):
            kv = head * k.shape[0] // q.shape[0]
            for row, at in enumerate(positions.tolist()):
                first = 0 if window is None else max(0, at + 1 - window)
                scores = self.keys[layer][kv, first : at + 1] @ q[head, row] * scale
                if softcap is not None:
                    scores = (scores / softcap).tanh() * softcap
                weights = scores.exp()
                total = weights.sum() + (sinks[head].exp() if sinks is not None else 0.0)
                out[row, head] = (weights / total) @ self.values[layer][kv, first : at + 1]
        return out


@pytest.mark.parametrize("name", ACCEPTED)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
def test_seam_with_probed_rotations_equals_the_plain_forward(name: str, dtype: torch.dtype) -> None:
    model = build(name, dtype)
    ids = random_ids(20)
    with torch.no_grad():
        plain = model(input_ids=ids[None], use_cache=False, output_hidden_states=True)
    slow = Slow(probe(model))
    seam.call(model, ids[:9], attention=slow, logits_index=torch.tensor([3]))
    rows = torch.tensor([10, 2, 5])
    out = seam.call(model, ids[9:], attention=slow, logits_index=rows, hidden=True)
    wanted = plain.logits[0, rows + 9]
    assert torch.allclose(out.logits, wanted, rtol=0, atol=1e-5 * float(wanted.abs().max()))
    if name != "gemma3n":  # its hidden states are those of several streams, before they are joined
        wanted = plain.hidden_states[-1][0, rows + 9]
        assert out.hidden is not None
        assert torch.allclose(out.hidden, wanted, rtol=0, atol=1e-5 * float(wanted.abs().max()))


@pytest.mark.parametrize("name", ACCEPTED)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bfloat16", "float16"])
def test_half_precision_gives_the_same_shape(name: str, dtype: torch.dtype) -> None:
    exact, half = probe(build(name)), probe(build(name, dtype))
    assert (exact.max_positions, exact.max_tokens) == (half.max_positions, half.max_tokens)
    for a, b in zip(exact.layers, half.layers, strict=True):
        assert (a.rotary.style, a.rotary.start, a.window) == (b.rotary.style, b.rotary.start, b.window)
        assert torch.equal(a.rotary.inv_freq, b.rotary.inv_freq)


@pytest.mark.parametrize("name", REFUSED)
def test_refused_for_its_own_reason(name: str) -> None:
    with pytest.raises(UnsupportedModel, match=REFUSED[name][2]) as caught:
        probe(build(name))
    assert str(caught.value).endswith(".")
    assert str(caught.value).count(". ") == 0


@pytest.mark.parametrize("name", TELLTALE)
def test_refused_by_behaviour_alone(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exactness, "refuse_by_configuration", lambda model, config: None)
    with pytest.raises(UnsupportedModel, match=r"hidden states|without attention"):
        probe(build(name))


def test_encoder_decoder_is_refused() -> None:
    config = T5Config(vocab_size=64, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2)
    with pytest.raises(UnsupportedModel, match="encoder-decoder"):
        probe(T5ForConditionalGeneration(config))


def test_bidirectional_model_is_refused() -> None:
    config = Gemma3TextConfig(**ACCEPTED["gemma3"][1], use_bidirectional_attention=True)
    config._attn_implementation = "eager"
    with pytest.raises(UnsupportedModel, match="not causal"):
        probe(Gemma3ForCausalLM(config).eval())


def test_attention_that_does_more_than_it_says_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model = build("llama")
    plain = modeling_llama.eager_attention_forward

    def sharper(module, query, *args, **kwargs):  # type: ignore[no-untyped-def]
        return plain(module, 1.5 * query, *args, **kwargs)

    monkeypatch.setattr(modeling_llama, "eager_attention_forward", sharper)
    with pytest.raises(UnsupportedModel, match="more in its attention"):
        probe(model)


@pytest.mark.parametrize(
    ("name", "windows"),
    [
        ("llama", [None, None, None]),
        ("mistral", [7, 7, 7]),
        ("qwen2-sliding", [None, 6, 6]),
        ("qwen2-moe", [6, None, None]),  # does not pass its window to the attention function
        ("phimoe", [6, 6, 6]),  # nor does this, and its layers have no attribute for it
        ("gemma2", [7, None, 7]),
        ("exaone4", [6, 6, None]),  # the full layer has the attribute all the same
        ("gemma4-shared", [7, None, 7, None]),
    ],
)
def test_windows(name: str, windows: list[int | None]) -> None:
    assert [layer.window for layer in probe(build(name)).layers] == windows


@pytest.mark.parametrize(
    ("name", "styles"),
    [
        ("llama", ["half 0+8"] * 3),
        ("cohere2", ["interleaved 0+8", "interleaved 0+8", "none 0+0"]),
        ("smollm3", ["half 0+8", "none 0+0", "half 0+8"]),
        ("gpt-neox", ["half 0+4"] * 3),
        ("glm4", ["interleaved 0+4"] * 3),
        ("deepseek-v2", ["interleaved 12+8"] * 3),
        ("deepseek-v3", ["half 12+8"] * 3),  # permuted to halves before it rotates
    ],
)
def test_styles(name: str, styles: list[str]) -> None:
    rotaries = [layer.rotary for layer in probe(build(name)).layers]
    assert [f"{rotary.style} {rotary.start}+{rotary.rotated}" for rotary in rotaries] == styles


def test_shapes_and_shared_rotations() -> None:
    shape = probe(build("deepseek-v2"))
    layer = shape.layers[0]
    assert (layer.q_heads, layer.kv_heads, layer.k_dim, layer.v_dim) == (4, 4, 20, 10)
    assert (shape.vocab, shape.hidden, len(shape.layers)) == (96, 48, 3)
    local, other, full = (layer.rotary for layer in probe(build("gemma3")).layers)
    assert local is other
    assert not torch.equal(local.inv_freq, full.inv_freq)


@pytest.mark.parametrize(
    ("name", "limits"),
    [
        ("llama-yarn", (None, None)),
        ("phi3-longrope", (64, None)),
        ("ministral3", (64, None)),
        ("llama4", (63, 63)),
    ],
)
def test_limits(name: str, limits: tuple[int | None, int | None]) -> None:
    shape = probe(build(name))
    assert (shape.max_positions, shape.max_tokens) == limits


@pytest.mark.parametrize("name", ["phi3-longrope", "ministral3", "llama4"])
def test_limits_are_tight(name: str) -> None:
    """At the limit the model is exact, one position further it is not."""
    model = build(name, torch.float64)
    shape = probe(model)
    assert shape.max_positions is not None
    for length, exact in ((shape.max_positions, True), (shape.max_positions + 1, False)):
        ids = random_ids(length)
        with torch.no_grad():
            wanted = model(input_ids=ids[None], use_cache=False).logits[0, -1]
        slow = Slow(shape)
        for piece in ids.split(40):
            out = seam.call(model, piece, attention=slow, logits_index=torch.tensor([piece.shape[0] - 1]))
        error = float((out.logits[0] - wanted).abs().max() / wanted.abs().max())
        assert (error < 1e-5) is exact


def test_longrope_is_pinned_to_its_short_frequencies() -> None:
    model = build("phi3-longrope")
    fresh = probe(model).layers[0].rotary.inv_freq.clone()
    with torch.no_grad():
        model(input_ids=random_ids(80)[None], use_cache=False)  # the model now holds its long frequencies
    shape = probe(model)
    assert torch.equal(shape.layers[0].rotary.inv_freq, fresh)
    with torch.no_grad():
        model(input_ids=random_ids(80)[None], use_cache=False)
    assert torch.equal(shape.layers[0].rotary.inv_freq, fresh)


@pytest.mark.parametrize("name", ["llama", "gemma4-shared", "phi3-longrope", "bamba"])
def test_probe_leaves_no_trace(name: str) -> None:
    model = build(name).train()
    model.get_input_embeddings().eval()
    before = copy.deepcopy(model)
    if name in REFUSED:
        with pytest.raises(UnsupportedModel):
            probe(model)
    else:
        probe(model)
    assert model.config.to_dict() == before.config.to_dict()
    for (path, module), old in zip(model.named_modules(), before.modules(), strict=True):
        assert module.training == old.training, path
        assert not module._forward_hooks or path == ""
        config = getattr(module, "config", None)
        if config is not None:
            assert config._attn_implementation == "eager"
    for (path, tensor), old in zip(model.state_dict().items(), before.state_dict().values(), strict=True):
        assert torch.equal(tensor, old), path
    for (path, buffer), old in zip(model.named_buffers(), before.buffers(), strict=True):
        assert torch.equal(buffer, old), path


def test_rotation_the_other_way_is_found() -> None:
    rotary: Rotary = probe(build("nanochat")).layers[0].rotary
    assert bool((rotary.inv_freq < 0).all())
