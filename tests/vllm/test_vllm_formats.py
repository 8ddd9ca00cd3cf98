"""Half precision and a quantised format on vLLM's workers: bfloat16, and int8 weights with int8 activations.

A tiny Qwen3 in each, one process. In bfloat16 the logits are those of the local backend in float32 on the same weights
within what bfloat16 explains. The quantised folder is one of compressed-tensors, written here; what its logits must be
is computed by the local backend on a model whose linear layers round their inputs and weights as the format says. A
format that vLLM has not for the device is refused in a sentence. Not covered: formats whose kernels need a GPU (fp8,
AWQ, GPTQ by Marlin), and how much a format loses on a real model.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from spread_engines import MARKS, in_this_process
from torch import Tensor, nn

import families
from kvorum import Engine, Gap, Row, Span, View
from kvorum.errors import UnsupportedModel
from toy_engine import tokenizer

pytestmark = MARKS
FORMAT = {
    "quant_method": "compressed-tensors",
    "format": "int-quantized",
    "quantization_status": "compressed",
    "ignore": ["lm_head"],
    "config_groups": {
        "group_0": {
            "targets": ["Linear"],
            "weights": {"num_bits": 8, "type": "int", "symmetric": True, "strategy": "channel", "dynamic": False},
            "input_activations": {
                "num_bits": 8,
                "type": "int",
                "symmetric": True,
                "strategy": "token",
                "dynamic": True,
            },
        }
    },
}


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> Any:
    """With sizes that the kernels for half precision take."""
    kind, options = families.ACCEPTED["qwen3"]
    options = {**options, "hidden_size": 64, "intermediate_size": 96, "num_attention_heads": 4}
    monkeypatch.setitem(families.ACCEPTED, "qwen3", (kind, options))
    return families.build("qwen3")


def keep(model: Any, folder: Path) -> None:
    model.save_pretrained(folder)
    tokenizer().save_pretrained(folder)


def played(engine: Engine) -> Tensor:
    """Logits ``[tokens, vocab]`` of two workers that see each other, behind a part of a prompt and a gap."""
    ids: list[int] = families.random_ids(40, 5).tolist()
    found: list[Tensor] = []
    p, a, b = (engine.block() for _ in range(3))
    found += engine.forward([Row(View(p), ids=ids[:14])], every=True).every or ()
    views = [View(p, b, a), View(Span(p, 1, 9), Gap(2), a, b)]
    for at in range(14, 40, 2):
        found += (
            engine.forward([Row(view, ids=[i]) for view, i in zip(views, ids[at:], strict=False)], every=True).every
            or ()
        )
    return torch.cat(found).float()


def far(ours: Tensor, theirs: Tensor) -> Tensor:
    """Of each token the distance of its logits, as a part of their length."""
    distance: Tensor = (ours - theirs).norm(dim=1) / theirs.norm(dim=1)
    return distance


def test_bfloat16_is_float32_but_for_its_rounding(model: Any, tmp_path: Path) -> None:
    keep(model.to(torch.bfloat16), tmp_path)
    with in_this_process(tmp_path, dtype="bfloat16", kv_tokens=256) as there:
        assert there.dtype == there.backend.cache.dtype == torch.bfloat16
        ours = played(there)
    exact, half = (
        played(Engine.load(tmp_path, quantize=None, dtype=dtype, kv_tokens=256, attention="reference"))
        for dtype in ("float32", "bfloat16")
    )
    assert float(far(ours, exact).median()) < 1.5e-2
    assert float(far(ours, exact).max()) < 3e-2
    assert float(far(ours, exact).median()) < 2 * float(far(half, exact).median())


def quantised(folder: Path) -> dict[str, Tensor]:
    """Write a folder's linear layers in int8, one scale for each output; what their weights are now."""
    file = folder / "model.safetensors"
    kept: dict[str, Tensor] = {}
    meant: dict[str, Tensor] = {}
    for name, weight in load_file(file).items():
        if weight.ndim < 2 or "embed" in name or "lm_head" in name:
            kept[name] = weight
            continue
        scale = weight.abs().amax(1, keepdim=True) / 127
        kept[name] = (weight / scale).round().clamp(-128, 127).to(torch.int8)
        kept[f"{name}_scale"] = scale
        meant[name] = kept[name] * scale
    save_file(kept, file, metadata={"format": "pt"})
    config = folder / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "quantization_config": FORMAT}))
    return meant


def rounded(module: nn.Module, given: tuple[Tensor]) -> tuple[Tensor]:
    """Inputs of a linear layer as one int8 number each, with a scale for each token."""
    (x,) = given
    scale = x.abs().amax(-1, keepdim=True) / 127
    return ((x / scale).round().clamp(-128, 127) * scale,)


def test_int8_weights_and_activations_are_what_the_format_says(model: Any, tmp_path: Path) -> None:
    keep(model, tmp_path)
    weights = quantised(tmp_path)
    with in_this_process(tmp_path, kv_tokens=256) as there:
        assert there.weights == "compressed-tensors"
        ours = played(there)
        fingerprint = there.backend.fingerprint
    plain = played(Engine(model, kv_tokens=256, attention="reference"))
    with torch.no_grad():
        for name, module in model.named_modules():
            if f"{name}.weight" in weights:
                module.weight.copy_(weights[f"{name}.weight"])
                module.register_forward_pre_hook(rounded)
    here = Engine(model, kv_tokens=256, attention="reference")
    meant = played(here)
    assert float(far(ours, meant).median()) < 1e-5
    assert float(far(ours, meant).max()) < 2e-2  # where rounding tips a number to its neighbour
    assert float(far(ours, meant).median()) < 0.1 * float(far(plain, meant).median())
    assert fingerprint != here.backend.fingerprint


@pytest.mark.parametrize(
    ("method", "words"),
    [
        ("awq", "Cannot find the config file for awq"),
        ("fp8", "torch.float32 is not supported for quantization method fp8"),
        ("nothing", "Unknown quantization method: nothing"),
    ],
)
def test_a_format_that_the_files_are_not_in_is_refused(model: Any, tmp_path: Path, method: str, words: str) -> None:
    keep(model, tmp_path)
    with (
        pytest.raises(UnsupportedModel, match=f"vLLM does not run .* like this: {words}"),
        in_this_process(tmp_path, vllm={"quantization": method}),
    ):
        pass
