"""Draws as JSON and tensors: what is asked of each row's logits, for the process where the logits are.

Samplings are few and come again in every tick, so each is turned into JSON, and back, once. Masks go as they are, one
bit an id. A grammar itself stays where its text is followed: a row that is held to one and has no mask is not drawn.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from kvorum.backends.vllm.tensors import Header
from kvorum.sampling.sampling import Draw, History, Sampling


def pack_draws(draws: Sequence[Draw | None], tensors: dict[str, Tensor]) -> Header:
    """What of the draws is JSON; their masks and histories are added to ``tensors``."""
    samplings: dict[str, int] = {}
    told: list[Header] = []
    masks: list[Tensor] = []
    looks: list[Tensor] = []
    for draw in draws:
        if draw is None or (draw.sampling.grammar is not None and draw.allowed is None):
            told.append(None)
            continue
        how = samplings.setdefault(_text(draw.sampling), len(samplings))
        mask = history = None
        if draw.allowed is not None:
            mask = len(draw.allowed)
            masks.append(torch.from_numpy(np.array(draw.allowed, dtype=np.uint8)))
        if draw.history is not None:
            seen, written = draw.history.seen, draw.history.written
            breakers = [[first, list(map(list, rests))] for first, rests in draw.history.breakers.items()]
            history = [len(seen), len(written), breakers]
            looks += [torch.tensor(seen, dtype=torch.long), torch.tensor(written, dtype=torch.long)]
        told.append([how, draw.seed, draw.stream, draw.step, draw.telling, mask, history])
    if masks:
        tensors["masks"] = torch.cat(masks)
    if looks:
        tensors["looks"] = torch.cat(looks)
    return [list(samplings), told]


def unpack_draws(header: Header, tensors: dict[str, Tensor]) -> list[Draw | None]:
    """The draws, those that cannot be made left out."""
    texts, told = header
    found: list[Draw | None] = []
    masked = looked = 0
    for each in told:
        if each is None:
            found.append(None)
            continue
        how, seed, stream, step, telling, mask, history = each
        allowed = back = None
        if mask is not None:
            allowed = tensors["masks"][masked : masked + mask].numpy()
            masked += mask
        if history is not None:
            seen, written, breakers = history
            ids = tensors["looks"][looked : looked + seen + written].tolist()
            looked += seen + written
            stops = {first: tuple(map(tuple, rests)) for first, rests in breakers}
            back = History(ids[:seen], ids[seen:], stops)
        found.append(Draw(_sampling(texts[how]), seed, stream, step, telling, allowed, back))
    return found


@lru_cache(256)
def _text(sampling: Sampling) -> str:
    return json.dumps(sampling.as_data())


@lru_cache(256)
def _sampling(text: str) -> Sampling:
    return Sampling(**json.loads(text))
