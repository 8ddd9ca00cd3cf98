"""A rank's part of a model, as vLLM built it: its layers of attention, and one forward through them.

vLLM is given position 0 for every token, so its rotation turns nothing. A forward is told what attends by vLLM's
attention metadata, which may be anything: here it is whatever has ``attend``, for every layer the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeAlias

import torch
from torch import Tensor, nn
from vllm.distributed.parallel_state import get_pp_group, get_tp_group
from vllm.forward_context import set_forward_context
from vllm.model_executor.layers.attention import Attention, ChunkedLocalAttention
from vllm.model_executor.layers.attention_layer_base import AttentionLayerBase
from vllm.model_executor.layers.fused_moe.router.cpu_router import CPURouter
from vllm.model_executor.models.utils import extract_layer_index
from vllm.sequence import IntermediateTensors

from kvorum.attention.kernel import Attends, Softmax
from kvorum.backends.vllm.attention import ViewAttention
from kvorum.errors import UnsupportedModel

if TYPE_CHECKING:
    from vllm.v1.worker.worker_base import WorkerBase


States: TypeAlias = "Tensor | IntermediateTensors"
"""What a stage ends with: hidden states after the final norm, or what the next stage begins with."""


def one_group(model: nn.Module) -> None:
    """Let vLLM's router for CPUs choose experts by sigmoid scores: it knows how to among groups alone, and all are one.

    For MiniMax M2, whose file does not ask for groups; on GPUs another router computes it.
    """
    for module in model.modules():
        router = getattr(module, "router", None)
        if not isinstance(router, CPURouter) or router.use_grouped_topk or router.custom_routing_function is not None:
            continue
        if router.scoring_func == "sigmoid":
            router.use_grouped_topk, router.num_expert_group, router.topk_group = True, 1, 1


class FromFirst(Attends):
    """A tick for layers that are counted from the first of the model's; the cache here begins with its own first."""

    def __init__(self, tick: Attends, first: int) -> None:
        self._tick, self._first = tick, first

    def attend(self, layer: int, query: Tensor, keys: Tensor, values: Tensor, softmax: Softmax, /) -> Tensor:
        """As ``Attends.attend``."""
        return self._tick.attend(layer - self._first, query, keys, values, softmax)


class _EveryLayer(dict[str, Attends]):
    """Attention metadata by the name of a layer: the same for all."""

    def __init__(self, attends: Attends) -> None:
        super().__init__()
        self._attends = attends

    def __missing__(self, name: str) -> Attends:
        return self._attends


class RankModel:
    """The model of one rank. ``layers``: which of the model's layers are here, in order. ``windows``: of every layer of
    the model, in place of what vLLM gives them, or nothing.

    Raises:
        UnsupportedModel: a layer is none that views can stand in for.
    """

    def __init__(self, worker: WorkerBase, name: str, windows: Sequence[int | None] = ()) -> None:
        self.name = name
        self.config, self.device = worker.vllm_config, torch.device(worker.device)
        before = getattr(worker, "init_snapshot", None)
        self.free_before = 0 if before is None else int(before.free_memory)
        """Bytes that the rank's GPU had free before the model came; 0 on a CPU."""
        self.model = worker.get_model()
        self.tp, self.pp = get_tp_group(), get_pp_group()
        self.dtype: torch.dtype = self.config.model_config.dtype
        self.vocab = int(self.config.model_config.get_vocab_size())
        found = self.config.compilation_config.static_forward_context
        layers = {key: layer for key, layer in found.items() if isinstance(layer, AttentionLayerBase)}
        impls = {key: self._take(key, layer) for key, layer in layers.items()}
        self.layers = sorted(impl.layer for impl in impls.values())
        for impl in impls.values():
            if windows:
                impl.softmax = impl.softmax._replace(window=windows[impl.layer])
            if impl.source is not None:
                impl.shared = impls[impl.source]
                impl.shared.keeps = True
        if self.device.type == "cpu":
            one_group(self.model)

    def _take(self, key: str, layer: AttentionLayerBase) -> ViewAttention:
        """Tell a layer which one it is."""
        number = int(extract_layer_index(key))
        if type(layer) not in (Attention, ChunkedLocalAttention) or not isinstance(layer.impl, ViewAttention):
            raise UnsupportedModel(
                f"Layer {number} of {self.name} is vLLM's {type(layer).__name__}, whose state cannot be put together "
                "from blocks here."
            )
        impl = layer.impl
        if impl.lacks is not None:
            raise UnsupportedModel(f"Layer {number} of {self.name} {impl.lacks}.")
        impl.layer = number
        text = self.config.model_config.hf_text_config
        if getattr(text, "kv_lora_rank", None):
            impl.v_dim = min(impl.v_dim, int(text.v_head_dim))
        return impl

    @property
    def answers(self) -> bool:
        """Whether this rank has the logits: the first of the last stage."""
        return bool(self.pp.is_last_rank) and self.tp.rank_in_group == 0

    @property
    def alone(self) -> bool:
        """Whether no other rank has a part in a forward."""
        return bool(self.tp.world_size == self.pp.world_size == 1)

    def embed(self, ids: Tensor) -> Tensor:
        """Embeddings ``[tokens, hidden]`` of ids, on every rank of the first stage; a copy."""
        found: Tensor = self.model.embed_input_ids(ids.clamp_min(0)).clone()
        return found

    def forward(
        self, attends: Attends, ids: Tensor, *, embeds: Tensor | None = None, positions: Tensor | None = None
    ) -> Tensor | None:
        """This rank's layers over packed ``ids [tokens]``, or ``embeds`` in their place on the first stage.

        Returns the last hidden states ``[tokens, hidden]`` after the final norm; None on stages before the last, which
        hand their states on.
        """
        return self.hand_on(self.compute(attends, ids, before=self.receive(), embeds=embeds, positions=positions))

    def receive(self) -> IntermediateTensors | None:
        """What the stage before hands on; None on the first."""
        if self.pp.is_first_rank:
            return None
        return IntermediateTensors(self.pp.recv_tensor_dict(all_gather_group=self.tp))

    def compute(
        self,
        attends: Attends,
        ids: Tensor,
        *,
        before: IntermediateTensors | None,
        embeds: Tensor | None = None,
        positions: Tensor | None = None,
    ) -> States:
        """This rank's layers alone, between ``receive`` and ``hand_on``: what a graph is captured of."""
        if before is not None:
            embeds = None
        elif embeds is None and self.config.compilation_config.mode:
            embeds = self.embed(ids)  # a compiled model knows the kind of input that it was compiled with
        given = ids if before is None and embeds is None else None
        places = torch.zeros_like(ids) if positions is None else positions
        if self.config.model_config.uses_mrope:
            places = places.expand(3, -1)
        with set_forward_context(_EveryLayer(attends), self.config, num_tokens=len(ids)):
            out: States = self.model(
                input_ids=given, positions=places, intermediate_tensors=before, inputs_embeds=embeds
            )
        return out

    def hand_on(self, out: States) -> Tensor | None:
        """Send on what the next stage begins with; on the last stage the hidden states."""
        if isinstance(out, IntermediateTensors):
            self.pp.send_tensor_dict(out.tensors, all_gather_group=self.tp)
            return None
        return out

    def logits(self, hidden: Tensor) -> Tensor:
        """Logits ``[rows, vocab]`` of last hidden states; all ranks of the last stage have a part in them."""
        found: Tensor = self.model.compute_logits(hidden)
        return found
