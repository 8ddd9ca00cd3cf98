"""LoRA adapters in PEFT's form, merged when a model is loaded.

Covers: merged weights against a forward with the low-rank layers beside the model's own, and against peft's own where
it is installed; packed weights of merged ones, of folders and GGUF files, and that other layers are packed as ever;
fingerprints, saved blocks and traces that tell adapters apart; an adapter's folder as a model; what is refused, by
name. Not covered: what an adapter is worth (studies/).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import toy_engine
from cli_calls import solve
from kvorum import Budget, Engine, Row, View, programs
from kvorum.cli import main
from kvorum.cli.served_models import offered_models
from kvorum.errors import BadRequest, BlockMismatch, KvorumError, ModelFileError, UnsupportedModel
from kvorum.lab.training.low_rank import LowRankLinear, add_low_rank, write_adapter
from kvorum.models.adapter import PREFIX, WEIGHTS, read_adapter
from kvorum.models.adapter_config import CONFIG
from kvorum.models.load import find_folder, load_model
from kvorum.models.packed.layers import PackedLinear
from tiny_folder import own_home, tiny_file

SEVEN = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
IDS = list(b"What is 2 + 2? It is four.")
EXACT: dict[str, Any] = {"quantize": None, "dtype": "float32", "attention": "reference", "kv_tokens": 256}


def beside(model: nn.Module, targets: tuple[str, ...] = SEVEN, seed: int = 0) -> dict[str, LowRankLinear]:
    """Random low-rank layers beside a model's own, in numbers that float16 has."""
    draw = torch.Generator().manual_seed(seed)
    layers = add_low_rank(model, targets, 3, 6.0, draw)
    with torch.no_grad():
        for layer in layers.values():
            layer.b.copy_(torch.randn(layer.b.shape, generator=draw) * 0.3)
            for half in (layer.a, layer.b):
                half.copy_(half.half().float())
    return layers


@pytest.fixture
def base(tmp_path: Path) -> Path:
    toy_engine.model(torch.float32).save_pretrained(tmp_path / "base")
    toy_engine.tokenizer().save_pretrained(tmp_path / "base")
    return tmp_path / "base"


@pytest.fixture
def adapter(tmp_path: Path, base: Path) -> Path:
    write_adapter(tmp_path / "adapter", beside(toy_engine.model(torch.float32)), str(base))
    return tmp_path / "adapter"


def logits(engine: Engine) -> Tensor:
    every = engine.forward([Row(View(engine.block()), ids=IDS)], every=True).every
    assert every is not None
    return every[0]


def test_merged_weights_compute_what_low_rank_layers_beside_them_do(base: Path, adapter: Path) -> None:
    model = toy_engine.model(torch.float32)
    plain = logits(Engine(model, attention="reference", kv_tokens=256))
    beside(model)
    explicit = logits(Engine(model, attention="reference", kv_tokens=256))
    merged = logits(Engine.load(base, adapter=adapter, **EXACT))
    torch.testing.assert_close(merged, explicit, rtol=1e-4, atol=1e-4)
    assert float((plain - explicit).abs().max()) > 0.5


@pytest.mark.filterwarnings("ignore::FutureWarning")  # what peft still asks of transformers
def test_merged_weights_compute_what_pefts_own_do(base: Path, adapter: Path) -> None:
    peft: Any = pytest.importorskip("peft")
    model = peft.PeftModel.from_pretrained(toy_engine.model(torch.float32), adapter).eval()
    with torch.no_grad():
        theirs = model(input_ids=torch.tensor([IDS])).logits[0]
    torch.testing.assert_close(logits(Engine.load(base, adapter=adapter, **EXACT)), theirs, rtol=1e-4, atol=1e-4)


def test_packed_weights_are_made_of_merged_ones(base: Path, adapter: Path) -> None:
    exact = load_model(base, adapter=adapter).model
    packed = load_model(base, adapter=adapter, packed=True).model
    changed = 0
    for name, layer in packed.named_modules():
        if isinstance(layer, PackedLinear) and name.endswith(SEVEN):
            want = exact.get_parameter(f"{name}.weight")
            assert relative(layer, want) < 0.011
            assert relative(layer, toy_engine.model(torch.float32).get_parameter(f"{name}.weight")) > 0.1
            changed += 1
    assert changed == 18, "three layers; down_proj has 48 inputs and stays as it is"
    torch.testing.assert_close(
        packed.get_parameter("model.layers.0.mlp.down_proj.weight"),
        exact.get_parameter("model.layers.0.mlp.down_proj.weight"),
    )


def relative(layer: PackedLinear, weight: Tensor) -> float:
    (part,) = layer.packed.parts
    return float((part.dequantize() - weight).norm() / weight.norm())


def test_of_a_gguf_file_what_is_not_changed_is_packed_as_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own_home(tmp_path / "home", monkeypatch)
    write_adapter(tmp_path / "some", beside(load_model(tiny_file()).model, ("q_proj", "down_proj")), "")
    exact = load_model(tiny_file(), adapter=tmp_path / "some").model
    plain = load_model(tiny_file(), packed=True).model
    packed = load_model(tiny_file(), packed=True, adapter=tmp_path / "some").model
    for name, layer in packed.named_modules():
        if not isinstance(layer, PackedLinear):
            continue
        if name.endswith(("q_proj", "down_proj")):
            assert layer.packed.parts[0].bits == 7
            assert relative(layer, exact.get_parameter(f"{name}.weight")) < 0.011
        else:
            other = plain.get_submodule(name)
            assert isinstance(other, PackedLinear)
            assert torch.equal(layer.packed.parts[0].data, other.packed.parts[0].data)
    loaded = [Engine.load(tiny_file(), adapter=given, kv_tokens=64) for given in (None, tmp_path / "some")]
    assert loaded[0].backend.fingerprint != loaded[1].backend.fingerprint


def test_fingerprints_and_blocks_tell_adapters_apart(tmp_path: Path, base: Path, adapter: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / CONFIG).write_text((adapter / CONFIG).read_text())
    tensors = load_file(adapter / WEIGHTS)
    key = f"{PREFIX}model.layers.2.mlp.gate_proj.lora_B.weight"
    tensors[key][-1, -1] += 0.25  # of 1536 products 32 change, few of them where the fingerprint looks
    save_file(tensors, other / WEIGHTS, metadata={"format": "pt"})
    engines = [Engine.load(base, adapter=given, **EXACT) for given in (None, adapter, other, adapter)]
    one, two, three, again = (engine.backend.fingerprint for engine in engines)
    assert len({one, two, three}) == 3
    assert again == two
    block = engines[1].block()
    engines[1].forward([Row(View(block), ids=IDS)])
    path = engines[1].save(block, tmp_path / "block.safetensors")
    assert len(engines[3].load_block(path)) == len(IDS)
    for engine in (engines[0], engines[2]):
        with pytest.raises(BlockMismatch, match="another model"):
            engine.load_block(path)


def test_an_adapters_folder_is_the_model_that_it_names(base: Path, adapter: Path) -> None:
    named, given = Engine.load(adapter, **EXACT), Engine.load(base, adapter=adapter, **EXACT)
    assert torch.equal(logits(named), logits(given))
    assert named.name == str(adapter)
    assert named.about()["adapter"] == given.about()["adapter"] == read_adapter(adapter).about()
    assert "adapter" not in Engine.load(base, **EXACT).about()
    with pytest.raises(BadRequest, match="is an adapter itself"):
        Engine.load(adapter, adapter=adapter)
    with pytest.raises(UnsupportedModel, match="the local backend alone"):
        find_folder(adapter)
    with pytest.raises(BadRequest, match="draft or adapter"):
        Engine.load(base, adapter=adapter, backend="vllm")
    config(adapter, base_model_name_or_path=None)
    with pytest.raises(ModelFileError, match="does not name its model"):
        Engine.load(adapter)


def config(folder: Path, **changes: Any) -> None:
    settings = json.loads((folder / CONFIG).read_text()) | changes
    (folder / CONFIG).write_text(json.dumps(settings))


def weights(folder: Path, change: Callable[[dict[str, Tensor]], Any]) -> None:
    tensors = load_file(folder / WEIGHTS)
    change(tensors)
    save_file(tensors, folder / WEIGHTS)


def test_settings_that_pefts_newer_versions_write_for_plain_lora_are_read(base: Path, adapter: Path) -> None:
    off = (
        "alora_invocation_tokens",
        "arrow_config",
        "corda_config",
        "layer_replication",
        "lora_ga_config",
        "loftq_config",
    )
    config(adapter, **dict.fromkeys(off), ensure_weight_tying=False, use_bdlora=None, target_parameters=None)
    config(adapter, use_qalora=False, qalora_group_size=16, megatron_core="megatron.core", peft_version="0.19.1")
    load_model(base, adapter=adapter)
    config(adapter, use_qalora=True)
    with pytest.raises(UnsupportedModel, match="use_qalora is true"):
        read_adapter(adapter)


Q = f"{PREFIX}model.layers.0.self_attn.q_proj"
REFUSED: dict[str, tuple[type[KvorumError], str, Callable[[Path], Any]]] = {
    "dora": (UnsupportedModel, "use_dora is true; DoRA", lambda f: config(f, use_dora=True)),
    "bias": (UnsupportedModel, 'bias is "all"', lambda f: config(f, bias="all")),
    "modules": (UnsupportedModel, "modules_to_save", lambda f: config(f, modules_to_save=["lm_head"])),
    "ranks": (UnsupportedModel, "rank_pattern", lambda f: config(f, rank_pattern={"q_proj": 8})),
    "another kind": (UnsupportedModel, 'peft_type is "IA3"', lambda f: config(f, peft_type="IA3")),
    "other weights": (UnsupportedModel, "changing the model's own", lambda f: config(f, init_lora_weights="pissa")),
    "unknown": (UnsupportedModel, "use_magic is 1; which is not known", lambda f: config(f, use_magic=1)),
    "rank": (ModelFileError, "r is 'three'", lambda f: config(f, r="three")),
    "another rank": (ModelFileError, r"has no A \[4, in\]", lambda f: config(f, r=4)),
    "targets": (ModelFileError, "target_modules is \\[\\]", lambda f: config(f, target_modules=[])),
    "pattern": (ModelFileError, "target_modules is '\\('", lambda f: config(f, target_modules="(")),
    "not meant": (ModelFileError, "not among its target_modules", lambda f: config(f, target_modules=["v_proj"])),
    "no layer": (ModelFileError, "no linear layer model.layers.0.self_attn.w", lambda f: weights(f, moved)),
    "half": (ModelFileError, "has no A", lambda f: weights(f, lambda t: t.pop(f"{Q}.lora_B.weight"))),
    "shape": (ModelFileError, r"q_proj of \[32, 16\] \(not \[32, 32\]\)", lambda f: weights(f, narrow)),
    "missing": (ModelFileError, "it has nothing for model.layers.0", lambda f: weights(f, without)),
    "more": (UnsupportedModel, "lora_magnitude_vector", lambda f: weights(f, magnitude)),
    "not finite": (
        ModelFileError,
        "no finite number",
        lambda f: weights(f, endless),
    ),
    "strange": (ModelFileError, "is no adapter's", lambda f: weights(f, lambda t: t.update(x=torch.zeros(1)))),
    "no weights": (ModelFileError, f"has no {WEIGHTS}", lambda f: (f / WEIGHTS).unlink()),
    "pickled": (ModelFileError, "only pickled weights", lambda f: (f / WEIGHTS).rename(f / "adapter_model.bin")),
    "cut": (ModelFileError, "cut short", lambda f: (f / WEIGHTS).write_bytes((f / WEIGHTS).read_bytes()[:999])),
    "no settings": (ModelFileError, "is no adapter", lambda f: (f / CONFIG).unlink()),
    "no JSON": (ModelFileError, "cannot be read", lambda f: (f / CONFIG).write_text("{")),
    "no object": (ModelFileError, "no JSON object", lambda f: (f / CONFIG).write_text("[]")),
}


def moved(tensors: dict[str, Tensor]) -> None:
    for half in "AB":
        tensors[f"{PREFIX}model.layers.0.self_attn.w.q_proj.lora_{half}.weight"] = tensors[
            f"{Q}.lora_{half}.weight"
        ].clone()


def narrow(tensors: dict[str, Tensor]) -> None:
    tensors[f"{Q}.lora_A.weight"] = tensors[f"{Q}.lora_A.weight"][:, :16].contiguous()


def endless(tensors: dict[str, Tensor]) -> None:
    tensors[f"{Q}.lora_A.weight"][0, 0] = float("inf")


def without(tensors: dict[str, Tensor]) -> None:
    for half in "AB":
        del tensors[f"{Q}.lora_{half}.weight"]


def magnitude(tensors: dict[str, Tensor]) -> None:
    tensors[f"{Q}.lora_magnitude_vector"] = torch.ones(32)


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_fit_is_named(case: str, base: Path, adapter: Path) -> None:
    kind, words, damage = REFUSED[case]
    damage(adapter)
    with pytest.raises(kind, match=words) as error:
        load_model(base, adapter=adapter)
    assert str(error.value).count("\n") == 0


def test_an_adapter_for_another_model_is_refused(adapter: Path) -> None:
    config(adapter, base_model_name_or_path="qwen2.5-coder-0.5b")
    with pytest.raises(ModelFileError, match=r"was made for qwen2\.5-coder-0\.5b, and the model is smollm2-135m"):
        read_adapter(adapter).check(toy_engine.model(), "smollm2-135m")


def test_an_output_layer_that_is_the_embedding_is_not_changed(tmp_path: Path) -> None:
    write_adapter(tmp_path / "head", beside(toy_engine.model(torch.float32), ("lm_head",)), "")
    model = toy_engine.model()
    read_adapter(tmp_path / "head").check(model, "toy")
    model.lm_head.weight = model.model.embed_tokens.weight
    with pytest.raises(UnsupportedModel, match="which is the embedding as well"):
        read_adapter(tmp_path / "head").check(model, "toy")


def test_traces_name_the_adapter_and_replays_load_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    own_home(tmp_path / "home", monkeypatch)
    folder, trace = tmp_path / "some", tmp_path / "run.jsonl"
    write_adapter(folder, beside(load_model(tiny_file()).model, ("v_proj",)), str(tiny_file()))
    assert solve(str(tiny_file()), "--adapter", str(folder), "--trace", str(trace)) == 0
    start = json.loads(trace.read_text().splitlines()[0])
    assert start["model"]["adapter"] == read_adapter(folder).about()
    capsys.readouterr()
    assert main(["replay", str(trace)]) == 0
    named = Engine.load(f"{folder}/", kv_tokens=512)  # as a shell completes it
    named.run(programs.solo, "Go.", budget=Budget(ticks=2), trace=tmp_path / "named.jsonl")
    assert main(["replay", str(tmp_path / "named.jsonl"), "-m", str(folder)]) == 0
    folder.rename(tmp_path / "moved")
    assert main(["replay", str(trace), "--adapter", str(tmp_path / "moved")]) == 0
    assert main(["check", str(tmp_path / "moved")]) == 1, "random weights read no English"
    assert "none for merged weights" in capsys.readouterr().out
    config(tmp_path / "moved", lora_alpha=7.0)
    assert main(["replay", str(trace), "--adapter", str(tmp_path / "moved")]) == 2
    assert "was made with the adapter" in capsys.readouterr().err


def test_one_adapter_is_for_one_served_model(adapter: Path, base: Path) -> None:
    options: Any = {"adapter": str(adapter)}
    with pytest.raises(BadRequest, match="-m NAME -m FOLDER"):
        offered_models([str(base), str(base)], options, lambda: None)
