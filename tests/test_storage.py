"""Blocks on disk: what is saved comes back bit by bit, and what does not belong here is refused by name.

Covers the round trip in several dtypes and page sizes, use in views, other models, dtypes, shapes and formats,
truncated and altered files, an interrupted write, and a full pool. Not covered: many processes writing one file.
"""

from __future__ import annotations

import gc
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

import local_backend
from families import build, random_ids
from kvorum import LATENT, Block, Engine, Row, Span, View
from kvorum.errors import BadRequest, BlockMismatch, OutOfPages, SealedBlock
from kvorum.models import tensor_file


@cache
def model(name: str = "llama", dtype: torch.dtype = torch.float32, seed: int = 0) -> Any:
    return build(name, dtype, seed)


def engine(page_size: int = 4, tokens: int = 256, **options: Any) -> Engine:
    return Engine(model(**options), kv_tokens=tokens, page_size=page_size)


def written(made: Engine, count: int = 11) -> Block:
    block = made.block("notes")
    made.forward([Row(View(block), ids=random_ids(count - 1).tolist())])
    made.forward([Row(View(block), embeds=torch.ones(1, 48))])
    return block


def stored(made: Engine, block: Block) -> list[torch.Tensor]:
    slots = block.table.slot_tensor(0, len(block))
    return [tensor[:, slots].clone() for tensor in (*local_backend.cache(made).keys, *local_backend.cache(made).values)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_round_trip_is_bitwise(tmp_path: Path, dtype: torch.dtype) -> None:
    first = engine(dtype=dtype)
    block = written(first)
    path = first.save(block, tmp_path / "notes.safetensors")
    second = engine(page_size=3, dtype=dtype)
    loaded = second.load_block(path)
    assert loaded.name == "notes"
    assert loaded.ids == block.ids
    assert loaded.ids[-1] == LATENT
    for old, new in zip(stored(first, block), stored(second, loaded), strict=True):
        assert old.dtype == dtype
        assert torch.equal(old, new)
    assert second.load_block(path, name="other").name == "other"


def test_an_int8_block_is_read_to_the_bit_and_by_its_like_alone(tmp_path: Path) -> None:
    """And ``deviation``, which looks at values, takes them for what they stand for."""
    first, second, other = (
        Engine(model(), kv_tokens=256, page_size=4, kv_dtype=kind) for kind in ("int8", "int8", "auto")
    )
    block = written(first)
    path = first.save(block, tmp_path / "notes.safetensors")
    for old, new in zip(stored(first, block), stored(second, second.load_block(path)), strict=True):
        assert old.dtype == torch.int8
        assert torch.equal(old, new)
    with pytest.raises(BlockMismatch, match="another dtype"):
        other.load_block(path)
    moved = []
    for engine_ in (first, other):
        text, before = engine_.block(), engine_.block()
        for part, count in ((before, 5), (text, 9)):
            engine_.forward([Row(View(part), ids=random_ids(count - 1).tolist())])
        moved.append(engine_.deviation(text, View(before)))
    assert torch.allclose(moved[0], moved[1], rtol=0.2, atol=0.02 * float(moved[1].max()))


def test_a_loaded_block_stands_in_any_view(tmp_path: Path) -> None:
    """Behind other tokens, in part, and beside a second copy; and it is sealed."""
    first = engine(dtype=torch.float64)
    block, before = written(first), first.block()
    first.forward([Row(View(before), ids=[5, 6, 7])])
    view = View(before, Span(block, 2, 9), first.block())
    expected = first.forward([Row(view, ids=[8, 9])]).logits
    path = first.save(block, tmp_path / "block")
    second = engine(page_size=16, dtype=torch.float64)
    again, copy = second.load_block(path), second.load_block(path)
    start = second.block()
    second.forward([Row(View(start), ids=[5, 6, 7])])
    for loaded in (again, copy):
        got = second.forward([Row(View(start, Span(loaded, 2, 9), second.block()), ids=[8, 9])]).logits
        assert float((got - expected).abs().max()) < 1e-9
    second.forward([Row(View(again, copy, second.block()), ids=[8])])
    with pytest.raises(SealedBlock):
        second.forward([Row(View(again), ids=[8])])


def test_an_empty_block_can_be_saved(tmp_path: Path) -> None:
    made = engine()
    loaded = made.load_block(made.save(made.block("empty"), tmp_path / "empty"))
    assert (len(loaded), loaded.name) == (0, "empty")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"seed": 1}, "another model"),
        ({"name": "qwen2"}, "another model"),
        ({"name": "llama-linear"}, "another model"),
        ({"dtype": torch.float64}, "another dtype"),
    ],
)
def test_blocks_of_others_are_refused(tmp_path: Path, options: dict[str, Any], words: str) -> None:
    first = engine()
    path = first.save(written(first), tmp_path / "block")
    other = engine(**options)
    free = other.pool.free
    with pytest.raises(BlockMismatch, match=words):
        other.load_block(path)
    assert other.pool.free == free


def rewrite(path: Path, **about: str) -> None:
    with safe_open(path, framework="pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a dictionary)
        metadata = {**file.metadata(), **about}
    save_file(tensors, path, metadata=metadata)


def test_formats_and_shapes_of_others_are_refused(tmp_path: Path) -> None:
    made = engine()
    path = made.save(written(made), tmp_path / "block")
    rewrite(path)
    made.load_block(path)
    rewrite(path, layers="[[1, 2, 3]]")
    with pytest.raises(BlockMismatch, match="another shape"):
        made.load_block(path)
    rewrite(path, format="kvorum-block-0")
    with pytest.raises(BlockMismatch, match="not a kvorum block file of a version that can be read"):
        made.load_block(path)
    rewrite(path, format="kvorum-block-3")
    with pytest.raises(BlockMismatch, match="of version 3, and this kvorum reads versions up to 2"):
        made.load_block(path)
    save_file({"ids": torch.zeros(3)}, path)
    with pytest.raises(BlockMismatch, match="not a kvorum block file"):
        made.load_block(path)


def test_damaged_files_are_refused_whole(tmp_path: Path) -> None:
    """Cut at many lengths, or one bit turned at many places: always the named error, and no page is taken."""
    made = engine()
    path = made.save(written(made), tmp_path / "block")
    whole, free = path.read_bytes(), made.pool.free
    damaged = [whole[:length] for length in (0, 1, 7, 8, 100, len(whole) // 2, len(whole) - 1)] + [whole + b"x"]
    for at in (0, 9, len(whole) // 3, len(whole) // 2, len(whole) - 1):
        damaged.append(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
    for data in damaged:
        path.write_bytes(data)
        with pytest.raises(BlockMismatch, match=r"(damaged|no block file|not a kvorum block file)"):
            made.load_block(path)
        gc.collect()
        assert made.pool.free == free
    path.write_bytes(whole)
    assert len(made.load_block(path)) == 11


def test_a_missing_file_or_folder_is_said_so(tmp_path: Path) -> None:
    made = engine()
    with pytest.raises(BlockMismatch, match="no block file"):
        made.load_block(tmp_path / "nothing")
    with pytest.raises(BadRequest, match=r"there is no folder .*missing; make it first"):
        made.save(made.block(), tmp_path / "missing" / "block")
    assert not (tmp_path / "missing").exists()


def test_an_interrupted_write_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = engine()
    block = written(made)
    path = tmp_path / "block"

    def interrupted(tensors: Any, filename: Path, **_: Any) -> None:
        Path(filename).write_bytes(b"half of it")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(tensor_file, "save_file", interrupted)
        with pytest.raises(KeyboardInterrupt):
            made.save(block, path)
        assert list(tmp_path.iterdir()) == []
    made.save(block, path)
    old = path.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(tensor_file, "save_file", interrupted)
        with pytest.raises(KeyboardInterrupt):
            made.save(block, path)
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_bytes() == old


def test_no_room_to_load(tmp_path: Path) -> None:
    made = engine()
    path = made.save(written(made), tmp_path / "block")
    small = engine(tokens=8)
    with pytest.raises(OutOfPages):
        small.load_block(path)
    gc.collect()
    assert small.pool.free == 2
