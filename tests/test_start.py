"""A later start of a packed model: the bits of the first, without transformers; nothing stale or damaged is taken.

Covers what the first load keeps (`models/packed/start.py`), the bare model, the light tokenizer and chat templates
without transformers, each beside what transformers does.
"""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import gguf_corpus as corpus
import vocabularies
from kvorum import Engine, Row, View
from kvorum.errors import ModelFileError
from kvorum.models import chat_template
from kvorum.models.cache_folder import gguf_folder
from kvorum.models.light_tokenizer import LightTokenizer, Spelling
from kvorum.models.load import load_bare, load_model
from kvorum.models.packed import start
from kvorum.models.packed.bare_model import BareModel
from kvorum.models.packed.layers import PackedLinear
from kvorum.models.runners.lean import LeanRunner, covers
from kvorum.models.token_bytes import compiled, token_bytes

ARCHITECTURES = ("llama", "mistral3", "qwen2", "qwen3", "smollm3", "granite", "gemma2", "olmo2")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("KVORUM_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def model_file(folder: Path, arch: str = "llama", **changes: Any) -> Path:
    return corpus.save(folder / f"{arch}.gguf", corpus.contents(arch, corpus.tiny(arch, **changes)))


def load(path: Path, **options: Any) -> Engine:
    return Engine.load(path, quantize="packed", kv_tokens=256, **options)


def logits(engine: Engine) -> torch.Tensor:
    """Of a text, a fork of it and a step of two rows over both, with hidden states."""
    one, two = engine.block(), engine.block()
    engine.forward([Row(View(one), ids=[5, 9, 3, 17, 4, 8])])
    first = engine.forward([Row(View(one), ids=[7]), Row(View(one, two), ids=[11])], hidden=True)
    assert first.hidden is not None
    return torch.cat([first.logits, first.hidden], dim=1)


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_the_second_start_has_the_bits_of_the_first(arch: str, tmp_path: Path) -> None:
    path = model_file(tmp_path, arch)
    first = load(path)
    second = load(path)
    bare = isinstance(second.backend._model, BareModel)  # type: ignore[attr-defined]
    assert bare == (first.backend.runner.name == LeanRunner.name)  # type: ignore[attr-defined]
    assert torch.equal(logits(second), logits(first))
    assert second.backend.fingerprint == first.backend.fingerprint
    assert second.backend.ends == first.backend.ends
    assert second.about() == first.about()
    assert second.unused == first.unused
    assert second.shape.longest == first.shape.longest
    ids = torch.arange(9)[None]
    whole, model = second.model, first.model
    assert type(whole) is type(model)
    assert torch.equal(whole(ids).logits, model(ids).logits)
    assert [name for name, _ in whole.named_parameters()] == [name for name, _ in model.named_parameters()]
    assert [name for name, _ in whole.named_buffers()] == [name for name, _ in model.named_buffers()]


def test_blocks_of_the_first_start_load_in_the_second(tmp_path: Path) -> None:
    path = model_file(tmp_path)
    first = load(path)
    block = first.block()
    first.forward([Row(View(block), ids=[3, 1, 4, 1, 5])])
    first.save(block, tmp_path / "block.safetensors")
    assert load(path).load_block(tmp_path / "block.safetensors").ids == [3, 1, 4, 1, 5]


def test_it_imports_no_transformers(tmp_path: Path) -> None:
    path = model_file(tmp_path, max_position_embeddings=2048)
    load(path)
    code = (
        "import sys; from kvorum.cli import main\n"
        "assert main(sys.argv[1:]) in (0, 1)\n"
        "heavy = ('transformers', 'torch._dynamo', 'pandas', 'networkx', 'fastapi')\n"
        "print([name for name in heavy if name in sys.modules])"
    )
    (tmp_path / "text.txt").write_text("the the the", encoding="utf-8")
    (tmp_path / "schema.json").write_text(json.dumps({"type": "object", "properties": {"a": {"type": "boolean"}}}))
    text = str(tmp_path / "text.txt")
    jobs = (
        ["solve", "the", "--budget", "8"],
        ["ask", text, "-q", "the", "--tokens", "4"],
        ["fields", text, "--schema", str(tmp_path / "schema.json")],
        ["decide", text, "-q", "the"],
    )
    for job in jobs:
        words = [*job, "--model", str(path), "--quantize", "packed", "--json"]
        done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert done.stdout.splitlines()[-1] == "[]", job


def test_other_runners_and_the_exact_mode_take_the_whole_model(tmp_path: Path) -> None:
    path = model_file(tmp_path)
    load(path)
    generic = load(path, runner="generic")
    assert generic.backend.runner.name == "generic"  # type: ignore[attr-defined]
    exact = Engine.load(path, quantize=None, dtype="float32", kv_tokens=256)
    assert exact.weights == "exact"


def test_a_record_of_other_versions_is_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = model_file(tmp_path)
    load(path)
    kept = start.start_file(gguf_folder(path))
    before = json.loads(kept.read_text())
    with monkeypatch.context() as patched:
        patched.setattr(start, "installed_version", lambda _: "99")
        assert load_bare(path) is None
        load(path)
        assert json.loads(kept.read_text())["made_with"] != before["made_with"]
        assert load_bare(path) is not None
    assert load_bare(path) is None


def test_a_record_that_is_damaged_is_named_and_one_that_is_missing_made(tmp_path: Path) -> None:
    path = model_file(tmp_path)
    load(path)
    kept = start.start_file(gguf_folder(path))
    whole = kept.read_text()
    kept.write_text(whole.replace('"hidden":', '"hiddem":'))
    with pytest.raises(ModelFileError, match=r"start\.json is damaged"):
        load(path)
    kept.unlink()
    load(path)
    assert json.loads(kept.read_text()) == json.loads(whole)


def test_a_packed_file_is_mapped_and_each_tensor_begins_a_cache_line(tmp_path: Path) -> None:
    path = model_file(tmp_path)
    loaded = load_model(path, packed=True)
    assert covers(loaded.model)
    found = load_bare(path)
    assert found is not None
    linears = [module for module in found.model.modules() if isinstance(module, PackedLinear)]
    parts = [part for linear in linears for part in linear.packed.parts]
    assert parts
    assert all(part.data.data_ptr() % 64 == 0 for part in parts)
    mapped = Path("/proc/self/maps")
    if mapped.exists():
        assert str(gguf_folder(path).packed / "weights.safetensors") in mapped.read_text()


# -- the light tokenizer -------------------------------------------------------------------------------------------


def light(tokenizer: Any) -> LightTokenizer:
    from tokenizers import Tokenizer

    inner = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    return LightTokenizer(inner, Spelling.of(tokenizer), lambda: tokenizer)


KINDS = {
    "byte level": vocabularies.byte_level(),
    "composed first": vocabularies.byte_level(nfc=True),
    "unigram": vocabularies.unigram(),
    "word pieces": vocabularies.wordpiece(),
    "suffixes": vocabularies.suffixes(),
}


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=60, deadline=None)
@given(text=st.text(max_size=40) | st.sampled_from(["<s>the</s> a", "  in<s>", "the, capital."]), split=st.booleans())
def test_ids_and_text_are_those_of_transformers(kind: str, text: str, split: bool) -> None:
    whole, ours = KINDS[kind], light(KINDS[kind])
    for special in (False, True):
        options = {"add_special_tokens": special, "split_special_tokens": split}
        theirs = whole(text, **options)["input_ids"]
        assert ours(text, **options)["input_ids"] == theirs
        for skip in (False, True):
            assert ours.decode(theirs, skip_special_tokens=skip) == whole.decode(theirs, skip_special_tokens=skip)
    assert ours("a").input_ids == whole("a").input_ids  # type: ignore[attr-defined]
    assert ours(["a", "in"])["input_ids"] == whole(["a", "in"])["input_ids"]
    assert ours.all_special_ids == whole.all_special_ids
    assert ours.get_vocab() == whole.get_vocab()
    assert len(ours) == len(whole)
    assert ours.eos_token_id == whole.eos_token_id
    assert ours.convert_ids_to_tokens([1, 2]) == whole.convert_ids_to_tokens([1, 2])


@pytest.mark.parametrize("kind", KINDS)
def test_the_bytes_of_tokens_are_found_in_it(kind: str) -> None:
    whole, ours = KINDS[kind], light(KINDS[kind])
    assert compiled(ours) is ours.backend_tokenizer
    theirs, found = token_bytes(whole), token_bytes(ours)
    assert (theirs is None) == (found is None)
    if theirs is not None and found is not None:
        assert [found[at] for at in range(len(whole))] == [theirs[at] for at in range(len(whole))]


TEMPLATES = {
    "loops and namespaces": (
        "{% set ns = namespace(n=0) %}{% for m in messages %}{% if m.role == 'skip' %}{% continue %}{% endif %}"
        "{% set ns.n = ns.n + 1 %}{{ ns.n }} {{ m.content }}\n{% endfor %}{{ bos_token }}"
    ),
    "generation": (
        "{% for m in messages %}{% generation %}{{ m.content }}{% set x = 1 %}{% endgeneration %}{{ x }}|{% endfor %}"
    ),
    "tools": "{{ tools | tojson(indent=2) if tools else 'none' }}{{ messages[0] | tojson }}{{ documents }}",
    "thoughts": "{% for m in messages %}{{ m.reasoning_content }}/{{ m.thinking }}/{{ m.reasoning }};{% endfor %}",
    "dictionaries": "{{ dict(a=1, b=messages[0].content).items() | list }}{{ dict.fromkeys(['x'], 2) }}",
    "blanks": "  {% for m in messages %}\n  {{ m.content }}\n{% endfor %}\n{% if messages %}\nGo{% endif %}",
    "switch": "{% if enable_thinking is defined and not enable_thinking %}no{% else %}yes{% endif %}",
}
TALK: list[dict[str, Any]] = [
    {"role": "user", "content": "größer <b>&amp;</b> \u2028", "name": None},
    {"role": "skip", "content": "x"},
    {"role": "assistant", "content": "in", "reasoning": "hm"},
]


@pytest.mark.parametrize("name", TEMPLATES)
def test_templates_give_the_text_that_transformers_gives(name: str) -> None:
    whole = vocabularies.byte_level()
    whole.chat_template = TEMPLATES[name]
    ours = light(whole)
    tools = [{"type": "function", "function": {"name": "f", "parameters": {"ü": 1}}}]
    for more in ({}, {"tools": tools}, {"enable_thinking": False}, {"documents": [{"text": "d"}]}):
        for begins in (False, True):
            options: dict[str, Any] = {"tokenize": False, "add_generation_prompt": begins, **more}
            assert ours.apply_chat_template(TALK, **options) == whole.apply_chat_template(TALK, **options)
    assert ours.apply_chat_template(TALK, tokenize=True) == whole.apply_chat_template(TALK, tokenize=True)
    own: dict[str, Any] = {"chat_template": "{{ messages | length }}", "tokenize": False}
    assert ours.apply_chat_template(TALK, **own) == whole.apply_chat_template(TALK, **own) == "3"


def test_a_template_prints_the_time_and_refuses_in_its_words() -> None:
    assert chat_template.render("{{ strftime_now('%Y') }}", TALK) == str(datetime.now().year)
    with pytest.raises(Exception, match="roles must alternate"):
        chat_template.render("{{ raise_exception('roles must alternate') }}", TALK)
    with pytest.raises(ValueError, match="empty"):
        chat_template.render("x", [])


@pytest.mark.parametrize(
    "template",
    [
        "{{ ''.__class__.__mro__ }}",
        "{{ messages.__class__.__init__.__globals__ }}",
        "{% set ns = namespace(_x=1) %}{{ ns._x }}",
        "{% set ns = namespace() %}{% set ns.__class__ = 1 %}",
        "{{ messages.append(1) }}",
        "{{ dict.__call__.__globals__ }}",
        "{{ raise_exception.__globals__.sys }}",
    ],
)
def test_a_hostile_template_reaches_nothing(template: str) -> None:
    with pytest.raises(Exception, match=r"unsafe|underscore|undefined|not safely callable|no attribute"):
        chat_template.render(template, TALK)
