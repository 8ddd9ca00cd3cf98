"""The methods that vLLM's workers are given (its ``worker_extension_cls``). All are called on every rank at once.

They take and return bytes, and never raise: an error that one rank raised would leave the answers of the others in
vLLM's queues, to be taken for those to the next call. A rank that fails where the others may wait for it in a
collective says so and ends, for they would wait for ever; vLLM sees that, and ends the rest.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Concatenate, ParamSpec

import torch
from torch import Tensor

from kvorum.attention.triton.tables import Cuts
from kvorum.backends.vllm import attention as attention  # which registers it, before the model is built
from kvorum.backends.vllm.packing import pack_answer, unpack_order
from kvorum.backends.vllm.rank_cache import RankCache
from kvorum.backends.vllm.rank_end import end_with_parent, unname_shared_memory
from kvorum.backends.vllm.rank_model import RankModel
from kvorum.backends.vllm.rank_probe import RankProbe
from kvorum.backends.vllm.tensors import Header, pack, unpack
from kvorum.kv import CacheConfig, CacheShape
from kvorum.kv.cache import CachePart
from kvorum.models.shape import LayerShape
from kvorum.wording import first_line

if TYPE_CHECKING:
    from vllm.v1.worker.worker_base import WorkerBase as Base
else:

    class Base:
        """vLLM's worker, which this is put beside."""


end_with_parent()  # vLLM imports this in its worker processes before anything is loaded

P = ParamSpec("P")
Said = tuple[str, bytes | str, str]
"""``("ok", answer, "")``, or ``("error", name of the error, its sentence)``."""

ENDS_AFTER = 1.0
"""Seconds until a rank that failed among others ends: enough for its answer to be read where nobody waits."""


Method = Callable[Concatenate["ViewWorker", P], "bytes | None"]
Values = Callable[Concatenate["ViewWorker", P], "Said"]


def _answered(method: Method[P]) -> Values[P]:
    """``method`` with its errors as values."""
    return _as_values(method, together=False)


def _together(method: Method[P]) -> Values[P]:
    """As ``_answered``, for a method in which the ranks wait for each other."""
    return _as_values(method, together=True)


def _as_values(method: Method[P], together: bool) -> Values[P]:
    def call(self: ViewWorker, /, *args: P.args, **kwargs: P.kwargs) -> Said:
        try:
            with torch.inference_mode():
                return "ok", method(self, *args, **kwargs) or b"", ""
        except Exception as error:
            if together and not self.kvorum_model.alone:
                self._kvorum_end(error)
            return "error", type(error).__name__, _told(error)

    call.__name__, call.__doc__ = method.__name__, method.__doc__
    return call


def _told(error: Exception) -> str:
    """What an error says; where it says nothing, as many assertions of vLLM's do not, its statement and file."""
    frames = traceback.extract_tb(error.__traceback__)
    if str(error).strip() or not frames:
        return first_line(error)
    return f"{frames[-1].line} ({Path(frames[-1].filename).name}, line {frames[-1].lineno})"


class ViewWorker(Base):
    """What a worker is given. Each name begins with ``kvorum``: vLLM refuses one that its worker has already."""

    kvorum_model: RankModel
    kvorum_probe: RankProbe
    kvorum_shapes: list[LayerShape]
    kvorum_cache: RankCache
    kvorum_folder: Path

    @_answered
    def kvorum_look(self, folder: str, name: str, windows: list[int | None]) -> bytes:
        """Which layers are here, and where this rank stands. ``folder``: where it says why it ends. ``windows``: of
        every layer of the model, or nothing where vLLM's count."""
        if multiprocessing.parent_process() is not None:
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the engine's, which ends its workers
        unname_shared_memory()
        self.kvorum_folder = Path(folder)
        self.kvorum_model = model = RankModel(self, name, windows)
        return pack({"tp": model.tp.rank_in_group, "pp": model.pp.rank_in_group, "layers": model.layers}, {})

    @_together
    def kvorum_run_probe(self, far: int, attempt: int) -> None:
        """The first forward of a start."""
        self.kvorum_probe = RankProbe(self.kvorum_model, far, attempt)
        self.kvorum_probe.run()

    @_answered
    def kvorum_fit(self, data: bytes) -> bytes:
        """The shapes of this rank's layers."""
        kinds, frequencies = unpack(data)
        shapes = self.kvorum_probe.fit([frequencies[name] for name in sorted(frequencies)], kinds)
        self.kvorum_shapes = shapes
        told = [(s.q_heads, s.kv_heads, s.k_dim, s.v_dim, s.window, s.rotary.style, s.rotary.start) for s in shapes]
        return pack(told, {f"{at}": s.rotary.inv_freq.clone() for at, s in enumerate(shapes)})

    @_together
    def kvorum_compare(self) -> None:
        """The other forwards of a start."""
        self.kvorum_probe.compare()

    @_answered
    def kvorum_judge(self) -> bytes:
        """What they showed: whether there are latent rows, and the sizes of logits and hidden states."""
        found = pack({"latent": self.kvorum_probe.judge(), "size": self.kvorum_probe.size}, {})
        del self.kvorum_probe
        return found

    @_answered
    def kvorum_claim(self, whole: list[tuple[int, int, int]], heads: list[int], how: dict[str, Header]) -> bytes:
        """Make the cache, in place of one that was there to find its size. ``heads``: of each of this stage's layers,
        how many heads the ranks before hold together."""
        shapes, model = self.kvorum_shapes, self.kvorum_model
        if hasattr(self, "kvorum_cache"):
            del self.kvorum_cache
            if model.device.type == "cuda":  # what torch keeps of it would not do for a larger one
                torch.cuda.empty_cache()
        own = tuple(CacheShape(shape.kv_heads, shape.k_dim, shape.v_dim) for shape in shapes)
        before = heads[model.tp.rank_in_group]
        part = CachePart(
            tuple(CacheShape(*shape) for shape in whole),
            min(model.layers),
            own,
            tuple(before * s.kv_heads for s in own),
        )
        config = CacheConfig(own, how["tokens"], how["page_size"], getattr(torch, how["dtype"]))
        self.kvorum_cache = RankCache(model, shapes, part, config, how["attention"])
        cuts, name = self.kvorum_cache.cuts, self.kvorum_cache.attention.name
        gpu = model.device.type == "cuda"
        return pack({"attention": name, "threads": torch.get_num_threads(), "cuts": cuts, "gpu": gpu}, {})

    @_answered
    def kvorum_stay(self, cuts: list[int]) -> None:
        """Be ready for ticks in buffers that stay, with tables that are cut as on all ranks."""
        self.kvorum_cache.stay(Cuts(*cuts))

    @_answered
    def kvorum_room(self) -> bytes:
        """How many tokens this rank has room for, in place of its cache."""
        return pack(self.kvorum_cache.room(), {})

    @_together
    def kvorum_tick(self, data: bytes) -> bytes:
        """One tick; see ``packing``."""
        answer = self.kvorum_cache.tick(unpack_order(data, len(self.kvorum_model.layers)))
        if self.kvorum_model.device.type == "cuda":
            torch.cuda.synchronize(self.kvorum_model.device)  # what goes wrong there is this tick's, and so is its time
        return pack_answer(answer)

    @_answered
    def kvorum_logits(self, number: int) -> bytes:
        """A tick's logits, from the rank that has them."""
        found = self.kvorum_cache.logits(number)
        return b"" if found is None else pack(None, {"logits": found})

    @_answered
    def kvorum_lacks_tap(self) -> bytes:
        """The sentence that says why attention cannot be watched here, or nothing."""
        return str(self.kvorum_cache.attention.lacks_tap() or "").encode()

    @_answered
    def kvorum_carry(self, data: bytes) -> None:
        """Copy slots in all layers, keys turned."""
        _, given = unpack(data)
        self.kvorum_cache.carry(given["source"], given["shift"], given["target"])

    @_answered
    def kvorum_read(self, data: bytes) -> bytes:
        """Keys and values of this rank's layers and heads."""
        _, given = unpack(data)
        found: dict[str, Tensor] = {}
        for layer, (keys, values) in enumerate(self.kvorum_cache.read(given["slots"])):
            found |= {f"keys.{layer}": keys, f"values.{layer}": values}
        return pack(None, found)

    @_answered
    def kvorum_write(self, data: bytes) -> None:
        """Store this rank's part of the keys and values of all layers."""
        layers, given = unpack(data)
        pairs = [(given[f"keys.{layer}"], given[f"values.{layer}"]) for layer in range(layers)]
        self.kvorum_cache.write(given["slots"], pairs)

    @_answered
    def kvorum_imitate(self, data: bytes) -> None:
        """Fill slots with an imitation of others."""
        (kind, seed), given = unpack(data)
        self.kvorum_cache.imitate(kind, seed, given["source"], given["target"])

    def _kvorum_end(self, error: Exception) -> None:
        """Leave word, and end soon."""
        traceback.print_exc(file=sys.stderr)
        rank = self.parallel_config.rank
        why = f"Rank {rank} failed with {type(error).__name__}: {_told(error)}"
        with suppress(OSError):  # on another machine there is no such folder
            (self.kvorum_folder / f"rank-{rank}").write_text(why, encoding="utf-8")
        timer = threading.Timer(ENDS_AFTER, os._exit, (1,))
        timer.daemon = True
        timer.start()
