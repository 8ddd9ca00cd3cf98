"""The self-check of a converted GGUF file: what it finds, what it keeps, and `kvorum check`."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import MistralConfig, MistralForCausalLM

import gguf_corpus as corpus
from kvorum.cli.main import main
from kvorum.errors import ModelFileError
from kvorum.models import load, seam, selfcheck
from kvorum.models.cache_folder import entry_folder, gguf_folder, kept_checks, read_mark
from kvorum.models.catalogue import CATALOGUE
from kvorum.models.gguf import architectures, model, rope
from kvorum.models.gguf.file import GGUFFile
from kvorum.models.gguf.reference import Reference, spread
from kvorum.models.load import load_model
from kvorum.models.packed.quantize import quantize_model
from tiny_folder import tiny_folder


def written(folder: Path, arch: str = "llama", **options: Any) -> Path:
    return corpus.save(folder / "tiny.gguf", corpus.contents(arch, corpus.tiny(arch, **options)))


def loaded(*args: Any, **options: Any) -> Any:
    """What `load_model` gives, as whatever it is."""
    return load_model(*args, **options)


@pytest.mark.parametrize("packed", [False, True])
def test_a_passed_check_is_kept_and_not_made_again(
    packed: bool, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(tmp_path)
    (kept,) = kept_checks(load_model(path, packed=packed).source).values()
    found = selfcheck.SelfCheck.of_json(kept)
    assert found.passed
    assert found.layers == found.of == 4
    assert found.bound == (selfcheck.PACKED if packed else selfcheck.EXACT)
    assert "4 of 4 layers" in str(found)
    monkeypatch.setattr(selfcheck, "compare", None)
    load_model(path, packed=packed)


def test_a_check_of_before_windows_were_looked_at_is_made_again(home: Path, tmp_path: Path) -> None:
    path = written(tmp_path)
    folder = load_model(path).source
    mark = read_mark(folder)
    mark["checks"] = mark.pop("checks-2")
    (folder / "kvorum.json").write_text(json.dumps(mark))
    assert not kept_checks(folder)
    load_model(path)
    assert kept_checks(folder).keys() == {"float32"}


def turned(sources: dict[str, Any]) -> None:
    """The rows of q as they lie in the file."""
    sources["model.layers.2.self_attn.q_proj.weight"] = replace(
        sources["model.layers.2.self_attn.q_proj.weight"], order=None
    )


def swapped(sources: dict[str, Any]) -> None:
    up, gate = "model.layers.1.mlp.up_proj.weight", "model.layers.1.mlp.gate_proj.weight"
    sources[up], sources[gate] = sources[gate], sources[up]


def shifted(sources: dict[str, Any]) -> None:
    sources["model.norm.weight"] = replace(sources["model.norm.weight"], shift=1.0)


@pytest.mark.parametrize("wrong", [turned, swapped, shifted])
@pytest.mark.parametrize("packed", [False, True])
def test_a_wrong_conversion_is_refused_and_removed(
    wrong: Any, packed: bool, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(tmp_path)
    original = model._sources

    def sources(*args: Any) -> Any:
        found, unused = original(*args)
        wrong(found)
        return found, unused

    monkeypatch.setattr(model, "_sources", sources)
    with pytest.raises(ModelFileError, match="does not compute what its own weights say") as caught:
        load_model(path, packed=packed)
    assert "\n" not in str(caught.value)
    folder = gguf_folder(path)
    assert not folder.hf.exists()
    assert not folder.about.exists()
    assert not folder.packed.exists()


@pytest.mark.parametrize(
    ("kind", "part"), [(MemoryError, "compare"), (RuntimeError, "compare"), (RuntimeError, "probe")]
)
def test_a_check_that_ran_out_of_memory_leaves_the_conversion(
    kind: type[Exception], part: str, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python's error and torch's own, of the reference or of the probe's forward."""
    path = written(tmp_path)

    def full(*args: Any, **options: Any) -> Any:
        if kind is MemoryError:
            raise MemoryError("no room")
        torch.empty(2**58)

    with monkeypatch.context() as patched:
        patched.setattr(*((selfcheck, "compare") if part == "compare" else (seam, "call")), full)
        with pytest.raises(kind, match=r"no room|allocate memory"):
            load_model(path)
    folder = gguf_folder(path).hf
    before = [file.stat().st_mtime_ns for file in folder.glob("*.safetensors")]
    assert before
    load_model(path)
    assert [file.stat().st_mtime_ns for file in folder.glob("*.safetensors")] == before


def test_a_scaling_that_is_dropped_is_found(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path, rope_parameters={"rope_type": "linear", "factor": 4.0, "rope_theta": 10000.0})
    plain = {"rope_type": "default", "rope_theta": 10000.0}
    original = rope.rope_parameters
    monkeypatch.setattr(model, "rope_parameters", lambda *args: original(*args) and plain)
    for packed in (False, True):
        with pytest.raises(ModelFileError, match="does not compute"):
            load_model(path, packed=packed)


LAYERS = ["full_attention", *["sliding_attention"] * 3]


@pytest.mark.parametrize(
    ("arch", "wrong"),
    [
        ("gemma3", {"sliding_window": 100}),
        ("gemma3", {"layer_types": ["full_attention"] * 4}),
        ("gemma3", {"layer_types": LAYERS}),
        ("phi3", {"sliding_window": None}),
        ("phi3", {"sliding_window": 100}),
    ],
)
def test_another_window_than_the_files_is_found_on_a_short_text(
    arch: str, wrong: dict[str, Any], home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(tmp_path, arch, sliding_window=200)  # wider than the text that is compared
    held = loaded(path).model
    assert selfcheck.compare(held, GGUFFile(path), range(60)).passed
    assert held.config.sliding_window == 200
    known = architectures.ARCHITECTURES[arch]

    def computed(*args: Any) -> dict[str, Any]:
        assert known.computed is not None
        return known.computed(*args) | wrong

    monkeypatch.setattr(model, "ARCHITECTURES", {arch: replace(known, computed=computed)})
    for packed in (False, True):
        path = path.rename(path.with_name(f"{packed}.gguf"))  # another conversion
        with pytest.raises(ModelFileError, match="does not compute"):
            load_model(path, packed=packed)


def test_without_time_some_layers_are_followed_and_the_others_taken(home: Path, tmp_path: Path) -> None:
    path = written(tmp_path, num_hidden_layers=9)
    held = loaded(path).model
    ids = list(range(30))
    found = selfcheck.compare(held, GGUFFile(path), ids, seconds=0.0)
    assert found.passed
    assert found.layers == 2
    assert found.of == 9
    with torch.no_grad():
        held.model.layers[8].mlp.down_proj.weight[0] += 1
    assert not selfcheck.compare(held, GGUFFile(path), ids, seconds=0.0).passed
    assert list(spread(5)) == [0, 4, 2, 1, 3]
    assert list(spread(1)) == [0]
    assert sorted(spread(28)) == list(range(28))


def test_every_architecture_that_is_read_has_a_second_path(tmp_path: Path) -> None:
    covered = {arch for arch in corpus.TYPES if Reference.covers(GGUFFile(written(tmp_path, arch)))}
    assert covered == set(corpus.TYPES)
    assert covered == set(architectures.ARCHITECTURES)


def test_the_command_names_a_random_model(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = written(tmp_path)
    assert main(["check", str(path), "--exact"]) == 1
    said = capsys.readouterr().out
    assert "wrong" in said
    assert "random or damaged" in said
    assert "4 of 4 layers" in said
    assert main(["check", str(path), "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["comparison"]["passed"]
    assert found["perplexity"] > 300


def windowed(folder: Path) -> Path:
    """A folder whose model has a window that is wider than the text."""
    tiny_folder(folder)
    fields = json.loads((folder / "config.json").read_text()) | {"sliding_window": 2000, "initializer_range": 0.3}
    config = MistralConfig(**{name: value for name, value in fields.items() if name != "model_type"})
    with torch.random.fork_rng():
        torch.manual_seed(0)
        MistralForCausalLM(config).save_pretrained(folder)
    return folder


def compared(folder: Path, capsys: pytest.CaptureFixture[str], *options: str) -> dict[str, Any]:
    """What `kvorum check` says of a random model's folder: the comparison, the problems."""
    assert main(["check", str(folder), "--json", *options]) == 1
    found = json.loads(capsys.readouterr().out)
    assert any("random or damaged" in problem for problem in found["problems"])
    return dict(found["comparison"])


def test_the_command_compares_a_folder_with_transformers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = windowed(tmp_path / "tiny")
    exact, packed = compared(folder, capsys, "--exact"), compared(folder, capsys, "--quantize", "packed")
    assert (exact["weights"], exact["passed"], exact["layers"]) == ("float32", True, 2)
    assert exact["logits"] < 1e-5
    assert (packed["weights"], packed["passed"]) == ("packed", True)
    assert packed["logits"] > 1e-4
    assert main(["check", str(folder), "--exact"]) == 1
    assert "against transformers  float32: differs by" in capsys.readouterr().out


def no_window(monkeypatch: pytest.MonkeyPatch) -> None:
    """kvorum's attention sees everything."""
    monkeypatch.setattr(seam, "_window", lambda *args: None)


def badly_packed(monkeypatch: pytest.MonkeyPatch) -> None:
    def doubled(made: Any, *args: Any, **options: Any) -> None:
        quantize_model(made, *args, **options)
        made.model.layers[1].mlp.down_proj.packed.parts[0].mult.mul_(2.0)

    monkeypatch.setattr(load, "quantize_model", doubled)


@pytest.mark.parametrize(
    ("wrong", "options"),
    [(no_window, ["--exact"]), (no_window, ["--quantize", "packed"]), (badly_packed, ["--quantize", "packed"])],
)
def test_the_command_finds_what_goes_wrong_with_a_folder(
    wrong: Any, options: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = windowed(tmp_path / "tiny")
    wrong(monkeypatch)
    assert not compared(folder, capsys, *options)["passed"]
    assert main(["check", str(folder), *options]) == 1
    assert "as it runs here it does not compute what its own weights say" in capsys.readouterr().out


def test_a_catalogue_model_is_right_and_shows_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "smollm2-135m", "--exact"]) == 0
    assert "right" in capsys.readouterr().out
    assert main(["models", "smollm2-135m"]) == 0
    assert "check    float32: differs by" in capsys.readouterr().out
    assert main(["models", "smollm2-135m", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["checks"]["float32"]["bound"] == selfcheck.EXACT


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(CATALOGUE))
def test_a_catalogue_model_is_checked_in_fifteen_seconds(name: str) -> None:
    found = loaded(name, packed=True, accept_licence=True)
    ids = found.tokenizer(selfcheck.TEXT).input_ids
    found = selfcheck.compare(found.model, GGUFFile(entry_folder(CATALOGUE[name]).gguf), ids)
    assert found.passed
    assert found.seconds < 15
