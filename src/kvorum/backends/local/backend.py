"""The backend that runs a transformers model in this process, on a CPU or one GPU, and what it can have there.

Also which device a model is loaded to, whether its weights are packed there, and what its cache holds.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
import torch
from torch import Tensor, nn

from kvorum.attention.kernel import AttentionSetup
from kvorum.attention.native import NativeAttention
from kvorum.attention.registry import choose as choose_attention
from kvorum.backends.backend import Done, Work
from kvorum.backends.local.missing_operators import named_where_missing
from kvorum.errors import BadRequest, KvorumError
from kvorum.jsontypes import Json
from kvorum.kv import CacheConfig, CacheShape, KVCache
from kvorum.kv.derived_blocks import imitate
from kvorum.models.fingerprint import fingerprint
from kvorum.models.packed.bare_model import BareModel
from kvorum.models.packed.products import native_path
from kvorum.models.runners.lean import LeanRunner
from kvorum.models.runners.registry import choose as choose_runner
from kvorum.models.runners.runner import RunnerSetup
from kvorum.models.shape import ModelShape
from kvorum.models.tokenizer import end_ids
from kvorum.sampling.sampler import draw_all


class LocalBackend:
    """A model, its cache, an attention kernel and a model runner. See ``kvorum.Engine`` for the arguments.

    Raises:
        UnsupportedModel: the model cannot be exact over views; the message says why.
        BadRequest, MissingExtra: the attention or runner asked for is not there, or does not cover the model.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        kv_tokens: int = 65536,
        kv_dtype: str | torch.dtype = "auto",
        page_size: int = 16,
        weights: str = "exact",
        attention: str = "auto",
        runner: str = "auto",
    ) -> None:
        weight = next(model.parameters())
        self.dtype = weight.dtype if weight.dtype.is_floating_point else torch.float32
        self.device = weight.device
        with named_where_missing():
            self.shape = _shape(model)
        self.weights = weights
        layers = tuple(CacheShape(layer.kv_heads, layer.k_dim, layer.v_dim) for layer in self.shape.layers)
        stored = cache_dtype(kv_dtype, self.dtype, self.device)
        self.cache = CacheConfig(layers, kv_tokens, page_size, stored)
        self.kv = KVCache(self.cache, self.device)
        self.rotaries = [layer.rotary for layer in self.shape.layers]
        q_heads = [layer.q_heads for layer in self.shape.layers]
        self.attention = choose_attention(attention, AttentionSetup(self.kv, self.rotaries, q_heads, self.dtype))
        self.runner = choose_runner(runner, RunnerSetup(model, self.shape, self.attention))
        self._model = model

    @cached_property
    def fingerprint(self) -> str:
        """Which weights make these keys and values."""
        return self._model.fingerprint if isinstance(self._model, BareModel) else fingerprint(self._model)

    @property
    def rounding(self) -> str:
        """The kernels; the threads too, but for packed weights, whose products do not depend on their number."""
        threads = 0 if self.weights == "packed" else torch.get_num_threads()
        return f"{self.device.type} {self.attention.name} {self.runner.name} {native_path()} {threads}"

    @property
    def ends(self) -> frozenset[int]:
        """The ids that end a text by the generation configuration."""
        return end_ids(self._model)

    def lost(self) -> str | None:
        """One sentence on what a model of this kind costs over packed weights; None where it costs nothing."""
        if self.weights != "packed" or self.runner.name != "generic":
            return None
        kind = getattr(self._model.config, "model_type", type(self._model).__name__)
        experts = any(".experts." in name for name, _ in self._model.named_parameters())
        more = ", and experts stay in float32, four bytes a weight" * experts
        return f"{kind} models run their own modules over packed weights, slower than the compiled decoder{more}."

    def forward(self, work: Work) -> Done:
        """Compute a tick and draw where the logits are."""
        tap = None if work.tap is None else work.tap.to(self.device)
        with named_where_missing():
            inputs, wanted = self._inputs(work), self._here(work.wanted)
            out = self.runner.forward(work.plan, inputs, wanted, hidden=work.hidden, tap=tap)
        picks = draw_all(out.logits if work.lasts is None else out.logits[work.lasts], work.draws())
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)  # the seconds are those of the work, not of its launch
        return Done(lambda: out.logits, out.hidden, picks, None if tap is None else tap.shares)

    def _here(self, numbers: Tensor) -> Tensor:
        return numbers if self.device.type == "cpu" else numbers.to(self.device)

    def _inputs(self, work: Work) -> Tensor:
        ids = self._here(torch.from_numpy(np.array(work.ids)))
        if not work.embeds:
            return ids
        with torch.no_grad():
            embeds: Tensor = self._model.get_input_embeddings()(ids.clamp_min(0)).clone()  # type: ignore[operator]
            for start, rows in work.embeds:
                embeds[start : start + len(rows)] = rows.to(self.device, embeds.dtype)
        return embeds

    def carry(self, source: Tensor, shift: Tensor, target: Tensor) -> None:
        """Copy slots, keys turned by ``shift``."""
        with torch.no_grad(), named_where_missing():
            self.kv.carry(source, shift, target, self.rotaries)

    def read(self, slots: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Keys and values of every layer."""
        slots = self._here(slots)
        return [
            (keys[:, slots].cpu().contiguous(), values[:, slots].cpu().contiguous())
            for keys, values in zip(self.kv.keys, self.kv.values, strict=True)
        ]

    def write(self, slots: Tensor, layers: Sequence[tuple[Tensor, Tensor]]) -> None:
        """Store keys and values of every layer."""
        for layer, (keys, values) in enumerate(layers):
            self.kv.put(layer, self._here(slots), self._here(keys), self._here(values))

    def imitate(self, kind: str, seed: int, source: Tensor, target: Tensor) -> None:
        """Fill ``target`` with an imitation of ``source``."""
        with named_where_missing():
            imitate(self.kv, self.rotaries, kind, seed, source, target)

    def lacks_tap(self) -> KvorumError | None:
        """What the attention kernel says."""
        return self.attention.lacks_tap()

    def lacks_latent(self) -> KvorumError | None:
        """Every local runner takes embeddings."""
        return None

    def lacks_speculation(self) -> KvorumError | None:
        """None with packed weights on the compiled kernels alone, which take every row by itself."""
        exact = self.weights == "packed" and native_path() is not None
        if exact and isinstance(self.attention, NativeAttention) and isinstance(self.runner, LeanRunner):
            return None
        return BadRequest(
            "Speculation needs packed weights of a Llama-like model on a CPU and the distribution kvorum-native: "
            "elsewhere the numbers of a row are rounded otherwise beside others, and tokens could change."
        )

    def trouble(self) -> str | None:
        """None: it is this process."""
        return None

    def module(self) -> nn.Module:
        """The model that it was made of; of a bare one, the whole."""
        return self._model.whole if isinstance(self._model, BareModel) else self._model

    def about(self) -> dict[str, Json]:
        """How the weights are held."""
        return {"weights": self.weights}

    def close(self) -> None:
        """There is nothing to let go of but memory, which goes with the last reference."""


def _shape(model: nn.Module) -> ModelShape:
    """What the probe says, or said when the model was loaded for the first time."""
    if isinstance(model, BareModel):
        return model.shape
    from kvorum.models.probe import probe  # which imports transformers, as a model to probe has done already

    return probe(model)


def packs(quantize: str | None, device: torch.device, dtype: str | torch.dtype) -> bool:
    """Whether to pack the weights; "auto" does where that is both possible and faster."""
    if quantize not in (None, "auto", "packed"):
        raise BadRequest(f"There is no quantize {quantize!r}; take auto, packed or None.")
    possible = device.type == "cpu" and str(dtype).removeprefix("torch.") in ("auto", "float32")
    if quantize == "packed" and not possible:
        raise BadRequest("Packed weights need a CPU and dtype auto or float32; take quantize=None.")
    return possible and quantize is not None and (quantize == "packed" or native_path() is not None)


def cache_dtype(asked: str | torch.dtype, model: torch.dtype, device: torch.device) -> torch.dtype:
    """What keys and values are stored in; "auto": what the model computes in.

    Raises:
        BadRequest: no such dtype, or one that the kernels of the device do not take: a GPU's take the model's, and
            int8 where it is one of NVIDIA's or AMD's.
    """
    if asked == "auto":
        return model
    name = str(asked).removeprefix("torch.")
    if name not in ("float16", "bfloat16", "float32", "float64", "int8"):
        raise BadRequest(f"There is no kv_dtype {name!r}; take auto, float32, float16, bfloat16, float64 or int8.")
    found: torch.dtype = getattr(torch, name)
    if name == "int8" and device.type not in ("cpu", "cuda"):
        raise BadRequest(f"kv_dtype=int8 needs a CPU or a CUDA GPU, and the model is on {device.type}; leave it out.")
    if name != "int8" and found != model and device.type != "cpu":
        raise BadRequest(f"kv_dtype={name} needs a CPU; on a GPU load the model with dtype={name}.")
    return found


def find_device(name: str) -> torch.device:
    """ "auto" is the GPU if there is one. Raises BadRequest for a device that torch does not know or have."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise BadRequest(f"There is no device {name!r} here; use auto, cpu, cuda or mps.") from error
    return device
