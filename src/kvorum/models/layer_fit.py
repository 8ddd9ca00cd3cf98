"""How layers rotate, fitted to what they were seen to do: used by the probe here, and by ranks of several processes.

A model has run once over a few tokens of which one is repeated at several positions, each attending to itself alone
(``Recorder``). What q and k of that token became tells the rotation of each layer (``fit_layers``); what cannot be a
rotation, or shows positions or neighbours in the hidden states, is refused in one sentence.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from kvorum.attention.kernel import Attends, Softmax
from kvorum.attention.rotary import Rotary, Style
from kvorum.errors import UnsupportedModel
from kvorum.models.exactness import relative_error
from kvorum.models.shape import LayerShape

_STYLES: tuple[Style, ...] = ("half", "interleaved")


class Recorder(Attends):
    """Attention in which each token attends to itself alone.

    `seen`: what each layer handed over at each call: q [q_heads, n, k_dim], k [kv_heads, n, k_dim],
    v [kv_heads, n, v_dim], and its window. They are copies: a compiled model uses the same memory again.
    """

    def __init__(self) -> None:
        self.seen: dict[int, list[tuple[Tensor, Tensor, Tensor, int | None]]] = {}

    def attend(self, layer: int, query: Tensor, keys: Tensor, values: Tensor, softmax: Softmax, /) -> Tensor:
        self.seen.setdefault(layer, []).append((query.clone(), keys.clone(), values.clone(), softmax.window))
        return values.repeat_interleave(query.shape[0] // values.shape[0], dim=0).transpose(0, 1).contiguous()


def probe_places(far: int) -> list[int]:
    """The positions of the repeated token, 0 first, none beyond `far`."""
    return [0, *(p for p in (1, 5, 13, 97, far) if 0 < p <= far)]


def probe_tokens(vocab: int, places: int, attempt: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Token ids with one token repeated at `places` indices, and these indices: its left neighbours
    differ."""
    ids = torch.full((places + 2,), (vocab // 3 + 7 * attempt) % vocab)
    ids[0] = (vocab // 2 + 3 * attempt) % vocab
    ids[3] = (vocab // 5 + 5 * attempt) % vocab
    same = torch.tensor([i for i in range(places + 2) if i not in (0, 3)])
    return ids.to(device), same.to(device)


def check_tokens(vocab: int, count: int, attempt: int, device: torch.device) -> Tensor:
    """Ids [count] of a short text for a comparison of two forwards."""
    return (torch.arange(count, device=device) * (vocab // 11 + 1) + 2 + attempt) % vocab


def refuse_mixed(name: str, hidden: Tensor, slack: float) -> None:
    """Raise UnsupportedModel unless the repeated token's last hidden states [places, hidden] are all the same."""
    if _residual(hidden, hidden[:1]) > 5 * slack:
        raise UnsupportedModel(
            f"{name} feeds positions or neighbouring tokens into its hidden states (learned positions, a "
            "recurrence, a convolution), so a stored token cannot be seen from another position."
        )


def refuse_missing_layers(name: str, recorder: Recorder, layers: Sequence[int]) -> None:
    """Raise UnsupportedModel unless each of `layers`, and no other, has attended once."""
    silent = sorted(set(layers) - recorder.seen.keys())
    if silent or len(recorder.seen) != len(layers):
        raise UnsupportedModel(
            f"{name} has layers without attention (such as {silent[0] if silent else len(layers)}): the state "
            "of recurrent and hybrid models cannot be put together from blocks."
        )
    if any(len(calls) > 1 for calls in recorder.seen.values()):
        raise UnsupportedModel(f"{name} attends more than once in a layer; kvorum stores one set of keys.")


def fit_layers(name: str, recorder: Recorder, fitter: Fitter, same: Tensor, kinds: Sequence[str]) -> list[LayerShape]:
    """The layers that attended, in their order; `kinds`: of every layer of the model, or nothing.

    Raises UnsupportedModel: one does not rotate, or has not the window of its kind.
    """
    layers = []
    for index, calls in sorted(recorder.seen.items()):
        q, k, v, window = calls[0]
        rotary = fitter.fit(q[:, same], k[:, same])
        if rotary is None:
            raise UnsupportedModel(
                f"Layer {index} of {name} changes its queries or keys with the position in a way that is not "
                "a fixed rotation."
            )
        if index < len(kinds) and (kinds[index] == "sliding_attention") != (window is not None):
            raise UnsupportedModel(f"Layer {index} of {name} is of type {kinds[index]} but says a window of {window}.")
        layers.append(LayerShape(rotary, len(q), len(k), q.shape[2], v.shape[2], window))
    return layers


def frequencies(model: nn.Module) -> list[Tensor]:
    """The distinct `inv_freq` buffers of the model, copied: a LongRoPE model overwrites its own."""
    found: list[Tensor] = []
    for name, buffer in model.named_buffers():
        leaf = name.rpartition(".")[2]
        fits = leaf.endswith("inv_freq") and "original" not in leaf and buffer.ndim == 1
        if fits and not any(torch.equal(buffer, other) for other in found):
            found.append(buffer.detach().clone())
    return found


@dataclass
class Fitter:
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
    return float(relative_error(x, reference).max())
