"""What a rank finds out of its layers when an engine starts: how they rotate, and that kvorum turns as vLLM does.

As ``models.probe`` does for a model in this process; the fit and its sentences are the same. Forwards, in which all
ranks have a part, are steps of their own, apart from what one rank may refuse: a rank that left a forward because of
its own layers would let the others wait.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from kvorum.attention.rotary import Rotary
from kvorum.backends.vllm.rank_model import RankModel
from kvorum.errors import UnsupportedModel
from kvorum.models import layer_fit
from kvorum.models.exactness import Causal, relative_error, tolerance
from kvorum.models.shape import LayerShape

_WORDS = 8


class RankProbe:
    """The steps, in their order: ``run``, ``fit``, ``compare``, ``judge``. ``attempt``: with which tokens."""

    def __init__(self, model: RankModel, far: int, attempt: int) -> None:
        self._model, self._attempt = model, attempt
        self._slack = tolerance(model.dtype)
        places = layer_fit.probe_places(far)
        self._ids, self._same = layer_fit.probe_tokens(model.vocab, len(places), attempt, model.device)
        self._positions = torch.zeros_like(self._ids)
        self._positions[self._same] = torch.tensor(places, device=model.device)
        self._words = layer_fit.check_tokens(model.vocab, min(_WORDS, far + 1), attempt, model.device)
        self._recorder = layer_fit.Recorder()
        self._hidden: Tensor | None = None
        self._seen: list[Tensor] = []
        self.shapes: list[LayerShape] = []
        self.size = (0, 0)
        """Of logits and of hidden states; on the last stage."""

    def run(self) -> None:
        """Together: each token attends to itself alone."""
        self._hidden = self._model.forward(self._recorder, self._ids, positions=self._positions)

    def fit(self, frequencies: Sequence[Tensor], kinds: Sequence[str]) -> list[LayerShape]:
        """This rank's layers. ``kinds``: of every layer of the model, as its configuration has them, or nothing.

        Raises:
            UnsupportedModel: it cannot be exact over views.
        """
        name = self._model.name
        layer_fit.refuse_missing_layers(name, self._recorder, self._model.layers)
        if self._hidden is not None:
            layer_fit.refuse_mixed(name, self._hidden[self._same], self._slack)
        here = [each.to(self._model.device) for each in frequencies]
        fitter = layer_fit.Fitter(here, self._positions[self._same], self._slack)
        self.shapes = layer_fit.fit_layers(name, self._recorder, fitter, self._same, kinds)
        return self.shapes

    def compare(self) -> None:
        """Together: a short text turned by vLLM, then by kvorum, then by kvorum from embeddings."""
        model, ids = self._model, self._words
        at = torch.arange(len(ids), device=model.device)
        first = min(model.layers)
        turns = [Rotary.none()] * first + [shape.rotary for shape in self.shapes]
        own = model.forward(Causal([Rotary.none()] * len(turns), at), ids, positions=at)
        ours = model.forward(Causal(turns, at), ids)
        embeds = model.embed(ids) if model.pp.is_first_rank else None
        latent = model.forward(Causal(turns, at), ids, embeds=embeds)
        if own is None or ours is None or latent is None:
            return
        logits = model.logits(ours)
        self._seen = [own, ours, latent]
        if model.answers:
            self.size = (logits.shape[-1], ours.shape[-1])

    def judge(self) -> bool:
        """Whether rows of embeddings can be computed too.

        Raises:
            UnsupportedModel: kvorum does not turn as the model does.
        """
        if not self._seen:
            return True
        own, ours, latent = self._seen
        error = float(relative_error(ours, own).median())
        if not error < 10 * self._slack:
            raise UnsupportedModel(
                f"{self._model.name} does more in its attention than kvorum can see: a short forward through "
                f"kvorum differs from its own by {error:.1e} of the hidden states."
            )
        return float(relative_error(latent, ours).median()) < 10 * self._slack
