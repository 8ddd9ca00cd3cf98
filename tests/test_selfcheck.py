"""The self-check of a converted GGUF file: what it finds, what it keeps, and `kvorum check`."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import gguf_corpus as corpus
from kvorum.cli.main import main
from kvorum.errors import ModelFileError
from kvorum.models import selfcheck
from kvorum.models.cache_folder import entry_folder, gguf_folder, kept_checks
from kvorum.models.catalogue import CATALOGUE
from kvorum.models.gguf import architectures, model, rope
from kvorum.models.gguf.file import GGUFFile
from kvorum.models.gguf.reference import Reference, spread
from kvorum.models.load import load_model


def written(folder: Path, arch: str = "llama", **options: Any) -> Path:
    return corpus.save(folder / "tiny.gguf", corpus.contents(arch, corpus.tiny(arch, **options)))


@pytest.mark.parametrize("packed", [False, True])
def test_a_passed_check_is_kept_and_not_made_again(
    packed: bool, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(tmp_path)
    loaded = load_model(path, packed=packed)
    (kept,) = kept_checks(loaded.source).values()
    found = selfcheck.SelfCheck.of_json(kept)
    assert found.passed
    assert found.layers == found.of == 4
    assert found.bound == (selfcheck.PACKED if packed else selfcheck.EXACT)
    assert "4 of 4 layers" in str(found)
    monkeypatch.setattr(selfcheck, "compare", None)
    load_model(path, packed=packed)


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


def test_a_scaling_that_is_dropped_is_found(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path, rope_parameters={"rope_type": "linear", "factor": 4.0, "rope_theta": 10000.0})
    plain = {"rope_type": "default", "rope_theta": 10000.0}
    original = rope.rope_parameters
    monkeypatch.setattr(model, "rope_parameters", lambda *args: original(*args) and plain)
    for packed in (False, True):
        with pytest.raises(ModelFileError, match="does not compute"):
            load_model(path, packed=packed)


def test_without_time_some_layers_are_followed_and_the_others_taken(home: Path, tmp_path: Path) -> None:
    path = written(tmp_path, num_hidden_layers=9)
    loaded: Any = load_model(path)
    ids = list(range(30))
    found = selfcheck.compare(loaded.model, GGUFFile(path), ids, seconds=0.0)
    assert found.passed
    assert 2 <= found.layers < found.of == 9
    with torch.no_grad():
        loaded.model.model.layers[8].mlp.down_proj.weight[0] += 1
    assert not selfcheck.compare(loaded.model, GGUFFile(path), ids, seconds=0.0).passed
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
    loaded: Any = load_model(name, packed=True, accept_licence=True)
    ids = loaded.tokenizer(selfcheck.TEXT).input_ids
    found = selfcheck.compare(loaded.model, GGUFFile(entry_folder(CATALOGUE[name]).gguf), ids)
    assert found.passed
    assert found.seconds < 15
