"""A fixed text as a model sees it, token by token: what the loss of the fast mode is computed from.

The text is a page of this project, kept as it is so that figures can be compared over time.
"""

from __future__ import annotations

from importlib.resources import files
from typing import TYPE_CHECKING

import torch

from kvorum.bench.sides.messages import Score
from kvorum.engine.text import encode
from kvorum.errors import BadRequest

if TYPE_CHECKING:
    from kvorum.api import Engine


def text() -> str:
    """The text that perplexity is measured on, as it ships with the package."""
    return files("kvorum.bench").joinpath("text.txt").read_text(encoding="utf-8")


def score(engine: Engine, text: str, most: int, at_once: int = 256) -> Score:
    """Read at most ``most`` tokens of ``text``, ``at_once`` in a forward. Raises BadRequest without a tokenizer."""
    from kvorum import Row, View

    if engine.tokenizer is None:
        raise BadRequest("A model without a tokenizer cannot be scored on a text.")
    ids = encode(engine.tokenizer, text)[:most]
    view = View(engine.block())
    nll: list[float] = []
    likeliest: list[int] = []
    for start in range(0, len(ids) - 1, at_once):
        part = ids[start : min(start + at_once, len(ids) - 1)]
        out = engine.forward([Row(view, ids=part)], every=True)
        assert out.every is not None
        logs = torch.log_softmax(out.every[0].double(), -1)
        truth = torch.tensor(ids[start + 1 : start + 1 + len(part)])
        nll += (-logs[torch.arange(len(part)), truth]).tolist()
        likeliest += logs.argmax(-1).tolist()
    return Score(nll, likeliest, str(engine.about()["weights"]))
