"""The attention that vLLM's model files meet in a worker: each layer's q, k and v go to the tick of this forward.

Importing this registers it. vLLM imports the module of its ``worker_extension_cls`` in every worker before the model is
built, and that module imports this one. Nothing is stored in vLLM's own cache.
"""

from __future__ import annotations

from typing import NoReturn

import torch
from torch import Tensor
from vllm.platforms import current_platform
from vllm.v1.attention.backend import AttentionBackend, AttentionImpl, AttentionMetadataBuilder, AttentionType
from vllm.v1.attention.backends.registry import AttentionBackendEnum, register_backend

from kvorum.attention.kernel import Attends, Softmax
from kvorum.errors import UnsupportedModel

NAME = "CPU_ATTN" if current_platform.is_cpu() else "CUSTOM"
"""What it replaces: on CPUs vLLM knows one backend only, elsewhere there is a name for those of others."""

_PLAIN_CACHES = ("auto", "float32", "float16", "bfloat16")


class ViewAttention(AttentionImpl):
    """One layer's attention. An argument of vLLM's layers that is not known here is a TypeError, as it should be."""

    def __init__(
        self,
        num_heads: int,
        head_size: int,
        scale: float,
        num_kv_heads: int | None = None,
        alibi_slopes: list[float] | None = None,
        sliding_window: int | None = None,
        kv_cache_dtype: str = "auto",
        logits_soft_cap: float | None = None,
        attn_type: str = AttentionType.DECODER,
        kv_sharing_target_layer_name: str | None = None,
        sinks: Tensor | None = None,
    ) -> None:
        self.num_heads, self.head_size, self.scale = num_heads, head_size, float(scale)
        self.num_kv_heads = num_kv_heads or num_heads
        self.kv_cache_dtype = kv_cache_dtype
        self.softmax = Softmax(self.scale, sliding_window or None, logits_soft_cap or None, sinks)
        self.lacks: str | None = None
        """What the layer asks for that attention over views has not."""
        if alibi_slopes is not None:
            self.lacks = "uses ALiBi position biases, not a rotation of queries and keys"
        elif attn_type != AttentionType.DECODER:
            self.lacks = f"has {attn_type} attention; kvorum needs a causal language model"
        elif kv_cache_dtype not in _PLAIN_CACHES:
            self.lacks = f"asks for a cache in {kv_cache_dtype}; this backend keeps keys in the dtype of the model"
        self.layer = -1
        """Which layer of the model it is; known when the rank has looked at them all."""
        self.v_dim = head_size
        """How much of a value counts: expanded MLA makes values as wide as keys, with zeros."""
        self.source = kv_sharing_target_layer_name
        """The name of the layer whose keys and values this one takes; None: it has its own."""
        self.shared: ViewAttention | None = None
        """That layer."""
        self.keeps = False
        """Whether another layer takes this one's."""
        self.kept: tuple[Tensor, Tensor] | None = None
        """Keys and values of this forward, for those that take them."""

    def forward(
        self,
        layer: torch.nn.Module,
        query: Tensor,
        key: Tensor | None,
        value: Tensor | None,
        kv_cache: Tensor,
        attn_metadata: Attends | None,
        output: Tensor,
        output_scale: Tensor | None = None,
        output_block_scale: Tensor | None = None,
    ) -> Tensor:
        """``query [tokens, heads, dim]``; fills ``output``, with zeros where vLLM profiles and there is no tick.

        A layer that takes another's keys and values, which is handed none, stores them once more as its own.
        """
        if attn_metadata is None:
            return output.zero_()
        if key is None or value is None:
            key, value = self._taken()
        if len(key) != len(query):
            raise UnsupportedModel(
                f"Layer {self.layer} has keys of {self.num_kv_heads * len(key) // len(query)} heads, and the "
                f"configuration says {self.num_kv_heads} (num_key_value_heads)."
            )
        if self.keeps:
            self.kept = key.clone(), value.clone()  # a compiled model uses their memory again
        q, k, v = query.transpose(0, 1), key.transpose(0, 1), value[..., : self.v_dim].transpose(0, 1)
        found = attn_metadata.attend(self.layer, q, k, v, self.softmax)
        if self.v_dim == output.shape[-1]:
            return output.copy_(found.view_as(output))
        output[..., : self.v_dim] = found
        output[..., self.v_dim :] = 0.0
        return output

    def _taken(self) -> tuple[Tensor, Tensor]:
        if self.shared is None or self.shared.kept is None:
            raise UnsupportedModel(
                f"Layer {self.layer} is handed no keys and values, and names no layer that has them."
            )
        return self.shared.kept


class NoBuilder(AttentionMetadataBuilder):
    """Only to be derived from, which vLLM's layers with attention in chunks do when they are made."""

    def build(self, common_prefix_len: int, common_attn_metadata: Tensor, fast_build: bool = False) -> NoReturn:
        """Never called: vLLM's scheduler does not run."""
        raise NotImplementedError("A tick is its own metadata.")


class ViewBackend(AttentionBackend):
    """Tells vLLM yes to whatever a model asks for; what cannot be had is refused when the rank looks at its layers."""

    supported_dtypes = (torch.float32, torch.float16, torch.bfloat16)
    forward_includes_kv_cache_update = True

    @staticmethod
    def get_name() -> str:
        """The name under which it is registered."""
        return NAME

    @staticmethod
    def get_impl_cls() -> type[ViewAttention]:
        """One layer's attention."""
        return ViewAttention

    @staticmethod
    def get_builder_cls() -> type[NoBuilder]:
        """A class to derive from."""
        return NoBuilder

    @staticmethod
    def get_kv_cache_shape(*sizes: int | str, **more: int | str) -> NoReturn:
        """Never called: vLLM's cache is not laid out."""
        raise NotImplementedError("kvorum brings its own cache.")

    @classmethod
    def supports_sink(cls) -> bool:
        """Sinks are part of the softmax here."""
        return True

    @classmethod
    def supports_sliding_window(cls) -> bool:
        """Windows count distances in a view."""
        return True


register_backend(AttentionBackendEnum[NAME], f"{__name__}.ViewBackend")
