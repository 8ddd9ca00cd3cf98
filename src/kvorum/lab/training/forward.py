"""The differentiable forward of whole team traces: all ticks of a batch of teams in one pass, with gradients.

It computes what ``Engine.forward`` computes tick by tick. Every layer's keys and values depend on earlier layers alone,
so all tokens of a trace can go through a layer together, if each query sees what it saw in its tick, at the distance it
saw it. For each frame of keys there is one rotated copy of the queries; one softmax goes over all frames.

The model is called through the seam that the engine uses, so every family that the engine takes can be trained.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from kvorum.attention.kernel import Softmax
from kvorum.attention.rotary import Rotary
from kvorum.errors import BadRequest
from kvorum.lab.training.team_trace import TeamTrace
from kvorum.models import seam
from kvorum.models.probe import probe


class TeamAttention:
    """What a model's layers call in place of attention (``kernel.Attends``), for a batch of teams of one trace.

    Args:
        rotaries: each layer's rotation. trace: what sees what, the same for all teams.
    """

    def __init__(self, rotaries: Sequence[Rotary], trace: TeamTrace) -> None:
        self.rotaries, self.tokens = rotaries, len(trace)
        frames = trace.frames
        self._order = torch.cat([torch.from_numpy(frame.keys) for frame in frames])
        self._offset = torch.cat([torch.from_numpy(frame.offset) for frame in frames])
        self._turns = [torch.from_numpy(frame.turn) for frame in frames]
        self._sizes = [len(frame.keys) for frame in frames]
        self._distance = torch.from_numpy(trace.distance)[:, self._order]

    def attend(self, layer: int, query: Tensor, keys: Tensor, values: Tensor, softmax: Softmax, /) -> Tensor:
        """As ``Attends.attend``; ``tokens`` are those of all teams, team behind team."""
        rotary, heads = self.rotaries[layer], query.shape[0]
        teams = query.shape[1] // self.tokens
        q = query.reshape(heads * teams, self.tokens, -1)
        k, v = (x.reshape(len(x) * teams, self.tokens, -1)[:, self._order] for x in (keys, values))
        group = len(q) // len(k)
        k = rotary.rotate(k, self._offset)
        k, v = (x.unflatten(0, (-1, teams)).repeat_interleave(group, 0).flatten(0, 1) for x in (k, v))
        parts = zip(k.split(self._sizes, 1), self._turns, strict=True)
        scores = torch.cat([rotary.rotate(q, turn) @ part.transpose(1, 2) for part, turn in parts], -1) * softmax.scale
        if softmax.softcap is not None:
            scores = softmax.softcap * torch.tanh(scores / softmax.softcap)
        hidden = self._distance < 0
        if softmax.window is not None:
            hidden = hidden | (self._distance >= softmax.window)
        scores = scores.masked_fill(hidden, float("-inf"))
        if softmax.sinks is not None:  # takes part once and carries nothing
            sink = softmax.sinks.to(scores).repeat_interleave(teams)[:, None, None].expand(-1, self.tokens, 1)
            scores = torch.cat([scores, sink], -1)
        weights = scores.softmax(-1)[..., : self.tokens]
        mixed: Tensor = (weights @ v).unflatten(0, (heads, teams))
        return mixed.permute(1, 2, 0, 3).flatten(0, 1)


class SharedBeginning:
    """The same for teams that begin alike, as with one prompt: what they have in common goes through each layer once.

    Args:
        attention: of one team's trace. packed: of all tokens of all teams, team behind team, those that go through the
            layers. spread: where each of all tokens is among these.
    """

    def __init__(self, attention: TeamAttention, packed: Tensor, spread: Tensor) -> None:
        self._attention, self._packed, self._spread = attention, packed, spread

    def attend(self, layer: int, query: Tensor, keys: Tensor, values: Tensor, softmax: Softmax, /) -> Tensor:
        """As ``Attends.attend``."""
        q, k, v = (x[:, self._spread] for x in (query, keys, values))
        return self._attention.attend(layer, q, k, v, softmax)[self._packed]


class TeamForward:
    """A model over the traces of one arrangement: ``TeamForward(model, trace)(ids, wanted)``.

    Args:
        model: a causal language model that the engine takes. trace: of one team; its ids do not matter.
        rotaries: the model's, where they are known; else they are probed.
        differ: the numbers of the tokens in which teams of a batch may differ; what sees none of them is computed once
            for all. None: each token of each team is computed.

    Raises:
        UnsupportedModel: the model cannot be exact over views.
    """

    def __init__(
        self,
        model: nn.Module,
        trace: TeamTrace,
        rotaries: Sequence[Rotary] | None = None,
        differ: Tensor | None = None,
    ) -> None:
        self.model, self.trace = model, trace
        self.rotaries = [layer.rotary for layer in probe(model).layers] if rotaries is None else rotaries
        self.attention = TeamAttention(self.rotaries, trace)
        self.own = torch.ones(len(trace), dtype=torch.bool) if differ is None else reached(trace, differ)
        """Which tokens are computed for each team."""

    def __call__(self, ids: Tensor, wanted: Tensor) -> Tensor:
        """Logits ``[teams, wanted, vocab]`` after the tokens ``wanted`` (their numbers in the trace) of each team.

        Args:
            ids: ``[teams, tokens]``, in the order of the trace.

        Raises:
            BadRequest: they are not as many as the trace has, or differ where teams must not.
        """
        if ids.ndim != 2 or ids.shape[1] != len(self.trace):
            raise BadRequest(f"ids must be [teams, {len(self.trace)}] as in the trace, not {list(ids.shape)}.")
        if (ids != ids[0])[:, ~self.own].any():
            raise BadRequest("The teams differ in tokens that they were said to have in common.")
        every = torch.arange(ids.numel()).view_as(ids)
        packed = torch.cat([every[0, ~self.own], every[:, self.own].flatten()])
        spread = torch.empty_like(every)
        spread[:, ~self.own] = torch.arange(int((~self.own).sum()))
        spread[:, self.own] = torch.arange(int((~self.own).sum()), len(packed)).view(len(ids), -1)
        out = seam.call(
            self.model,
            ids.flatten()[packed],
            attention=self.attention if self.own.all() else SharedBeginning(self.attention, packed, spread.flatten()),
            logits_index=spread[:, wanted].flatten(),
            gradients=torch.is_grad_enabled(),
        )
        return out.logits.view(len(ids), len(wanted), -1)


def reached(trace: TeamTrace, places: Tensor) -> Tensor:
    """Which tokens ``places`` have a part in: they themselves, what sees one of them, what sees that, and so on."""
    sees = torch.from_numpy(trace.distance) >= 0
    found = torch.zeros(len(trace), dtype=torch.bool)
    found[places] = True
    while (more := found | (sees & found).any(1)).sum() > found.sum():
        found = more
    return found
