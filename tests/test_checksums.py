"""Damage at random places: in a cached conversion all is named, in a GGUF file's head it is named or has no effect."""

from __future__ import annotations

import os
import random
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

import gguf_corpus as corpus
from kvorum.errors import KvorumError, ModelFileError
from kvorum.jsontypes import Json
from kvorum.models import checksums
from kvorum.models.cache_folder import gguf_folder
from kvorum.models.gguf.file import GGUFFile
from kvorum.models.load import load_model

PLACES = [20, pytest.param(200, marks=pytest.mark.slow)]
IDS = torch.arange(4, 24)[None]


def hurt(path: Path, draw: random.Random, below: int | None = None) -> None:
    """Cut the file or flip a bit, somewhere in its first `below` bytes."""
    data = bytearray(path.read_bytes())
    at = draw.randrange(len(data) if below is None else below)
    if draw.random() < 0.25:
        data = data[:at]
    else:
        data[at] ^= 1 << draw.randrange(8)
    path.write_bytes(data)


def logits(path: Path, **options: Any) -> torch.Tensor:
    model: Any = load_model(path, **options).model
    with torch.no_grad():
        found: torch.Tensor = model(IDS).logits
    return found


@pytest.mark.parametrize("places", PLACES)
@pytest.mark.parametrize("packed", [False, True])
def test_damage_in_a_conversion_is_named(places: int, packed: bool, home: Path, tmp_path: Path) -> None:
    path = corpus.save(tmp_path / "tiny.gguf", corpus.contents("llama", corpus.tiny("llama")))
    load_model(path, packed=packed)
    folder = gguf_folder(path)
    sources = [folder.about, folder.packed] if packed else [folder.hf]
    files = [file for source in sources for file in sorted(source.iterdir()) if file.name != "kvorum.json"]
    whole = [folder.packed / "weights.safetensors" if packed else folder.hf / "model.safetensors"]
    shutil.copytree(folder.path, tmp_path / "kept")
    draw = random.Random(places + packed)
    for _ in range(places):
        file = draw.choice([*files, *whole * len(files)])
        hurt(file, draw)
        with pytest.raises(ModelFileError, match=f"{file.name} is damaged") as caught:
            load_model(path, packed=packed)
        assert "\n" not in str(caught.value)
        shutil.copy2(tmp_path / "kept" / file.relative_to(folder.path), file)
    load_model(path, packed=packed)


def test_an_untouched_conversion_is_not_read_again(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = corpus.save(tmp_path / "tiny.gguf", corpus.contents("llama", corpus.tiny("llama")))
    load_model(path)
    read: list[Path] = []
    original = checksums._hashes

    def hashes(file: Path) -> dict[str, Json]:
        read.append(file)
        return original(file)

    monkeypatch.setattr(checksums, "_hashes", hashes)
    load_model(path)
    assert not read
    weights = gguf_folder(path).hf / "model.safetensors"
    os.utime(weights)
    load_model(path)
    assert read == [weights] * 2, "once to compare, once to keep its new time"
    load_model(path)
    assert len(read) == 2


@pytest.mark.parametrize("places", PLACES)
def test_damage_in_the_head_of_a_file_is_named_or_without_effect(places: int, home: Path, tmp_path: Path) -> None:
    whole = corpus.save(tmp_path / "whole.gguf", corpus.contents("llama", corpus.tiny("llama", num_hidden_layers=2)))
    want = logits(whole)
    size = whole.stat().st_size
    head = size - sum(4 * weight.numel() for weight in load_model(whole).model.parameters())
    draw = random.Random(places)
    named = 0
    for place in range(places):
        path = tmp_path / f"{place}.gguf"
        shutil.copy(whole, path)
        hurt(path, draw, below=head)
        try:
            got = logits(path)
        except KvorumError:
            named += 1
        else:  # a value that is still a possible one cannot be known to be another; all else is without effect
            if GGUFFile(path).metadata == GGUFFile(whole).metadata:
                assert torch.equal(got, want), "another model, and nothing was said"
    assert named > places // 2
