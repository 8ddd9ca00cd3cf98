"""The lean decoder against its twin, the generic modules through the seam, on the same packed weights.

Both quantise their inputs, where a rounding can become a whole step, so the arithmetic is compared with that switched
off; with it on, only agreement within the noise of quantisation can be asked for. Covers Llama, Mistral (window), Qwen2
(biases), Qwen3 (norms of q and k), YaRN, SmolLM3 (layers without rotation) and Granite (scales); ids, embeddings and
hidden states; does not cover speed.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import (
    GraniteConfig,
    GraniteForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
    SmolLM3Config,
    SmolLM3ForCausalLM,
)

from kvorum import Engine, Row, View
from kvorum.backends.local.backend import LocalBackend
from kvorum.models.packed import matrix, products
from kvorum.models.packed.quantize import quantize_model

SIZES: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 160,
}
YARN = {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 8.0, "original_max_position_embeddings": 8}
MODELS = {
    "llama": (LlamaForCausalLM, LlamaConfig(**SIZES, tie_word_embeddings=True)),
    "mistral": (MistralForCausalLM, MistralConfig(**SIZES, sliding_window=6)),
    "qwen2": (Qwen2ForCausalLM, Qwen2Config(**SIZES)),
    "qwen3": (Qwen3ForCausalLM, Qwen3Config(**SIZES, head_dim=32)),
    "yarn": (LlamaForCausalLM, LlamaConfig(**SIZES, rope_parameters=YARN)),
    "smollm3": (
        SmolLM3ForCausalLM,
        SmolLM3Config(**SIZES, rope_parameters=YARN, no_rope_layer_interval=2, pad_token_id=0),
    ),
    "granite": (
        GraniteForCausalLM,
        GraniteConfig(
            **SIZES,
            attention_bias=True,
            attention_multiplier=0.3,
            embedding_multiplier=3.0,
            residual_multiplier=0.4,
            logits_scaling=2.0,
        ),
    ),
}


def made(kind: str) -> PreTrainedModel:
    torch.manual_seed(3)
    cls, config = MODELS[kind]
    model: PreTrainedModel = cls(config)
    model.train(False)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim == 1:  # norms and biases begin as ones and zeros
                weight.add_(0.3 * torch.randn_like(weight))
    quantize_model(model)
    return model


def logits(model: torch.nn.Module, *, use_lean: bool) -> tuple[torch.Tensor, torch.Tensor]:
    engine = Engine(model, kv_tokens=256, attention="reference", runner="lean" if use_lean else "generic")
    a, b = engine.block(), engine.block()
    engine.forward([Row(View(a), ids=list(range(20)))])
    embeds = torch.randn(2, engine.shape.hidden, generator=torch.Generator().manual_seed(1))
    out = engine.forward([Row(View(b, a), ids=[5]), Row(View(a, b), embeds=embeds)], hidden=True)
    assert out.hidden is not None
    return out.logits, out.hidden


@pytest.mark.parametrize("kind", MODELS)
def test_same_arithmetic(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With inputs left as they are, both give the same numbers."""

    def whole(x: torch.Tensor) -> products.Activations:
        groups = x.view(x.shape[0], -1, matrix.GROUP).transpose(0, 1)
        return products.Activations(groups, torch.ones(*groups.shape[:2], 2))

    monkeypatch.setattr(products, "verified_kernels", lambda: None)
    monkeypatch.setattr(products, "_quantize", whole)
    model = made(kind)
    for ours, twin in zip(logits(model, use_lean=True), logits(model, use_lean=False), strict=True):
        assert torch.allclose(ours, twin, atol=2e-5 * float(twin.abs().max()))


@pytest.mark.parametrize("kind", MODELS)
def test_within_the_noise_of_quantised_inputs(kind: str) -> None:
    model = made(kind)
    for ours, twin in zip(logits(model, use_lean=True), logits(model, use_lean=False), strict=True):
        assert float((ours - twin).norm() / twin.norm()) < 0.05


def test_other_shapes_go_through_the_seam() -> None:
    torch.manual_seed(0)
    plain = LlamaForCausalLM(LlamaConfig(**SIZES)).eval()
    assert runner_of(plain) == "generic"
    quantize_model(plain)
    assert runner_of(plain) == "lean"
    plain.config.model_type = "other"
    assert runner_of(plain) == "generic"


def runner_of(model: torch.nn.Module) -> str:
    return LocalBackend(model, kv_tokens=16).runner.name


@pytest.mark.skipif(products.native_path() is None, reason="needs kvorum-native")
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(
    ("kind", "kv_dtype"), [*((kind, "auto") for kind in MODELS), ("mistral", "int8"), ("qwen3", "int8")]
)
def test_a_rows_bits_do_not_depend_on_the_rows_beside_it(kind: str, kv_dtype: str, threads: int) -> None:
    """A row alone, and first or last among strangers that share its prompt, in one thread and in two."""
    engine = Engine(made(kind), kv_tokens=4096, attention="native", kv_dtype=kv_dtype)
    prompt = engine.block("prompt")
    engine.forward([Row(View(prompt), ids=[(7 * i) % 160 for i in range(700)])])
    prompt.seal()
    before = torch.get_num_threads()
    found = []
    try:
        for place, count in (("alone", 1), ("last", threads), ("first", threads)):
            torch.set_num_threads(count)
            mine = View(prompt, engine.block("mine"))
            mine_first, *others = ([5, 6], [9] * 41, [3])
            for step in range(3):
                rows = [Row(mine, ids=mine_first if step == 0 else [step])]
                if place != "alone":
                    strangers = [Row(View(prompt, engine.block()), ids=ids) for ids in others]
                    rows = [*strangers, *rows] if place == "last" else [*rows, *strangers]
                out = engine.forward(rows)
                found.append((step, out.logits[0 if place == "first" else -1]))
    finally:
        torch.set_num_threads(before)
    for step, line in found:
        assert torch.equal(line, found[step][1])


def test_what_is_handed_out_are_plain_tensors() -> None:
    """A loop of one's own may write to logits, and keep hidden states for a graph of its own."""
    torch.manual_seed(0)
    plain = LlamaForCausalLM(LlamaConfig(**SIZES)).eval()
    quantize_model(plain)
    for runner in ("lean", "generic"):
        engine = Engine(plain, kv_tokens=64, runner=runner)
        out = engine.forward([Row(View(engine.block()), ids=[1, 2, 3])], hidden=True, every=True)
        assert out.hidden is not None
        assert out.every is not None
        for tensor in (out.logits, out.hidden, *out.every):
            assert not tensor.is_inference()
            tensor[:, 0] = float("-inf")
        assert bool(torch.isinf(out.logits[:, 0]).all())


def test_written_logits_are_the_callers_alone() -> None:
    """What a block goes on from is what the model said, whoever wrote to the output since."""
    torch.manual_seed(0)
    plain = LlamaForCausalLM(LlamaConfig(**SIZES)).eval()
    for every in (False, True):
        engine = Engine(plain, kv_tokens=64)
        block = engine.block()
        out = engine.forward([Row(View(block), ids=[1, 2, 3])], every=every)
        said = engine.forward([Row(View(engine.block()), ids=[1, 2, 3])]).logits[0]
        out.logits.fill_(-1.0)
        for piece in out.every or ():
            piece.fill_(-1.0)
        assert block.logits is not None
        assert torch.allclose(block.logits, said, atol=1e-5)
