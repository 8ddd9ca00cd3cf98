"""Alignment: from a hidden state to the embedding that stands for the next thought, by each of its ways."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from families import VOCAB, build
from kvorum import Engine, Output, Row, View
from kvorum.errors import BadRequest, UnsupportedModel
from kvorum.models.packed.layers import PackedLinear
from kvorum.models.packed.matrix import PackedMatrix, pack_weight
from kvorum.programs.relay import alignment as latent
from latent_oracle import Characters, dense_agent, engine, oracle_model, solve


def over(model: PreTrainedModel) -> Engine:
    return Engine(model, Characters(), kv_tokens=16)


def of(hidden: Tensor) -> Output:
    return Output(lambda: hidden, hidden)


def matrix(model: PreTrainedModel) -> Tensor:
    """Of the ridge alignment."""
    made = latent.alignment(over(model), "ridge")
    assert isinstance(made, latent.Alignment)
    assert made.matrix is not None
    return made.matrix


@pytest.mark.parametrize("name", ["llama", "gemma3", "cohere"])
def test_ridge_is_the_regularised_least_squares_solution(name: str) -> None:
    model = build(name, torch.float64)
    ids = torch.arange(VOCAB)
    table, head = model.get_input_embeddings()(ids).detach(), model.get_output_embeddings().weight.detach()
    for penalty in (1e-5, 2.0):
        root = penalty**0.5 * torch.eye(table.shape[1], dtype=table.dtype)
        expected = torch.linalg.lstsq(
            torch.cat((head, root)), torch.cat((table, torch.zeros_like(root))), driver="gelsd"
        ).solution
        assert torch.allclose(latent.ridge(model, penalty), expected, atol=1e-9)
    made = latent.alignment(over(model), "ridge")
    assert latent.alignment(over(model), "ridge") is made  # once per model
    assert isinstance(made, latent.Alignment)
    assert made.norm == pytest.approx(float(table.norm(dim=1).mean()))
    hidden = torch.randn(4, table.shape[1], dtype=torch.float64)
    assert torch.allclose(made(of(hidden)).norm(dim=1), torch.full((4,), made.norm, dtype=torch.float64))
    assert not made(of(torch.zeros(1, table.shape[1]))).any()  # a zero state stays finite
    assert made(of(hidden.float())).dtype == torch.float32
    with pytest.raises(BadRequest, match="hidden=True"):
        made(Output(lambda: hidden))


@torch.no_grad()
def test_several_rows_feed_their_own_thoughts_back() -> None:
    """Two rows in the same ticks, line i of the alignment's result to row i: each as the published loop takes it."""
    made = engine()
    embed, prompts = latent.alignment(made, "norm"), [[3, 14, 15], [9, 2]]
    views = [View(made.block()) for _ in prompts]
    out = made.forward([Row(view, ids=ids) for view, ids in zip(views, prompts, strict=True)], hidden=True)
    for _ in range(3):
        thoughts = embed(out)
        rows = [Row(view, embeds=thoughts[at : at + 1]) for at, view in enumerate(views)]
        out = made.forward(rows, hidden=True)
    for at, ids in enumerate(prompts):
        expected = dense_agent(oracle_model("llama"), DynamicCache(config=oracle_model("llama").config), ids, 3)
        assert torch.allclose(out.logits[at], expected, atol=1e-9)
    by_hand = made.forward([Row(View(made.block()), ids=[3]), Row(View(made.block()), ids=[4])], hidden=True)
    assert by_hand.hidden is not None
    row = Row(View(made.block()), embeds=by_hand.hidden[1:2])  # a line of it is what a row takes
    assert made.forward([row]).logits.shape == (1, VOCAB)


def test_tied_embeddings_realign_to_the_identity() -> None:
    model = build("gemma", torch.float32)
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    matrix = latent.ridge(model)
    assert matrix.dtype == torch.float32
    scale = len(matrix) ** 0.5  # inside gemma's embedding module; the norm takes it out again
    assert torch.allclose(matrix, scale * torch.eye(len(matrix)), atol=1e-4)


def test_tied_embeddings_are_fed_soft_ones_unless_told_otherwise() -> None:
    tied, untied = build("gemma"), build("llama")
    assert isinstance(latent.alignment(over(tied), "auto"), latent.SoftEmbedding)
    assert latent.alignment(over(untied), "auto") is latent.alignment(over(untied), "norm")
    scaled = latent.alignment(over(tied), "norm")
    assert isinstance(scaled, latent.Alignment)
    assert scaled.matrix is None
    plain, told = solve()[0], solve(align="norm")[0]
    assert plain.workers[-1].ids == told.workers[-1].ids  # of an untied model


def test_packed_weights_are_read_as_they_are() -> None:
    model = build("seed-oss")
    width = model.config.hidden_size
    weight = torch.nn.functional.pad(model.lm_head.weight, (0, 64 - width))
    packed = PackedLinear(PackedMatrix([pack_weight(weight, 7)]))
    assert packed.in_features == 64
    parts = list(latent.output_rows(_Headed(packed)))
    assert torch.equal(torch.cat(parts), packed.packed.parts[0].dequantize())
    assert torch.allclose(torch.cat(parts)[:, :width], model.lm_head.weight, atol=0.05)
    with pytest.raises(UnsupportedModel, match="Identity"):
        list(latent.output_rows(_Headed(torch.nn.Identity())))


class _Headed(torch.nn.Module):
    def __init__(self, head: torch.nn.Module) -> None:
        super().__init__()
        self.head = head

    def get_output_embeddings(self) -> torch.nn.Module:
        return self.head


def test_a_costly_matrix_is_kept_on_disk(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.setenv("KVORUM_HOME", str(tmp_path))
    monkeypatch.setattr(latent, "_WORTH_KEEPING", 0)
    first = matrix(build("llama"))
    (file,) = tmp_path.rglob("*.safetensors")
    monkeypatch.setattr(latent, "ridge", lambda model: pytest.fail("made again"))
    assert torch.equal(matrix(build("llama")), first)
    monkeypatch.undo()
    monkeypatch.setenv("KVORUM_HOME", str(tmp_path))
    monkeypatch.setattr(latent, "_WORTH_KEEPING", 0)
    file.write_bytes(b"damaged")
    assert torch.equal(matrix(build("llama")), first)
    assert torch.equal(matrix(build("llama", seed=1)), first) is False
    monkeypatch.setenv("KVORUM_HOME", "/proc/nowhere")
    assert torch.equal(matrix(build("llama")), first)
