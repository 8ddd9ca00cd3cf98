"""Folders and hub ids as models: what loads is what transformers loads, and what is refused is named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

import families
from kvorum.errors import BadRequest, ModelFileError, UnknownName, UnsupportedModel
from kvorum.models.fingerprint import fingerprint
from kvorum.models.load import load_model


def _tiny_folder(folder: Path, *, safe: bool = True) -> LlamaForCausalLM:
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(vocab_size=32, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2)
    )
    model.save_pretrained(folder)
    if not safe:
        torch.save(model.state_dict(), folder / "pytorch_model.bin")
        (folder / "model.safetensors").unlink()
    return model


def test_a_folder_loads_as_transformers_loads_it(tmp_path: Path) -> None:
    original = _tiny_folder(tmp_path)
    loaded = load_model(tmp_path, dtype="float64")
    assert loaded.model.dtype == torch.float64
    assert loaded.tokenizer is None
    assert loaded.gguf is None
    ids = torch.arange(10)[None]
    torch.testing.assert_close(loaded.model(ids).logits, original.double().eval()(ids).logits)


def test_soft_caps_of_scores_are_in_the_models_own_forward(tmp_path: Path) -> None:
    """Whatever attention transformers takes unless told: PyTorch's own has none, so a check against it would fail."""
    model = families.build("gemma2")
    model.save_pretrained(tmp_path)
    loaded = load_model(tmp_path, dtype=torch.float32).model
    ids = families.random_ids(20)[None]
    with torch.no_grad():
        wanted = model(input_ids=ids, use_cache=False).logits
        torch.testing.assert_close(loaded(input_ids=ids, use_cache=False).logits, wanted, rtol=1e-5, atol=1e-5)


def test_pickled_weights_are_refused(tmp_path: Path) -> None:
    _tiny_folder(tmp_path, safe=False)
    with pytest.raises(ModelFileError, match=r"pytorch_model\.bin.*safetensors"):
        load_model(tmp_path)


def test_broken_folders_are_told(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match=r"no config\.json"):
        load_model(tmp_path)
    _tiny_folder(tmp_path)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:500])
    with pytest.raises(ModelFileError, match="cut short or damaged"):
        load_model(tmp_path)
    weights.unlink()
    with pytest.raises(ModelFileError, match="no weights"):
        load_model(tmp_path)
    _tiny_folder(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "nothing-we-know"}')
    with pytest.raises(UnsupportedModel, match="cannot load"):
        load_model(tmp_path)


def test_code_in_a_folder_is_not_run(tmp_path: Path) -> None:
    _tiny_folder(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config |= {"model_type": "evil", "auto_map": {"AutoConfig": "evil.Evil", "AutoModelForCausalLM": "evil.Evil"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    with pytest.raises(UnsupportedModel, match="trust_remote_code"):
        load_model(tmp_path)
    assert not (tmp_path / "ran").exists()


def test_names_that_are_nothing(tmp_path: Path) -> None:
    with pytest.raises(UnknownName, match="did you mean qwen"):
        load_model("qwen2.5-coder")
    with pytest.raises(ModelFileError, match="There is no file or folder"):
        load_model(tmp_path / "none")
    with pytest.raises(ModelFileError, match="There is no file or folder"):
        load_model("none.gguf")
    _tiny_folder(tmp_path)
    with pytest.raises(BadRequest, match="int8 is no dtype"):
        load_model(tmp_path, dtype="int8")


def test_a_path_goes_before_a_catalogue_name(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _tiny_folder(tmp_path / "smollm2-135m")
    monkeypatch.chdir(tmp_path)
    assert load_model("smollm2-135m").model.config.hidden_size == 16


def test_a_hub_that_cannot_be_reached_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ModelFileError, match="hub cannot be reached") as caught:
        load_model("org/name")
    assert "\n" not in str(caught.value)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    for name in ["org/name", "org/name:file.gguf"]:
        with pytest.raises(ModelFileError, match="HF_HUB_OFFLINE is set") as caught:
            load_model(name)
        assert "network" not in str(caught.value)
        assert "\n" not in str(caught.value)


def test_the_hub_is_asked_for_safe_files_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = _tiny_folder(tmp_path / "snapshot")
    asked: list[dict[str, Any]] = []

    def snapshot(repository: str, **options: Any) -> str:
        asked.append({"repository": repository, **options})
        return str(tmp_path / "snapshot")

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
    monkeypatch.chdir(tmp_path)
    loaded = load_model("org/name")
    assert fingerprint(loaded.model) == fingerprint(original)
    assert asked[0]["repository"] == "org/name"
    assert not {"*.py", "*.bin", "*.pt"} & set(asked[0]["allow_patterns"])
    load_model("org/name", trust_remote_code=True)
    assert "*.py" in asked[1]["allow_patterns"]


def test_all_shards_are_fetched_from_the_hub(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def fetch(repository: str, file: str) -> str:
        asked.append(file)
        return str(tmp_path / file)

    monkeypatch.setattr("huggingface_hub.hf_hub_download", fetch)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelFileError, match="cannot be read"):
        load_model("org/name:m-00001-of-00002.gguf")
    assert asked == ["m-00001-of-00002.gguf", "m-00002-of-00002.gguf"]


def test_fingerprints_tell_models_apart(tmp_path: Path) -> None:
    model = _tiny_folder(tmp_path)
    first = fingerprint(model)
    assert len(first) == 64
    assert fingerprint(load_model(tmp_path).model) == first
    assert fingerprint(load_model(tmp_path, dtype="float64").model) == first
    model.set_attn_implementation("eager")
    assert fingerprint(model) == first, "how attention is computed is not the model"
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight[0, 0] += 1
    changed = fingerprint(model)
    assert changed != first
    assert model.config.rope_parameters is not None
    model.config.rope_parameters["rope_theta"] = 5.0
    assert fingerprint(model) not in (first, changed)
