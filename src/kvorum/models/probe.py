"""The probe: how each layer of a model rotates, learned from the model itself, and whether kvorum can be
exact on it.

The model runs once with an attention that returns the values: every token attends to itself alone. Then
nothing but the rotation of q and k may depend on a token's position, and no token may notice another. Layer
by layer the probe finds the rotation that maps q at position 0 to q at position p. A second pass compares a
short causal forward through the seam with the model's own. There is no table of model families.

Refused with one sentence each: rotations that change with the length (dynamic NTK), learned positions, ALiBi,
recurrent, convolutional and hybrid layers, encoder-decoders, bidirectional models, sparse attention by index,
models that do not use transformers' attention interface.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from kvorum.attention.kernel import Attends, Softmax
from kvorum.attention.rotary import Rotary, Style
from kvorum.errors import UnsupportedModel
from kvorum.models import exactness, seam
from kvorum.models.shape import LayerShape, ModelShape

_STYLES: tuple[Style, ...] = ("half", "interleaved")


def probe(model: nn.Module) -> ModelShape:
    """Learn the model's shape and rotations; leaves the model as it was. Costs three forwards of a few
    tokens.

    Raises UnsupportedModel, in one sentence, if the model cannot be exact over views.
    """
    if not hasattr(model, "config"):
        raise UnsupportedModel(f"{type(model).__name__} is no Hugging Face causal language model.")
    config = model.config.get_text_config()  # type: ignore[union-attr,operator]
    exactness.refuse_by_configuration(model, config)
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        return _learn(model, config)
    finally:
        for module in training:
            module.training = True


def _learn(model: nn.Module, config: Any) -> ModelShape:
    refusal = UnsupportedModel("unreachable")
    # more than one try, with other tokens: where two experts score alike, rounding may swap them
    for attempt in range(3):
        try:
            shape = _fit(model, config, attempt)
            ids = torch.arange(min(8, shape.max_positions or 8), device=next(model.parameters()).device)
            ids = (ids * (shape.vocab // 11 + 1) + 2 + attempt) % shape.vocab
            exactness.compare_with_own_forward(model, [layer.rotary for layer in shape.layers], ids)
            return shape
        except UnsupportedModel as error:
            refusal = error
    raise refusal


# --- the fit


class _Recorder(Attends):
    """Attention in which each token attends to itself alone.

    `seen`: what each layer handed over at each call: q [q_heads, n, k_dim], k [kv_heads, n, k_dim],
    v [kv_heads, n, v_dim], and its window.
    """

    def __init__(self) -> None:
        self.seen: dict[int, list[tuple[Tensor, Tensor, Tensor, int | None]]] = {}

    def attend(self, layer: int, query: Tensor, keys: Tensor, values: Tensor, softmax: Softmax, /) -> Tensor:
        self.seen.setdefault(layer, []).append((query, keys, values, softmax.window))
        return values.repeat_interleave(query.shape[0] // values.shape[0], dim=0).transpose(0, 1).contiguous()


def _fit(model: nn.Module, config: Any, attempt: int) -> ModelShape:
    """What one packed forward shows of the model."""
    name = type(model).__name__
    max_positions, max_tokens = exactness.limits(config)
    trained = int(getattr(config, "max_position_embeddings", None) or 1 << 12)
    far = min(max_positions or trained, trained, 1 << 15) - 1
    places = [0, *(p for p in (1, 5, 13, 97, far) if 0 < p <= far)]
    ids, same = _probe_tokens(model, len(places), attempt)
    positions = torch.zeros_like(ids)
    positions[same] = torch.tensor(places, device=ids.device)
    recorder = _Recorder()
    try:
        out = seam.call(model, ids, attention=recorder, logits_index=same, position_ids=positions, hidden=True)
    except (AttributeError, IndexError, KeyError, TypeError) as error:
        if recorder.seen:
            raise
        raise UnsupportedModel(
            f"{name} computes attention on its own, so kvorum cannot take its place (it failed: {error})."
        ) from error
    _refuse_missing_layers(name, recorder, int(config.num_hidden_layers))
    assert out.hidden is not None
    slack = exactness.tolerance(out.hidden.dtype)
    if _residual(out.hidden, out.hidden[:1]) > 5 * slack:
        raise UnsupportedModel(
            f"{name} feeds positions or neighbouring tokens into its hidden states (learned positions, a "
            "recurrence, a convolution), so a stored token cannot be seen from another position."
        )
    fitter = _Fitter(_frequencies(model), positions[same], slack)
    kinds = getattr(config, "layer_types", None) or ()
    layers = []
    for index in range(len(recorder.seen)):
        q, k, v, window = recorder.seen[index][0]
        rotary = fitter.fit(q[:, same], k[:, same])
        if rotary is None:
            raise UnsupportedModel(
                f"Layer {index} of {name} changes its queries or keys with the position in a way that is not "
                "a fixed rotation."
            )
        if index < len(kinds) and (kinds[index] == "sliding_attention") != (window is not None):
            raise UnsupportedModel(f"Layer {index} of {name} is of type {kinds[index]} but says a window of {window}.")
        layers.append(LayerShape(rotary, len(q), len(k), q.shape[2], v.shape[2], window))
    return ModelShape(
        tuple(layers), out.logits.shape[-1], out.hidden.shape[-1], max_positions, max_tokens, exactness.trained(config)
    )


def _probe_tokens(model: nn.Module, places: int, attempt: int) -> tuple[Tensor, Tensor]:
    """Token ids with one token repeated at `places` indices, and these indices: its left neighbours
    differ."""
    vocab = model.get_input_embeddings().num_embeddings  # type: ignore[operator]
    device = next(model.parameters()).device
    ids = torch.full((places + 2,), (vocab // 3 + 7 * attempt) % vocab)
    ids[0] = (vocab // 2 + 3 * attempt) % vocab
    ids[3] = (vocab // 5 + 5 * attempt) % vocab
    same = torch.tensor([i for i in range(places + 2) if i not in (0, 3)])
    return ids.to(device), same.to(device)


def _refuse_missing_layers(name: str, recorder: _Recorder, layers: int) -> None:
    if not recorder.seen:
        raise UnsupportedModel(
            f"{name} does not use the attention interface of transformers, so kvorum cannot take its place."
        )
    silent = sorted(set(range(layers)) - recorder.seen.keys())
    if silent or len(recorder.seen) != layers:
        raise UnsupportedModel(
            f"{name} has layers without attention (such as {silent[0] if silent else layers}): the state "
            "of recurrent and hybrid models cannot be put together from blocks."
        )
    if any(len(calls) > 1 for calls in recorder.seen.values()):
        raise UnsupportedModel(f"{name} attends more than once in a layer; kvorum stores one set of keys.")


def _frequencies(model: nn.Module) -> list[Tensor]:
    """The distinct `inv_freq` buffers of the model, copied: a LongRoPE model overwrites its own."""
    found: list[Tensor] = []
    for name, buffer in model.named_buffers():
        leaf = name.rpartition(".")[2]
        fits = leaf.endswith("inv_freq") and "original" not in leaf and buffer.ndim == 1
        if fits and not any(torch.equal(buffer, other) for other in found):
            found.append(buffer.detach().clone())
    return found


@dataclass
class _Fitter:
    """Finds the rotation of one layer after the other; layers that rotate alike get the same Rotary."""

    frequencies: list[Tensor]
    positions: Tensor
    slack: float
    candidates: dict[tuple[int, int], list[Rotary]] = field(default_factory=dict)

    def fit(self, q: Tensor, k: Tensor) -> Rotary | None:
        """The rotation that maps column 0 of q [heads, places, dim], and of k, to every column; None if there
        is none."""
        for sign in (1, -1):  # NanoChat turns the other way
            candidates = self._candidates(q.shape[-1], sign)
            best = min(candidates, key=lambda rotary: self._error(rotary, q))
            if max(self._error(best, q), self._error(best, k)) < self.slack:
                return best
        return None

    def _error(self, rotary: Rotary, x: Tensor) -> float:
        turned = rotary.rotate(x[:, :1].expand_as(x), self.positions)
        return _residual(x.transpose(0, 1), turned.transpose(0, 1))

    def _candidates(self, width: int, sign: int) -> list[Rotary]:
        if (width, sign) not in self.candidates:
            found = [Rotary.none()]
            for frequencies in self.frequencies:
                spare = width - 2 * frequencies.numel()
                starts = [] if spare < 0 else sorted({0, spare})
                found += [Rotary(style, start, sign * frequencies) for style in _STYLES for start in starts]
            self.candidates[width, sign] = found
        return self.candidates[width, sign]


def _residual(x: Tensor, reference: Tensor) -> float:
    return float(exactness.relative_error(x, reference).max())
