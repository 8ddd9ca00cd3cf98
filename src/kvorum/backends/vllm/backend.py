"""The backend whose model and cache are in vLLM's worker processes: plans go there, draws come back.

Logits stay on the worker that has them until somebody reads them. What is drawn is drawn there too, by functions of
seed, worker and step: how many processes there are changes no draw.
"""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor, nn

from kvorum.attention.triton.tables import Cuts
from kvorum.backends.backend import Done, Work
from kvorum.backends.vllm.joined import Place, Ranks, cache_shapes
from kvorum.backends.vllm.packing import Order, pack_order, unpack_answer
from kvorum.backends.vllm.sizes import largest_tick, smallest
from kvorum.backends.vllm.spread import Spread
from kvorum.backends.vllm.static_ticks import StaticTicks
from kvorum.backends.vllm.tensors import Header, pack, unpack
from kvorum.backends.vllm.workers import MAX_TOKENS, Argument, Workers
from kvorum.errors import BadRequest, KvorumError, UnsupportedModel, WorkersLost
from kvorum.jsontypes import Json
from kvorum.kv import CacheConfig
from kvorum.models.shape import LayerShape, ModelShape
from kvorum.sampling.reference import NO_MASK
from kvorum.sampling.sampling import Draw


@dataclass(frozen=True)
class Described:
    """What is known of a model without its weights.

    ``frequencies``: the candidates for its rotations. ``kinds``: of its layers, where its configuration says so.
    ``window``: of layers that have one, where it says so. ``windows``: of each layer, where it says which have one.
    ``layers``, ``kv_heads``: how many. ``far``: the farthest position to probe. ``fingerprint``: finds out which
    weights these are, when that is needed. ``held``: how they are.
    """

    name: str
    frequencies: Sequence[Tensor]
    kinds: Sequence[str]
    window: int | None
    windows: Sequence[int | None]
    layers: int
    kv_heads: int
    far: int
    max_positions: int | None
    max_tokens: int | None
    trained: int | None
    ends: frozenset[int]
    dtype: torch.dtype
    fingerprint: Callable[[], str]
    held: str


class VllmBackend:
    """A model on vLLM's workers. Made by ``load.load_spread``. ``kv_tokens``: None finds out how many have room.

    Raises:
        UnsupportedModel: the model cannot be exact over views; the message says why.
        BadRequest, MissingExtra: the attention asked for is not there, or there is no room for the cache.
        WorkersLost: a worker has died or hangs.
    """

    def __init__(
        self,
        workers: Workers,
        model: Described,
        spread: Spread,
        *,
        version: str,
        kv_tokens: int | None,
        kv_dtype: torch.dtype,
        page_size: int,
        attention: str,
        runner: str = "auto",
    ) -> None:
        self._workers, self._model, self._spread, self._version = workers, model, spread, version
        places = [
            Place.told(answer) for answer in self._call("look", str(workers.folder), model.name, list(model.windows))
        ]
        same = max(1, spread.tensor_parallel // model.kv_heads)
        self._ranks = Ranks(model.name, places, same, model.layers)
        self.shape, self._latent = self._learn()
        self.dtype = model.dtype
        self._answering = next(
            at for at, place in enumerate(places) if place.tp == 0 and place.pp == max(each.pp for each in places)
        )
        self._ticks = 0
        self._forgotten: deque[int] = deque()
        self.static: StaticTicks | None = None
        """The driver's part of ticks in buffers that stay; None: every tick is eager."""
        most = self.shape.max_tokens or MAX_TOKENS
        layers = cache_shapes(self.shape.layers)
        self.cache = CacheConfig(layers, most if kv_tokens is None else kv_tokens, page_size, kv_dtype)
        kernels = self._claim(attention)
        if kv_tokens is None:
            self.forward(largest_tick(self.cache, self.shape.vocab))
            rooms = [unpack(answer)[0] for answer in self._call("room")]
            self.cache = replace(self.cache, tokens=smallest(rooms, most, model.name, page_size))
            kernels = self._claim(attention)
        self.static = self._stays(runner, kernels)
        first = kernels[0]
        self._kernels = f"{first['attention']} {first['threads']}{' graphs' * (self.static is not None)}"
        self._tap = self._call("lacks_tap")[0].decode()

    def _call(self, method: str, *args: Argument) -> list[bytes]:
        return self._workers.call(f"kvorum_{method}", *args)

    def _claim(self, attention: str) -> list[Header]:
        """Make ``cache`` on the ranks; what they say of their attention."""
        config = self.cache
        dtype = str(config.dtype).removeprefix("torch.")
        how: dict[str, Json] = {"tokens": config.tokens, "page_size": config.page_size}
        how |= {"dtype": dtype, "attention": attention}
        claimed = self._call("claim", list(map(tuple, config.layers)), self._ranks.heads_before, how)
        return [unpack(answer)[0] for answer in claimed]

    def _stays(self, runner: str, kernels: Sequence[Header]) -> StaticTicks | None:
        """Ticks on static buffers where they are asked for, or are worth it: on GPUs."""
        cuts = [Cuts(*each["cuts"]) for each in kernels if each["cuts"] is not None]
        if runner == "graphs" and len(cuts) < len(kernels):
            name = kernels[0]["attention"]
            raise BadRequest(f"The attention {name} has no static buffers; take attention='triton' or runner='auto'.")
        if runner == "generic" or len(cuts) < len(kernels) or (runner == "auto" and not kernels[0]["gpu"]):
            return None
        shared = Cuts.for_all(cuts)
        self._call("stay", list(shared))
        return StaticTicks(shared)

    def _learn(self) -> tuple[ModelShape, bool]:
        """Shape and rotations, probed and checked on the workers; whether there are latent rows."""
        model, refusal = self._model, UnsupportedModel("unreachable")
        asked = pack(list(model.kinds), {f"{at:04}": each for at, each in enumerate(model.frequencies)})
        for attempt in range(3):  # with other tokens: where two experts score alike, rounding may swap them
            try:
                self._call("run_probe", model.far, attempt)
                layers = self._ranks.shapes(self._call("fit", asked))
                _refuse_other_windows(model, layers)
                self._call("compare")
                told = [unpack(answer)[0] for answer in self._call("judge")]
                vocab, hidden = max(each["size"] for each in told)
                most = min(model.max_tokens or MAX_TOKENS, MAX_TOKENS)
                shape = ModelShape(layers, vocab, hidden, model.max_positions, most, model.trained)
                return shape, all(each["latent"] for each in told)
            except UnsupportedModel as error:
                refusal = error
            except WorkersLost:
                raise
            except KvorumError as error:  # of one rank alone, which has failed in vLLM's files and lives
                raise UnsupportedModel(f"vLLM does not compute {model.name}: {error}") from error
        raise refusal

    @cached_property
    def fingerprint(self) -> str:
        """Which weights make these keys and values: the local backend's, where both compute the same."""
        return self._model.fingerprint()

    @property
    def rounding(self) -> str:
        """vLLM, how its model is cut, and the kernels."""
        spread = self._spread
        return f"vllm {self._version} {spread.tensor_parallel}x{spread.pipeline_parallel} {self._kernels}"

    @property
    def ends(self) -> frozenset[int]:
        """The ids that end a text by the generation configuration."""
        return self._model.ends

    def forward(self, work: Work) -> Done:
        """Compute a tick. Masks are waited for before, for they go to the workers with it."""
        draws = work.draws()
        self._ticks += 1
        forget = [self._forgotten.popleft() for _ in range(len(self._forgotten))]
        static = self.static
        order = Order(self._ticks, forget, work)
        if static is not None:
            order = order._replace(static=static.turn(work), drop=static.drop())
        answers = [unpack_answer(answer) for answer in self._call("tick", pack_order(order, draws))]
        if static is not None:
            static.told([answer.refused for answer in answers], any(answer.moved for answer in answers))
        told = answers[self._answering]
        picks = [
            BadRequest(NO_MASK) if _lacks_mask(draw) else pick for draw, pick in zip(draws, told.picks, strict=True)
        ]
        shares = None if work.tap is None else self._ranks.shares([answer.shares for answer in answers])
        return Done(self._logits(self._ticks), told.hidden, picks, shares)

    def _logits(self, number: int) -> Callable[[], Tensor]:
        """Fetches a tick's logits; the worker keeps them for as long as this lives."""
        fetch = _Logits(self._workers, number, self._answering)
        weakref.finalize(fetch, self._forgotten.append, number).atexit = False
        return fetch.fetch

    def carry(self, source: Tensor, shift: Tensor, target: Tensor) -> None:
        """Copy slots, keys turned by ``shift``."""
        self._call("carry", pack(None, {"source": source, "shift": shift, "target": target}))

    def read(self, slots: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Keys and values of every layer, heads of all ranks in order."""
        return self._ranks.read(self._call("read", pack(None, {"slots": slots})))

    def write(self, slots: Tensor, layers: Sequence[tuple[Tensor, Tensor]]) -> None:
        """Store keys and values of every layer; each rank takes its own."""
        whole = {"slots": slots}
        for layer, (keys, values) in enumerate(layers):
            whole |= {f"keys.{layer}": keys, f"values.{layer}": values}
        self._call("write", pack(len(layers), whole))

    def imitate(self, kind: str, seed: int, source: Tensor, target: Tensor) -> None:
        """Fill ``target`` with an imitation of ``source``."""
        self._call("imitate", pack([kind, seed], {"source": source, "target": target}))

    def lacks_tap(self) -> KvorumError | None:
        """What the ranks' attention kernel says."""
        return BadRequest(self._tap) if self._tap else None

    def lacks_latent(self) -> KvorumError | None:
        """Where a model takes more of an id than its embedding, there are none."""
        if self._latent:
            return None
        return BadRequest(f"{self._model.name} on vLLM takes more of a token than its embedding, so no latent rows.")

    def lacks_speculation(self) -> KvorumError | None:
        """A row's numbers depend on its company there."""
        return BadRequest(f"{self._model.name} on vLLM rounds otherwise in other company; leave `speculate` out.")

    def trouble(self) -> str | None:
        """Which of its processes has died or stands still."""
        return self._workers.trouble()

    def module(self) -> nn.Module:
        """Always raises UnsupportedModel: the model is in other processes."""
        raise UnsupportedModel(
            f"The weights of {self._model.name} are in vLLM's workers and cannot be read here; take backend='local'."
        )

    def about(self) -> dict[str, Json]:
        """vLLM's version, how the model is cut, and how its weights are held."""
        return {
            "backend": f"vllm {self._version}",
            "weights": self._model.held,
            "tensor_parallel": self._spread.tensor_parallel,
            "pipeline_parallel": self._spread.pipeline_parallel,
        }

    def close(self) -> None:
        """End the workers."""
        self._workers.close()


class _Logits:
    """The logits of one tick, fetched once."""

    def __init__(self, workers: Workers, number: int, rank: int) -> None:
        self._workers, self._number, self._rank = workers, number, rank
        self._found: Tensor | None = None

    def fetch(self) -> Tensor:
        if self._found is None:
            answers = self._workers.call("kvorum_logits", self._number)
            self._found = unpack(answers[self._rank])[1]["logits"]
        return self._found


def _refuse_other_windows(model: Described, layers: Sequence[LayerShape]) -> None:
    """Windows are the attention's own business here, so vLLM's must be those of the configuration."""
    for at, layer in enumerate(layers):
        if model.window and layer.window and layer.window != model.window:
            raise UnsupportedModel(
                f"Layer {at} of {model.name} has a window of {layer.window} in vLLM and of {model.window} in its "
                "configuration; take backend='local'."
            )


def _lacks_mask(draw: Draw | None) -> bool:
    return draw is not None and draw.sampling.grammar is not None and draw.allowed is None
