"""Latent steps: from a model's last hidden state to the input embedding that stands for its next thought.

LatentMAS (arXiv 2511.20639): ``e = rho * u / max(|u|, 1e-6)`` with ``u = h W``; ``h`` is the last hidden state after
the final norm, ``rho`` the mean norm of the input embeddings, and ``W`` the identity or the ridge solution that takes
rows of the output matrix to rows of the input matrix. Nothing is sampled, so a chain of latent steps is deterministic.

With tied embeddings the ridge solution is the identity, and the raw hidden state is far from any embedding; for such
models there is a third way, the mean of the input embeddings weighted by the next token's probabilities (CIPHER, arXiv
2310.06272). Not covered: maps between different models.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal
from weakref import WeakKeyDictionary

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from kvorum.engine.engine import EngineCore
from kvorum.engine.row import Output
from kvorum.errors import BadRequest, UnsupportedModel
from kvorum.models.cache_folder import cache_root
from kvorum.models.fingerprint import fingerprint
from kvorum.models.packed.layers import PackedLinear
from kvorum.models.tensor_file import write_tensors

Way = Literal["auto", "norm", "ridge", "soft"]
"""How a hidden state becomes an embedding; see ``alignment``."""
RIDGE = 1e-5
"""The published lambda."""
_LIKELIEST = 1024
_ROWS = 8192  # of a table at a time
_WORTH_KEEPING = 10**11  # multiplications from which on a matrix is kept on disk (seconds of work)
_made: WeakKeyDictionary[nn.Module, dict[str, Alignment]] = WeakKeyDictionary()


@dataclass(frozen=True, slots=True, eq=False)
class Alignment:
    """Scales the hidden states of a tick: ``matrix`` ``[hidden, hidden]`` (None: identity), ``norm`` the length.

    Both are float32, or float64 for a float64 model.
    """

    matrix: Tensor | None
    norm: float

    def __call__(self, output: Output) -> Tensor:
        """Embeddings ``[rows, hidden]`` for the rows of a tick, in its dtype, computed in float32 or wider."""
        hidden = _hidden(output)
        wide = _wide(hidden)
        turned = wide if self.matrix is None else wide @ self.matrix.to(wide)
        length = torch.linalg.vector_norm(turned, dim=-1, keepdim=True).clamp_min(1e-6)
        scaled: Tensor = turned * (self.norm / length)
        return scaled.to(hidden.dtype)


@dataclass(frozen=True, slots=True, eq=False)
class SoftEmbedding:
    """The mean of the input embeddings under the model's own next-token probabilities.

    At temperature 1, over the 1024 likeliest tokens, renormalised.
    """

    embed: nn.Module

    def __call__(self, output: Output) -> Tensor:
        """Embeddings ``[rows, hidden]`` for the rows of a tick, in its dtype."""
        wide = _wide(output.logits)
        best, ids = wide.topk(min(_LIKELIEST, wide.shape[-1]), dim=-1)
        mean: Tensor = best.softmax(-1)[:, None] @ _wide(self.embed(ids)).to(best)
        return mean[:, 0].detach().to(_hidden(output).dtype)


def alignment(engine: EngineCore, kind: Way = "norm") -> Alignment | SoftEmbedding:
    """The alignment of the engine's model, made once per model; a costly matrix is kept in the cache folder too.

    It is called with what ``forward(rows, hidden=True)`` returns; line i of the result, as ``embeds=e[i : i + 1]``, is
    the next latent step of row i. ``kind``: "norm" rescales only (the published default), "ridge" is the closed form of
    ``--latent_space_realign``, "soft" is the probability-weighted mean of embeddings, "auto" is "soft" for tied
    embeddings and "norm" for others.

    Raises:
        UnsupportedModel: embeddings and hidden states differ in width, or the model is not in this process.
    """
    model = engine.backend.module()
    if kind == "auto":
        kind = "soft" if getattr(model.config.get_text_config(), "tie_word_embeddings", False) else "norm"  # type: ignore[union-attr, operator]
    if kind == "soft":
        return SoftEmbedding(model.get_input_embeddings())  # type: ignore[operator]
    known = _made.setdefault(model, {})
    if kind not in known:
        known[kind] = _ridge_alignment(model) if kind == "ridge" else Alignment(None, mean_norm(model))
    return known[kind]


def _hidden(output: Output) -> Tensor:
    if output.hidden is None:
        raise BadRequest("Latent steps need the hidden states of a tick: forward(rows, hidden=True).")
    return output.hidden


def mean_norm(model: nn.Module) -> float:
    """The mean Euclidean norm of the model's input embeddings."""
    total, rows = 0.0, 0
    for part in input_rows(model):
        total, rows = total + float(torch.linalg.vector_norm(part, dim=1).cpu().double().sum()), rows + len(part)
    return total / rows


def ridge(model: nn.Module, penalty: float = RIDGE) -> Tensor:
    """``(Wout' Wout + penalty I)^-1 Wout' Win`` ``[hidden, hidden]``, float32, or float64 for a float64 model.

    The products are taken in that dtype a part of the vocabulary at a time; their sum and the solution are in float64.
    """
    gram = cross = torch.zeros((), dtype=torch.float64)
    dtype = torch.float32
    for given, read in zip(output_rows(model), input_rows(model), strict=False):  # one table may have more rows
        rows = min(len(given), len(read))
        given, read, dtype = given[:rows], read[:rows], read.dtype
        if given.shape[1] != read.shape[1]:
            raise UnsupportedModel(
                f"{type(model).__name__} has embeddings of {read.shape[1]} numbers and hidden states of "
                f"{given.shape[1]}; latent steps need them equal."
            )
        gram = gram + (given.T @ given).cpu().double()
        cross = cross + (given.T @ read).cpu().double()
    gram.diagonal().add_(penalty)
    solved: Tensor = torch.linalg.solve(gram, cross)
    return solved.to(dtype)


# -- the two tables ------------------------------------------------------------------------------------------------
# The input table through its module, which may be quantised, or scale what it reads; the output table row by row.


def input_rows(model: nn.Module) -> Iterator[Tensor]:
    """The input embeddings ``[<= 8192, hidden]`` as the decoder gets them (a scale inside the module included)."""
    embed = model.get_input_embeddings()  # type: ignore[operator]
    device = next(model.parameters()).device
    for ids in torch.split(torch.arange(_vocab(embed, model), device=device), _ROWS):
        with torch.no_grad():
            yield _wide(embed(ids))


def output_rows(model: nn.Module) -> Iterator[Tensor]:
    """The rows of the output matrix ``[<= 8192, hidden]``, without bias and without scales of the logits.

    Raises UnsupportedModel for an output layer of an unknown kind.
    """
    head = model.get_output_embeddings()  # type: ignore[operator]
    if isinstance(head, PackedLinear):
        first, *more = head.packed.parts
        if more:
            yield from torch.split(torch.cat([part.dequantize() for part in (first, *more)]), _ROWS)
        else:
            yield from (first.dequantize(rows) for rows in torch.split(torch.arange(first.rows), _ROWS))
    elif isinstance(head, nn.Linear):
        for rows in torch.split(head.weight.detach(), _ROWS):
            yield _wide(rows)
    else:
        raise UnsupportedModel(f"The output layer of {type(model).__name__}, a {type(head).__name__}, holds no matrix.")


def _vocab(embed: nn.Module, model: nn.Module) -> int:
    size: int | None = getattr(embed, "num_embeddings", None)
    return size or int(model.config.get_text_config().vocab_size)  # type: ignore[union-attr, operator]


def _wide(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _ridge_alignment(model: nn.Module) -> Alignment:
    """The ridge solution; what takes long to compute is kept in the cache folder."""
    norm = mean_norm(model)
    embed = model.get_input_embeddings()  # type: ignore[operator]
    if _vocab(embed, model) * next(input_rows(model)).shape[1] ** 2 < _WORTH_KEEPING:
        return Alignment(ridge(model), norm)
    head = type(model.get_output_embeddings()).__name__  # type: ignore[operator]
    key = f"{fingerprint(model)} {head} {next(model.parameters()).dtype} {RIDGE}"  # quantised or not, and how
    path = cache_root() / "latent" / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.safetensors"
    try:
        matrix = load_file(path)["matrix"]
    except (OSError, SafetensorError, KeyError):  # not there, or damaged: it can be made again
        matrix = ridge(model)
        with suppress(OSError):  # a cache folder that cannot be written costs some seconds next time
            write_tensors(path, {"matrix": matrix.cpu().contiguous()}, {})
    return Alignment(matrix, norm)
