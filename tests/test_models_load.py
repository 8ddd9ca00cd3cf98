"""Converting and loading: tiny GGUF files made here, folders, and the catalogue's small model."""

from __future__ import annotations

import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from kvorum.errors import ModelFileError, UnsupportedModel
from kvorum.models import cache_folder
from kvorum.models.fingerprint import fingerprint
from kvorum.models.gguf import convert
from kvorum.models.gguf.file import GGUFFile
from kvorum.models.load import load_model
from kvorum.models.packed import of_file
from kvorum.models.packed.quantize import quantize_model

HIDDEN, HEADS, KV_HEADS, FEED, LAYERS = 64, 4, 2, 96, 2


def _tokens() -> list[str]:
    """The byte alphabet of GPT-2's tokenizer, two marks, and what the merges make."""
    letters = [*range(33, 127), *range(161, 173), *range(174, 256)]
    other = [256 + number for number in range(256 - len(letters))]
    return ["<|endoftext|>", "<|im_end|>", *map(chr, letters), *map(chr, other), "12", "ab", "abc"]


def write_gguf(path: Path, architecture: str = "llama", pre: str = "smollm") -> dict[str, np.ndarray[Any, Any]]:
    """A llama of two layers in Q8_0 and F32; returns the tensors before quantising, by their GGUF names."""
    writer = gguf.GGUFWriter(str(path), architecture)
    writer.add_name("Tiny")
    writer.add_block_count(LAYERS)
    writer.add_context_length(128)
    writer.add_embedding_length(HIDDEN)
    writer.add_feed_forward_length(FEED)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_rope_freq_base(10000.0)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(HIDDEN // HEADS)
    tokens = _tokens()
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    writer.add_token_types([3, 3] + [1] * (len(tokens) - 2))
    writer.add_token_merges(["1 2", "a b", "ab c"])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    writer.add_add_bos_token(False)
    random = np.random.default_rng(0)
    key = HIDDEN // HEADS * KV_HEADS
    shapes = {"token_embd": (len(tokens), HIDDEN), "output": (len(tokens), HIDDEN), "output_norm": (HIDDEN,)}
    for layer in range(LAYERS):
        block = f"blk.{layer}"
        shapes |= {f"{block}.attn_norm": (HIDDEN,), f"{block}.ffn_norm": (HIDDEN,)}
        shapes |= {f"{block}.attn_q": (HIDDEN, HIDDEN), f"{block}.attn_output": (HIDDEN, HIDDEN)}
        shapes |= {f"{block}.attn_k": (key, HIDDEN), f"{block}.attn_v": (key, HIDDEN)}
        shapes |= {f"{block}.ffn_gate": (FEED, HIDDEN), f"{block}.ffn_up": (FEED, HIDDEN)}
        shapes |= {f"{block}.ffn_down": (HIDDEN, FEED)}
    tensors = {}
    for name, shape in shapes.items():
        values = random.normal(1.0 if len(shape) == 1 else 0.0, 0.2, shape).astype(np.float32)
        tensors[f"{name}.weight"] = values
        if len(shape) == 1:
            writer.add_tensor(f"{name}.weight", values)
            continue
        kind = gguf.GGMLQuantizationType.Q8_0
        writer.add_tensor(f"{name}.weight", gguf.quantize(values, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return tensors


def test_the_reader_sees_what_was_written(tmp_path: Path) -> None:
    tensors = write_gguf(tmp_path / "tiny.gguf")
    file = GGUFFile(tmp_path / "tiny.gguf")
    assert file.architecture == "llama"
    assert file.metadata["tokenizer.ggml.tokens"] == _tokens()
    assert file.metadata["llama.rope.freq_base"] == 10000.0
    assert file.metadata["tokenizer.ggml.add_bos_token"] is False
    assert file.weights == sum(values.size for values in tensors.values())
    assert set(file.tensors) == set(tensors)
    for name, values in tensors.items():
        tensor = file.tensors[name]
        assert tensor.shape == values.shape
        assert tensor.type == ("F32" if values.ndim == 1 else "Q8_0")
    stored = file.tensors["output_norm.weight"].data.view(np.float32)
    np.testing.assert_array_equal(stored, tensors["output_norm.weight"])
    kind = gguf.GGMLQuantizationType.Q8_0
    rows = file.tensors["blk.1.ffn_down.weight"].data
    np.testing.assert_array_equal(rows, gguf.quantize(tensors["blk.1.ffn_down.weight"], kind))


def test_every_truncation_is_one_clear_sentence(tmp_path: Path) -> None:
    write_gguf(tmp_path / "tiny.gguf")
    whole = (tmp_path / "tiny.gguf").read_bytes()
    short = tmp_path / "short.gguf"
    for size in [0, 3, 4, 10, 30, 200, 2000, 5000, len(whole) // 2, len(whole) - 1000]:
        short.write_bytes(whole[:size])
        with pytest.raises(ModelFileError, match=r"cut short|not a GGUF file") as caught:
            GGUFFile(short)
        assert "\n" not in str(caught.value)
    short.write_bytes(whole[:-40])  # within the padding and the last block
    with pytest.raises(ModelFileError, match="cut short"):
        load_model(short)


def test_damage_in_the_header_is_told(tmp_path: Path) -> None:
    write_gguf(tmp_path / "tiny.gguf")
    whole = bytearray((tmp_path / "tiny.gguf").read_bytes())
    damaged = tmp_path / "damaged.gguf"
    damaged.write_bytes(whole[:24] + b"\xff" * 64 + whole[88:])
    with pytest.raises(ModelFileError, match="damaged"):
        GGUFFile(damaged)
    damaged.write_bytes(whole[:4] + b"\x00\x00\x00\x03" + whole[8:])
    with pytest.raises(ModelFileError, match="big-endian"):
        GGUFFile(damaged)
    damaged.write_bytes(b"<!DOCTYPE html>")
    with pytest.raises(ModelFileError, match="not a GGUF file"):
        GGUFFile(damaged)
    with pytest.raises(ModelFileError, match="cannot be read"):
        GGUFFile(tmp_path / "none.gguf")


def test_a_gguf_file_runs_as_its_weights_say(home: Path, tmp_path: Path) -> None:
    tensors = write_gguf(tmp_path / "tiny.gguf")
    steps: list[tuple[str, int, int]] = []
    loaded = load_model(tmp_path / "tiny.gguf", progress=lambda *call: steps.append(call))
    assert steps[0] == ("convert", 0, 100)
    assert ("convert", 100, 100) in steps
    assert steps[-1] == ("check", 1, 1)
    assert loaded.gguf == tmp_path / "tiny.gguf"
    assert loaded.model.dtype == torch.float32
    assert not loaded.model.training
    assert not any(weight.requires_grad for weight in loaded.model.parameters())
    state = loaded.model.state_dict()
    kind = gguf.GGMLQuantizationType.Q8_0
    for ours, theirs in {
        "model.embed_tokens.weight": "token_embd.weight",
        "lm_head.weight": "output.weight",
        "model.layers.1.mlp.down_proj.weight": "blk.1.ffn_down.weight",
        "model.layers.0.self_attn.v_proj.weight": "blk.0.attn_v.weight",
    }.items():
        expected = gguf.dequantize(gguf.quantize(tensors[theirs], kind), kind)
        np.testing.assert_array_equal(state[ours].numpy(), expected)
    # llama's GGUF files hold the rows of q and k in pairs; transformers wants the halves
    rows = gguf.dequantize(gguf.quantize(tensors["blk.0.attn_k.weight"], kind), kind)
    halves = rows.reshape(KV_HEADS, HIDDEN // HEADS // 2, 2, HIDDEN).swapaxes(1, 2).reshape(rows.shape)
    np.testing.assert_array_equal(state["model.layers.0.self_attn.k_proj.weight"].numpy(), halves)

    steps.clear()
    again = load_model(tmp_path / "tiny.gguf", progress=lambda *call: steps.append(call))
    assert steps == [], "the second load converts nothing"
    assert fingerprint(again.model) == fingerprint(loaded.model)


def test_tokenizers_get_back_what_gguf_loses(home: Path, tmp_path: Path) -> None:
    write_gguf(tmp_path / "smollm.gguf", pre="smollm")
    tokenizer: Any = load_model(tmp_path / "smollm.gguf").tokenizer
    assert tokenizer.tokenize("12abc") == ["1", "2", "abc"], "digits stand alone although there is a merge"
    assert tokenizer.decode(tokenizer("x 12é\n<|im_end|>").input_ids) == "x 12é\n<|im_end|>"
    assert tokenizer.eos_token_id == 1
    write_gguf(tmp_path / "plain.gguf", pre="gpt-2")
    plain: Any = load_model(tmp_path / "plain.gguf").tokenizer
    assert plain.tokenize("12abc") == ["12", "abc"]


def test_an_unsupported_architecture_is_told(home: Path, tmp_path: Path) -> None:
    write_gguf(tmp_path / "odd.gguf", architecture="rwkv7")
    with pytest.raises(UnsupportedModel, match="'rwkv7'"):
        load_model(tmp_path / "odd.gguf")
    assert not list(home.rglob("hf"))


def test_a_killed_conversion_leaves_nothing_in_the_way(home: Path, tmp_path: Path) -> None:
    write_gguf(tmp_path / "tiny.gguf")
    folder = cache_folder.gguf_folder(tmp_path / "tiny.gguf")
    (folder.work / "hf").mkdir(parents=True)
    (folder.work / "hf" / "config.json").write_text("{")
    folder.hf.mkdir()
    (folder.hf / "config.json").write_text("half a folder")
    assert load_model(tmp_path / "tiny.gguf").model.config.hidden_size == HIDDEN
    assert not folder.work.exists()


def test_a_failed_conversion_leaves_nothing(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_gguf(tmp_path / "tiny.gguf")

    def refuse(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(convert, "build_tokenizer", refuse)
    with pytest.raises(ModelFileError, match="disk is full"):
        load_model(tmp_path / "tiny.gguf")
    folder = cache_folder.gguf_folder(tmp_path / "tiny.gguf")
    assert not folder.hf.exists()
    assert not folder.work.exists()
    usage = type("Usage", (), {"free": 10_000})
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(ModelFileError, match=r"Converting tiny\.gguf needs .* only 10 kB are free"):
        load_model(tmp_path / "tiny.gguf")


def test_two_loads_at_once_convert_once(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_gguf(tmp_path / "tiny.gguf")
    calls = []
    original = convert._convert

    def counted(*args: Any, **options: Any) -> None:
        calls.append(args)
        time.sleep(0.3)
        original(*args, **options)

    monkeypatch.setattr(convert, "_convert", counted)
    folder = cache_folder.gguf_folder(tmp_path / "tiny.gguf")
    threads = [threading.Thread(target=convert.convert, args=(folder,)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(calls) == 1
    assert folder.converted()


@pytest.mark.filterwarnings("ignore")  # threads that quieten transformers at once put the filters back in any order
def test_loads_at_once_pack_once_and_a_broken_one_leaves_nothing(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_gguf(tmp_path / "tiny.gguf")
    folder = cache_folder.gguf_folder(tmp_path / "tiny.gguf")
    original, calls = quantize_model, []

    def slow(*args: Any, **options: Any) -> None:
        calls.append(args)
        time.sleep(0.2)
        original(*args, **options)
        if len(calls) == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(of_file, "quantize_model", slow)
    with pytest.raises(KeyboardInterrupt):
        load_model(folder.gguf, packed=True)
    assert not folder.packed.exists()
    assert not folder.work.exists()
    with ThreadPoolExecutor(3) as pool:
        loaded = list(pool.map(lambda _: load_model(folder.gguf, packed=True), range(3)))
    assert len(calls) == 2
    assert sorted(path.name for path in folder.packed.iterdir()) == ["start.json", "weights.safetensors"]
    ids = torch.arange(10)[None]
    assert all(torch.equal(each.model(ids).logits, loaded[0].model(ids).logits) for each in loaded)


def test_smollm2_is_what_transformers_makes_of_the_file() -> None:
    loaded = load_model("smollm2-135m")
    begun = time.monotonic()
    loaded = load_model("smollm2-135m")
    assert time.monotonic() - begun < 5, "a later load is quick, even on a busy machine"
    assert loaded.gguf is not None
    assert loaded.gguf.stat().st_size == 98_362_432
    messages = [{"role": "user", "content": "What is the capital of France?"}]
    model: Any = loaded.model
    tokenizer: Any = loaded.tokenizer
    inputs = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    out = model.generate(**inputs, max_new_tokens=12, do_sample=False)
    answer = tokenizer.decode(out[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    assert "Paris" in answer

    plain = AutoModelForCausalLM.from_pretrained(loaded.source, dtype=torch.float32)
    assert torch.equal(plain(**inputs).logits, model(**inputs).logits)
    file = GGUFFile(loaded.gguf)
    kind = gguf.GGMLQuantizationType.Q4_1
    tensor = file.tensors["blk.3.ffn_up.weight"]
    ours = loaded.model.model.layers[3].mlp.up_proj.weight
    np.testing.assert_array_equal(ours.numpy(), gguf.dequantize(tensor.data, kind))


def test_a_cached_model_of_the_wrong_size_is_pulled_again(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from kvorum.models import catalogue, pull

    folder = cache_folder.entry_folder(catalogue.lookup("smollm2-135m"))
    folder.path.mkdir(parents=True)
    folder.gguf.write_bytes(b"GGUF, but cut")
    asked = []

    def fetch(entry: Any, piece: Any, partial: Path, *args: object) -> None:
        asked.append(piece)
        raise ModelFileError("stop here")

    monkeypatch.setattr(pull, "_fetch_piece", fetch)
    with pytest.raises(ModelFileError, match="stop here"):
        load_model("smollm2-135m")
    assert len(asked) == 1
    shutil.rmtree(folder.path)
