"""Packed weights: native kernels against their twins, formats against gguf's own, models saved and loaded."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType, dequantize, quants
from transformers import (
    AutoModelForCausalLM,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from kvorum.errors import ModelFileError
from kvorum.models.gguf.file import GGUFTensor
from kvorum.models.gguf.skeleton import skeleton
from kvorum.models.packed import matrix as P
from kvorum.models.packed import products
from kvorum.models.packed.from_gguf import packed_part
from kvorum.models.packed.layers import PackedEmbedding, load_packed, save_packed
from kvorum.models.packed.quantize import quantize_model
from kvorum.native_extension import kernels

HAS_NATIVE = importlib.util.find_spec("kvorum_native") is not None
Causal = LlamaForCausalLM | Qwen2ForCausalLM
needs_native = pytest.mark.skipif(not HAS_NATIVE, reason="kvorum-native is not installed")


def forget() -> None:
    products.verified_kernels.cache_clear()
    kernels.cache_clear()


def switch(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("KVORUM_NATIVE", value)
    forget()


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    torch.manual_seed(0)
    yield
    forget()


@pytest.fixture(params=["torch", pytest.param("native", marks=needs_native)])
def path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    switch(monkeypatch, "0" if request.param == "torch" else "1")
    assert (products.native_path() is None) == (request.param == "torch")
    return str(request.param)


def native_paths() -> list[str]:
    if not HAS_NATIVE:
        return []
    import kvorum_native

    return list(kvorum_native.paths())


@pytest.mark.parametrize("bits", [4, 7])
def test_packing_keeps_codes_scales_and_mins(bits: int) -> None:
    codes = torch.randint(0, 2**bits, (40, 96), dtype=torch.uint8)
    scale, low = torch.rand(40, 3).half().float(), torch.randn(40, 3).half().float()
    part = P.pack(codes, scale, low, bits)
    want = codes * scale.repeat_interleave(32, 1) + low.repeat_interleave(32, 1)
    torch.testing.assert_close(part.dequantize(), want, rtol=1e-6, atol=1e-6)
    some = torch.tensor([39, 0, 17])
    torch.testing.assert_close(part.dequantize(some), want[some], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("bits", "most"), [(4, 0.09), (7, 0.011)])
@pytest.mark.parametrize("size", [1.0, 1e-6, 1e4])
def test_rounding_error_does_not_depend_on_the_size_of_the_weights(bits: int, most: float, size: float) -> None:
    weight = torch.randn(64, 256) * size
    error = (P.pack_weight(weight, bits).dequantize() - weight).norm() / weight.norm()
    assert error < most


def test_constant_and_zero_rows_are_kept() -> None:
    weight = torch.zeros(16, 64)
    weight[1] = 0.25
    for bits in (4, 7):
        torch.testing.assert_close(P.pack_weight(weight, bits).dequantize(), weight)


def test_what_cannot_be_packed_is_refused() -> None:
    with pytest.raises(ValueError, match="multiple of 32"):
        P.pack(torch.zeros(16, 40, dtype=torch.uint8), torch.zeros(16, 1), torch.zeros(16, 1), 4)
    with pytest.raises(ValueError, match="4 and 7"):
        P.pack_weight(torch.zeros(16, 32), 5)
    with pytest.raises(ValueError, match="different inputs"):
        P.PackedMatrix([P.pack_weight(torch.zeros(16, 32), 4), P.pack_weight(torch.zeros(16, 64), 4)])


def test_product_is_that_of_the_dequantised_operands(path: str) -> None:
    parts = [P.pack_weight(torch.randn(n, 160), bits, torch.randn(n)) for n, bits in ((24, 4), (40, 7), (16, 4))]
    packed = P.PackedMatrix.join([P.PackedMatrix(parts[:1]), P.PackedMatrix(parts[1:])])
    weight = torch.cat([part.dequantize() for part in parts])
    bias = torch.cat([part.bias for part in parts if part.bias is not None])
    for rows in (1, 2, 3, 4, 5, 8, 16, 33, 100):
        x = products.quantize_rows(torch.randn(rows, 160))
        want = x.dequantize() @ weight.T + bias
        torch.testing.assert_close(products.product(x, packed), want, rtol=1e-4, atol=2e-4)
        wide = torch.ones(rows, 100)
        products.product(x, packed, wide[:, 10:90], add=True)
        torch.testing.assert_close(wide[:, 10:90], want + 1, rtol=1e-4, atol=2e-4)
        assert (wide[:, :10] == 1).all()
        assert (wide[:, 90:] == 1).all()


@needs_native
@pytest.mark.parametrize("name", native_paths())
@pytest.mark.parametrize("bits", [4, 7])
def test_a_row_does_not_depend_on_the_batch(name: str, bits: int, monkeypatch: pytest.MonkeyPatch) -> None:
    switch(monkeypatch, "1")
    products.native_path()
    import kvorum_native

    before = kvorum_native.path()
    kvorum_native.use(name)
    try:
        packed = P.PackedMatrix([P.pack_weight(torch.randn(144, 192), bits)])
        x = torch.randn(70, 192)
        full = products.product(products.quantize_rows(x), packed)
        for start, stop in ((0, 1), (3, 5), (7, 10), (1, 5), (2, 10), (5, 21), (30, 63)):
            assert torch.equal(products.product(products.quantize_rows(x[start:stop]), packed), full[start:stop])
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            assert torch.equal(products.product(products.quantize_rows(x), packed), full)
        finally:
            torch.set_num_threads(threads)
    finally:
        kvorum_native.use(before)


@needs_native
@pytest.mark.parametrize("name", native_paths())
@pytest.mark.parametrize("bits", [4, 7])
def test_the_products_of_every_path_are_right(name: str, bits: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not only those of the path that is taken by itself; the last block of rows is not full."""
    switch(monkeypatch, "1")
    products.native_path()
    import kvorum_native

    bias = torch.randn(40)
    part = P.pack_weight(torch.randn(40, 160), bits, bias)
    packed = P.PackedMatrix([part])
    before = kvorum_native.path()
    kvorum_native.use(name)
    try:
        for rows in (1, 2, 3, 4, 5, 6, 7, 33):
            x = products.quantize_rows(torch.randn(rows, 160))
            want = x.dequantize() @ part.dequantize().T + bias
            torch.testing.assert_close(products.product(x, packed), want, rtol=1e-4, atol=2e-4)
    finally:
        kvorum_native.use(before)


@needs_native
@pytest.mark.parametrize("name", native_paths())
def test_quantised_inputs_equal_the_twins(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.randn(37, 320)
    x[3] = 0
    x[4, 7] = 1000.0
    weight = torch.rand(320) + 0.5
    gate_up = torch.randn(37, 640) * torch.tensor([0.1, 1, 10, 30]).repeat(160)
    switch(monkeypatch, "0")
    want = [products.quantize_rows(x), products.rms_quantize(x, weight, 1e-5), products.silu_mul_quantize(gate_up)]
    switch(monkeypatch, "1")
    products.native_path()
    import kvorum_native

    before = kvorum_native.path()
    kvorum_native.use(name)
    try:
        got = [products.quantize_rows(x), products.rms_quantize(x, weight, 1e-5), products.silu_mul_quantize(gate_up)]
    finally:
        kvorum_native.use(before)
    assert torch.equal(got[0].codes, want[0].codes)
    assert torch.equal(got[0].scales, want[0].scales)
    for a, b in zip(got[1:], want[1:], strict=True):
        # A last-bit difference before rounding may move a code by one.
        assert (a.codes.int() - b.codes.int()).abs().max() <= 1
        assert (a.codes != b.codes).float().mean() < 1e-3
        torch.testing.assert_close(a.scales[..., 0], b.scales[..., 0], rtol=1e-5, atol=1e-6)


@needs_native
@pytest.mark.parametrize(("abi", "age"), [(0, "old"), (99, "new")])
def test_another_versions_kernels_are_not_used(monkeypatch: pytest.MonkeyPatch, abi: int, age: str) -> None:
    """One of before there were numbers, and a later one: a warning with what to do, and plain torch."""
    import kvorum_native

    switch(monkeypatch, "1")
    if abi == 0:
        monkeypatch.delattr(kvorum_native, "ABI")
    else:
        monkeypatch.setattr(kvorum_native, "ABI", abi)
    with pytest.warns(UserWarning, match=f"too {age} for this kvorum.*pip install"):
        assert products.native_path() is None
    assert kernels() is None


@needs_native
def test_a_wrong_path_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    switch(monkeypatch, "1")
    import kvorum_native

    class Broken(kvorum_native.Matrix):
        def forward(self, *args: object) -> None:
            return None

    monkeypatch.setattr(kvorum_native, "Matrix", Broken)
    with pytest.warns(UserWarning, match="is wrong on this processor"):
        assert products.native_path() is None


KINDS = [GGMLQuantizationType.Q4_0, GGMLQuantizationType.Q4_1, GGMLQuantizationType.Q8_0]


def blocks(kind: GGMLQuantizationType, rows: int, features: int) -> np.ndarray:
    """Quantised rows of `kind`; Q4_K, which gguf cannot write, from random bytes with sane scales."""
    if kind is not GGMLQuantizationType.Q4_K:
        return quants.quantize(torch.randn(rows, features).numpy(), kind)
    raw = np.random.default_rng(0).integers(0, 256, (rows, features // 256, 144), dtype=np.uint8)
    raw[..., :4] = np.random.default_rng(1).random((rows, features // 256, 2)).astype(np.float16).view(np.uint8)
    return raw.reshape(rows, -1)


@pytest.mark.parametrize("kind", [*KINDS, GGMLQuantizationType.Q4_K])
def test_gguf_blocks_keep_their_weights(kind: GGMLQuantizationType) -> None:
    raw = blocks(kind, 48, 512)
    want = torch.from_numpy(dequantize(raw, kind))
    order = torch.randperm(48)
    got = packed_part(GGUFTensor("weights", kind.name, tuple(want.shape), raw), order=order).dequantize()
    # Q4_K's scales are products that float16 rounds; Q8_0 is brought to 7 bits.
    most = {"Q4_0": 1e-6, "Q4_1": 1e-6, "Q4_K": 6e-4, "Q8_0": 1e-2}[kind.name]
    assert (got - want[order]).norm() / want.norm() < most


def tiny(kind: str, tied: bool = True) -> Causal:
    shape: dict[str, Any] = {
        "vocab_size": 320,
        "hidden_size": 128,
        "intermediate_size": 256,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "tie_word_embeddings": tied,
    }
    if kind == "llama":
        model: Causal = LlamaForCausalLM(LlamaConfig(**shape))
    else:
        model = Qwen2ForCausalLM(Qwen2Config(**shape))
    model.train(False)
    return model


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("kind", ["llama", "qwen2"])
def test_a_model_runs_packed_and_comes_back_from_its_file(kind: str, tied: bool, path: str, tmp_path: Path) -> None:
    model = tiny(kind, tied)
    ids = torch.randint(0, 320, (2, 9))
    with torch.no_grad():
        exact = model(ids).logits
        said: list[int] = []
        quantize_model(model, progress=lambda what, done, of: said.append(done))
        near = model(ids).logits
        assert said == list(range(16))
        assert not any(isinstance(module, torch.nn.Linear) for module in model.modules())
        assert isinstance(model.get_input_embeddings(), PackedEmbedding) == tied
        assert (near - exact).norm() / exact.norm() < 0.05
        save_packed(model, tmp_path / "packed.safetensors")
        with torch.device("meta"):
            again = AutoModelForCausalLM.from_config(model.config).eval()
        load_packed(again, tmp_path / "packed.safetensors")
        assert torch.equal(again(ids).logits, near)


def test_an_embedding_with_a_scale_keeps_it(path: str, tmp_path: Path) -> None:
    """Gemma's, tied or not; and from the kept file, which then is of a version that says so."""
    for tied in (True, False):
        shape: dict[str, Any] = {"vocab_size": 320, "hidden_size": 128, "intermediate_size": 256, "head_dim": 32}
        shape |= {"num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "pad_token_id": 0}
        model = Gemma3ForCausalLM(Gemma3TextConfig(**shape, tie_word_embeddings=tied))
        model.train(False)
        ids = torch.randint(0, 320, (2, 9))
        with torch.no_grad():
            exact = model(ids).logits
            quantize_model(model)
            near = model(ids).logits
            assert (near - exact).norm() / exact.norm() < 0.05
            save_packed(model, tmp_path / "packed.safetensors")
            again = skeleton(model.config)
            load_packed(again, tmp_path / "packed.safetensors")
            assert torch.equal(again(ids).logits, near)


def test_kept_weights_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    other = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=320,
            hidden_size=64,
            intermediate_size=256,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
        )
    )
    model = tiny("llama")
    quantize_model(model)
    save_packed(model, tmp_path / "p.safetensors")
    (tmp_path / "bad").write_bytes(b"nothing")
    with pytest.raises(ModelFileError, match="packed weights"):
        load_packed(tiny("llama"), tmp_path / "bad")
    with pytest.raises(ModelFileError, match="another"):
        load_packed(other, tmp_path / "p.safetensors")
