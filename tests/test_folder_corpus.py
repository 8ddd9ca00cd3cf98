"""Every small model folder of the corpus is run right, or refused with the reason; nothing is left behind then.

Right is a largest difference of logits over the largest logit of at most 1e-3 against the transformers model that the
folder was written from. The folders are of all families that the probe takes, and of one with every damage we know.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

import families
from corpora import marked
from kvorum import Engine, Row, View
from kvorum.errors import KvorumError, ModelFileError, UnsupportedModel
from kvorum.models.load import load_model

IDS = [(7 * at) % families.VOCAB for at in range(24)]
EXACT = 1e-3
Change = Callable[[Path], None]
SHARDED: dict[str, Any] = {"max_shard_size": "40KB"}
INDEX = "model.safetensors.index.json"


@dataclass(frozen=True)
class Case:
    """One folder; `refused` is what its refusal says, else it runs."""

    name: str
    change: Change | None = None
    refused: str | None = None
    model_type: str = "llama"
    options: dict[str, Any] = field(default_factory=dict)
    saved: dict[str, Any] = field(default_factory=dict)
    sample: bool = False


def weights(change: Callable[[dict[str, torch.Tensor]], object]) -> Change:
    def act(folder: Path) -> None:
        tensors = load_file(folder / "model.safetensors")
        change(tensors)
        kept = {key: value.clone() for key, value in tensors.items()}
        save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})

    return act


def put(**tensors: torch.Tensor) -> Change:
    """Add or replace tensors; `a__b` is a.b."""
    return weights(lambda held: held.update({key.replace("__", "."): value for key, value in tensors.items()}))


def mlx(also: bool) -> Change:
    """As MLX writes one matrix in 4 bits; later versions say how under the name of others, too."""
    how: Any = {"group_size": 64, "bits": 4}
    said: Any = {"quantization": how, **({"quantization_config": how} if also else {})}
    parts = {UP: torch.zeros(64, 6, dtype=torch.uint32)}
    parts |= {UP.replace("weight", each): flat(64)[:, None] for each in ("scales", "biases")}

    def act(folder: Path) -> None:
        weights(lambda held: held.update(parts))(folder)
        config(**said)(folder)

    return act


def drop(*names: str) -> Change:
    return weights(lambda held: [held.pop(name) for name in names])


def rename(name: Callable[[str], str]) -> Change:
    return weights(lambda held: [held.update({name(key): held.pop(key)}) for key in list(held)])


def config(*gone: str, file: str = "config.json", **fields: Any) -> Change:
    def act(folder: Path) -> None:
        found = json.loads((folder / file).read_text())
        for name in gone:
            del found[name]
        (folder / file).write_text(json.dumps(found | fields))

    return act


def text(file: str, content: bytes) -> Change:
    def act(folder: Path) -> None:
        (folder / file).write_bytes(content)

    return act


def cut(file: str, at: Callable[[int], int]) -> Change:
    def act(folder: Path) -> None:
        data = (folder / file).read_bytes()
        (folder / file).write_bytes(data[: at(len(data))])

    return act


def remove(*files: str) -> Change:
    def act(folder: Path) -> None:
        for file in files:
            (folder / file).unlink()

    return act


def pickled(folder: Path) -> None:
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def copied_into_another_shard(folder: Path) -> None:
    files = sorted(folder.glob("model-0*.safetensors"))
    first, second = load_file(files[0]), load_file(files[1])
    name = next(iter(first))
    save_file(second | {name: first[name] * 2}, files[1], metadata={"format": "pt"})


def moved_to_another_shard(folder: Path) -> None:
    """The index says the wrong file of a tensor; which file has it does not change what it is."""
    found = json.loads((folder / INDEX).read_text())
    names = list(found["weight_map"])
    found["weight_map"][names[-2]] = found["weight_map"][names[0]]
    (folder / INDEX).write_text(json.dumps(found))


def header(folder: Path) -> None:
    data = bytearray((folder / "model.safetensors").read_bytes())
    data[12:16] = b"\xff\xff\xff\xff"
    (folder / "model.safetensors").write_bytes(data)


def tokenizer(folder: Path) -> None:
    vocabulary = {f"w{at}": at for at in range(families.VOCAB)}
    made = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel(vocabulary, unk_token="w0")))
    made.save_pretrained(folder)


def both(*changes: Change) -> Change:
    def act(folder: Path) -> None:
        for change in changes:
            change(folder)

    return act


def flat(rows: int) -> torch.Tensor:
    return torch.zeros(rows)


UP = "model.layers.1.mlp.up_proj.weight"
TIED = {"tie_word_embeddings": True}
WINDOW = {"sliding_window": 7}

RUN = [
    *(
        Case(name, model_type=kind, options=options, sample=name in ("llama", "gemma3", "phi3-longrope"))
        for name, (kind, options) in families.ACCEPTED.items()
    ),
    Case("sharded", saved=SHARDED, sample=True),
    Case("sharded-wrong-place", moved_to_another_shard, saved=SHARDED),
    Case("tied", options=TIED),
    Case(
        "tied-twice",
        weights(lambda held: held.update({"lm_head.weight": held["model.embed_tokens.weight"]})),
        options=TIED,
    ),
    Case(
        "tied-head-only",
        weights(lambda held: held.update({"lm_head.weight": held.pop("model.embed_tokens.weight")})),
        options=TIED,
    ),
    Case("no-prefix", rename(lambda key: key.removeprefix("model."))),
    Case("old-frequencies", put(model__layers__0__self_attn__rotary_emb__inv_freq=flat(4))),
    Case("old-window-off", config(sliding_window=4096, use_sliding_window=False), model_type="qwen2"),
    Case("a-note", config(license="mit", transformers_version="4.31.0", rope_interleaved=False)),
    Case("neutral-fields", config(attn_logit_softcapping=None, logit_scale=1.0, no_rope_layers=[1, 1, 1])),
    Case(
        "rope-as-once",
        config("rope_parameters", rope_theta=10000.0, rope_scaling={"type": "linear", "factor": 4.0}),
        options={"rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 10000.0}},
    ),
    Case("other-files", both(text("notes.txt", b"\xff"), text("consolidated.safetensors", b"\0" * 9))),
    Case("with-tokenizer", tokenizer),
    Case("a-tokenizer-file-missing", both(tokenizer, remove("tokenizer_config.json"))),
]

REFUSED = [
    Case("missing", drop(UP), r"weights are missing: model\.layers\.1\.mlp\.up_proj\.weight", sample=True),
    Case("missing-norm", drop("model.norm.weight"), r"missing: model\.norm\.weight"),
    Case("missing-head", drop("lm_head.weight"), r"missing: lm_head\.weight"),
    Case("missing-layer", weights(lambda held: [held.pop(key) for key in list(held) if ".2." in key]), "and 5 more"),
    Case("missing-bias", drop("model.layers.0.self_attn.q_proj.bias"), r"missing: .*q_proj\.bias", model_type="qwen2"),
    Case(
        "missing-expert",
        drop("model.layers.0.mlp.experts.1.up_proj.weight"),
        r"missing: .*experts\.1\.up_proj\.weight",
        model_type="qwen3_moe",
        options=families.ACCEPTED["qwen3-moe"][1],
    ),
    Case("renamed", rename(lambda key: f"net.{key}"), "weights are missing", sample=True),
    Case("renamed-layers", rename(lambda key: key.replace("layers", "h")), "weights are missing"),
    Case(
        "misshapen",
        put(**{UP.replace(".", "__"): torch.zeros(3, 4)}),
        r"up_proj\.weight \[3, 4\] \(not \[64, 48\]\)",
        sample=True,
    ),
    Case("transposed", weights(lambda held: held.update({UP: held[UP].T.contiguous()})), "another shape"),
    Case("other-vocabulary", config(vocab_size=95), "another shape"),
    Case("other-width", config(hidden_size=96), "another shape"),
    Case("other-kv-heads", config(num_key_value_heads=3), "another shape"),
    Case("more-layers", config(num_hidden_layers=4), r"missing: model\.layers\.3"),
    Case("fewer-layers", config(num_hidden_layers=2), r"no place for weights: model\.layers\.2"),
    Case(
        "extra-tensor", put(model__layers__0__self_attn__sinks=flat(6)), r"no place for weights: .*sinks", sample=True
    ),
    Case("extra-bias", put(model__layers__0__mlp__up_proj__bias=flat(64)), r"no place for weights: .*up_proj\.bias"),
    Case("adapter", put(model__layers__0__self_attn__q_proj__lora_A__weight=torch.ones(2, 48)), r"lora_A"),
    Case("a-classifier", put(score__weight=torch.ones(2, 48)), r"no place for weights: score\.weight"),
    Case(
        "tied-and-another",
        put(lm_head__weight=torch.ones(96, 48)),
        "ties weights that are not the same",
        options=TIED,
        sample=True,
    ),
    Case("tied-by-mistake", config(tie_word_embeddings=True), "ties weights that are not the same"),
    Case("untied-by-mistake", config(tie_word_embeddings=False), r"missing: lm_head\.weight", options=TIED),
    Case(
        "integers", put(**{UP.replace(".", "__"): torch.ones(64, 48, dtype=torch.int8)}), "is of type I8", sample=True
    ),
    Case("eight-bit-floats", put(**{UP.replace(".", "__"): torch.ones(64, 48).to(torch.float8_e4m3fn)}), "F8_E4M3"),
    Case("mlx", mlx(False), r"quantised for Apple's MLX.* GGUF", sample=True),
    Case("mlx-said-twice", mlx(True), r"quantised for Apple's MLX.* GGUF"),
    Case("cut", cut("model.safetensors", lambda size: size - 9), "cut short or damaged", sample=True),
    Case("cut-in-the-header", cut("model.safetensors", lambda size: 300), "cut short or damaged"),
    Case("empty-weights", cut("model.safetensors", lambda size: 0), "cut short or damaged"),
    Case("damaged-header", header, "cut short or damaged"),
    Case("no-weights", remove("model.safetensors"), "no weights"),
    Case("pickled", pickled, "pickled"),
    Case("no-config", remove("config.json"), "no config.json"),
    Case("config-cut", cut("config.json", lambda size: size // 2), "is no JSON", sample=True),
    Case("config-a-list", text("config.json", b"[]"), "no JSON object"),
    Case("config-not-text", text("config.json", b"\xff\xfe{}"), "is no JSON"),
    Case("config-no-type", config("model_type"), "cannot load"),
    Case("unknown-type", config(model_type="rwkv9"), "cannot load"),
    Case("wrong-type", config(hidden_size="wide"), "cannot load"),
    Case(
        "no-heads",
        config("num_attention_heads", "num_key_value_heads", "head_dim"),
        "does not say num_attention_heads",
        options={"hidden_size": 64, "num_attention_heads": 4, "num_key_value_heads": 4},
    ),
    *(
        Case(
            f"end-{name}", text("generation_config.json", b'{"eos_token_id": %s}' % value), "must be the ids of tokens"
        )
        for name, value in (("a-word", b'"2"'), ("a-part", b"2.5"), ("below-zero", b"[2, -1]"), ("an-object", b"{}"))
    ),
    Case("a-field-by-a-letter", config("rms_norm_eps", rms_norm_epz=1e-5), "no rms_norm_eps, but rms_norm_epz"),
    Case("a-letter-less", config("hidden_act", hidden_at="gelu"), "no hidden_act, but hidden_at"),
    Case("no-key-heads", config(num_key_value_heads=0), "cannot load"),
    Case("padding-far-off", config(pad_token_id=10**12), "cannot load"),
    Case(
        "more-experts-than-there-are",
        config(num_experts_per_tok=9),
        "cannot be run as its configuration has it",
        model_type="qwen3_moe",
        options=families.ACCEPTED["qwen3-moe"][1],
    ),
    Case(
        "a-weight-no-number",
        put(**{UP.replace(".", "__"): torch.full((64, 48), torch.nan)}),
        "no finite number.*up_proj",
    ),
    Case("generation-cut", text("generation_config.json", b'{"eos_token_id": '), "generation_config.json is damaged"),
    Case(
        "a-shard-missing",
        lambda folder: sorted(folder.glob("model-0*"))[1].unlink(),
        "is missing, which",
        saved=SHARDED,
        sample=True,
    ),
    Case(
        "a-shard-cut",
        lambda folder: cut(sorted(folder.glob("model-0*"))[1].name, lambda size: size - 5)(folder),
        "cut short",
        saved=SHARDED,
    ),
    Case("index-missing", remove(INDEX), "no model.safetensors and no", saved=SHARDED),
    Case("index-cut", cut(INDEX, lambda size: size // 2), "is no JSON", saved=SHARDED),
    Case("index-of-another-form", text(INDEX, b'{"files": []}'), "does not say which file", saved=SHARDED),
    Case(
        "index-names-a-missing-file",
        config(file=INDEX, weight_map={UP: "model-9.safetensors"}),
        "model-9.safetensors is missing",
        saved=SHARDED,
    ),
    Case(
        "index-leaves-a-file-out",
        config(file=INDEX, weight_map={UP: "model-00001-of-00005.safetensors"}),
        "missing",
        saved=SHARDED,
    ),
    Case("a-tensor-twice", copied_into_another_shard, "more than one of its files", saved=SHARDED),
    Case("soft-cap", config(attn_logit_softcapping=30.0), "attn_logit_softcapping = 30.0", sample=True),
    Case("a-window", config(sliding_window=7), "sliding_window = 7"),
    Case("layers-with-windows", config(layer_types=["sliding_attention"] * 3), "layer_types"),
    Case("residual-scale", config(residual_multiplier=0.4), "residual_multiplier"),
    Case("logit-scale", config(logits_scaling=8.0), "logits_scaling"),
    Case("layers-without-rotation", config(no_rope_layers=[1, 0, 1]), "no_rope_layers"),
    Case("interleaved", config(rope_interleave=True), "rope_interleave"),
    Case("both-ways", config(use_bidirectional_attention=True), "use_bidirectional_attention"),
    Case("partial-rotation", config(partial_rotary_factor=0.5), "partial_rotary_factor"),
    Case("unknown-rope", config(rope_parameters={"rope_type": "ntk9", "rope_theta": 1e4}), "cannot load"),
    Case(
        "rope-field-unknown",
        config(rope_parameters={"rope_type": "linear", "factor": 4.0, "wisdom": 3, "rope_theta": 1e4}),
        "wisdom",
    ),
    Case(
        "rope-factor-alone",
        config(rope_parameters={"rope_type": "default", "factor": 4.0, "rope_theta": 1e4}),
        "factor = 4.0",
    ),
    Case(
        "rope-field-missing",
        config(rope_parameters={"rope_type": "llama3", "factor": 4.0, "rope_theta": 1e4}),
        "cannot load",
    ),
    Case(
        "dynamic-rope",
        config(rope_parameters={"rope_type": "dynamic", "factor": 4.0, "rope_theta": 1e4}),
        "dynamic NTK",
    ),
    Case("tokenizer-cut", both(tokenizer, cut("tokenizer.json", lambda size: size // 2)), "tokenizer"),
    Case("tokenizer-config-cut", both(tokenizer, cut("tokenizer_config.json", lambda size: size // 2)), "tokenizer"),
    Case("tokenizer-without-vocabulary", both(tokenizer, remove("tokenizer.json")), "tokenizer"),
]


def written(case: Case, folder: Path) -> Any:
    """The folder as the case has it; returns the model that it was written from."""
    options = families.ACCEPTED["llama"][1] | case.options
    made = AutoConfig.for_model(case.model_type, **options)
    torch.manual_seed(0)
    model: Any = AutoModelForCausalLM.from_config(made, dtype=torch.float32)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    model.train(False)
    model.save_pretrained(folder, **case.saved)
    if case.change is not None:
        case.change(folder)
    return model


@pytest.mark.parametrize("case", marked(RUN))
def test_right(case: Case, tmp_path: Path) -> None:
    model = written(case, tmp_path / "model")
    with torch.no_grad():
        want = model(torch.tensor([IDS])).logits[0, -1]
    engine = Engine.load(tmp_path / "model", dtype="float32", quantize=None, kv_tokens=256)
    got = engine.forward([Row(View(engine.block()), ids=IDS)]).logits[0]
    assert (got - want).abs().max() / want.abs().max() <= EXACT


@pytest.mark.parametrize("case", marked(REFUSED))
def test_refused(case: Case, home: Path, tmp_path: Path) -> None:
    written(case, tmp_path / "model")
    before = {path.name: path.read_bytes() for path in (tmp_path / "model").iterdir()}
    for options in ({"dtype": "float32", "quantize": None}, {"quantize": "packed"}):
        with pytest.raises(KvorumError, match=case.refused) as caught:
            Engine.load(tmp_path / "model", **options)
        assert isinstance(caught.value, ModelFileError | UnsupportedModel)
        assert "\n" not in str(caught.value)
    assert {path.name: path.read_bytes() for path in (tmp_path / "model").iterdir()} == before
    assert not home.exists()


def test_fields_that_nobody_knows_are_refused_or_named(tmp_path: Path) -> None:
    written(Case("a-note", config(made_by="someone", attention_dropout=0.1, model_name="x")), tmp_path / "model")
    with pytest.raises(UnsupportedModel, match=r"config\.json has made_by, which is not known here"):
        load_model(tmp_path / "model")
    assert load_model(tmp_path / "model", ignore_unknown=True).unused == ("made_by",)
    shutil.rmtree(tmp_path / "model")
