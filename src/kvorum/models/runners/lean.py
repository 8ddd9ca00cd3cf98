"""The lean runner: a decoder for the Llama shape over packed weights: what a tick needs of the model and nothing else.

The generic modules of transformers spend more time between the products than in them when a tick has few tokens. This
decoder does the same arithmetic with q, k, v and gate, up fused, inputs quantised once per fused product, and
residuals added by the product. With the native kernels a tick is one call for all layers; what follows here in torch is
its twin, and their common twin is the seam, on the same packed modules. Covers Llama, Mistral, Qwen2 and Qwen3
configurations whose linear layers are all packed; any other model goes through ``seam``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from kvorum.attention.kernel import AttentionKernel, BoundPlan
from kvorum.attention.plan import Plan
from kvorum.attention.tap import Tap
from kvorum.extension import Kernels, kernels
from kvorum.models.packed import Packed
from kvorum.models.packed_layers import PackedEmbedding, PackedLinear
from kvorum.models.products import native_path, product, quantize_rows, rms_quantize, silu_mul_quantize
from kvorum.models.runners.runner import Inputs, ModelRunner, RunnerSetup
from kvorum.models.seam import Forward

if TYPE_CHECKING:
    from kvorum_native import Decoder

_SHAPES = ("llama", "mistral", "qwen2", "qwen3")


@dataclass(frozen=True, eq=False, slots=True)
class _Layer:
    norm: Tensor
    qkv: Packed
    q_norm: Tensor | None
    k_norm: Tensor | None
    out: Packed
    mlp_norm: Tensor
    gate_up: Packed
    down: Packed
    window: int | None


class LeanRunner(ModelRunner):
    """The model's forward over packed weights. Float32 on the CPU."""

    name = "lean"
    preference = 10

    def __init__(self, model: nn.Module, layers: list[_Layer], attention: AttentionKernel) -> None:
        self._attention = attention
        config: Any = model.config
        base: Any = model.get_decoder()  # type: ignore[operator]
        head = model.get_output_embeddings()  # type: ignore[operator]
        embed = model.get_input_embeddings()  # type: ignore[operator]
        # of a few rows, the module around the packed rows takes as long as they do
        self._embed = embed.part.dequantize if isinstance(embed, PackedEmbedding) else embed
        self._layers = layers
        self._windows = [layer.window for layer in layers]
        self._norm: Tensor = base.norm.weight
        self._head: Packed = head.packed
        self._eps: float = config.rms_norm_eps
        self._q_heads: int = config.num_attention_heads
        self._kv_heads: int = config.num_key_value_heads
        self._dim: int = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        self._scale = self._dim**-0.5
        self._native = self._compiled(kernels())

    def _compiled(self, native: Kernels | None) -> Decoder | None:
        """All layers as one native object, or None."""
        if native is None or native_path() is None:
            return None
        made = native.Decoder(
            self._q_heads, self._kv_heads, self._dim, self._eps, self._norm.data_ptr(), self._head.matrix(native)
        )
        for layer in self._layers:
            q_norm, k_norm = (0 if norm is None else norm.data_ptr() for norm in (layer.q_norm, layer.k_norm))
            made.add(
                layer.norm.data_ptr(),
                layer.qkv.matrix(native),
                q_norm,
                k_norm,
                layer.out.matrix(native),
                layer.mlp_norm.data_ptr(),
                layer.gate_up.matrix(native),
                layer.down.matrix(native),
            )
        return made

    @classmethod
    def of(cls, setup: RunnerSetup) -> LeanRunner | None:
        """For a model of the Llama shape whose linear layers are all packed."""
        model = setup.model
        config: Any = model.config
        if config.model_type not in _SHAPES or config.hidden_act != "silu":
            return None
        if not isinstance(model.get_output_embeddings(), PackedLinear):  # type: ignore[operator]
            return None
        layers = []
        for layer, probed in zip(model.get_decoder().layers, setup.shape.layers, strict=True):  # type: ignore[operator]
            attention, mlp = layer.self_attn, layer.mlp
            linears = [getattr(attention, f"{name}_proj") for name in ("q", "k", "v", "o")]
            linears += [mlp.gate_proj, mlp.up_proj, mlp.down_proj]
            if not all(isinstance(linear, PackedLinear) for linear in linears):
                return None
            q, k, v, out, gate, up, down = (linear.packed for linear in linears)
            q_norm, k_norm = getattr(attention, "q_norm", None), getattr(attention, "k_norm", None)
            layers.append(
                _Layer(
                    norm=layer.input_layernorm.weight,
                    qkv=Packed.join((q, k, v)),
                    q_norm=None if q_norm is None else q_norm.weight,
                    k_norm=None if k_norm is None else k_norm.weight,
                    out=out,
                    mlp_norm=layer.post_attention_layernorm.weight,
                    gate_up=Packed.join((gate, up)),
                    down=down,
                    window=probed.window,
                )
            )
        return cls(model, layers, setup.attention)

    @torch.no_grad()
    def forward(
        self, plan: Plan, inputs: Inputs, wanted: Tensor, *, hidden: bool = False, tap: Tap | None = None
    ) -> Forward:
        """As ``ModelRunner.forward``."""
        bound = self._attention.bind(plan, tap)
        # a copy of given embeddings: residuals are added in place
        x = self._embed(inputs.ids) if inputs.embeds is None else inputs.embeds.to(torch.float32, copy=True)
        if self._native is not None:
            x = x.contiguous()
            logits = torch.empty(len(wanted), self._head.rows)
            states = torch.empty(len(wanted), x.shape[1]) if hidden else None
            if bound.run_decoder(self._native, x, wanted, logits, states, scale=self._scale, windows=self._windows):
                return Forward(logits, states)
        return self._layer_by_layer(bound, x, wanted, hidden)

    def _layer_by_layer(self, bound: BoundPlan, x: Tensor, wanted: Tensor, hidden: bool) -> Forward:
        """The twin of the compiled decoder."""
        tokens = x.shape[0]
        split = [self._q_heads * self._dim, self._kv_heads * self._dim, self._kv_heads * self._dim]
        for at, layer in enumerate(self._layers):
            qkv = product(rms_quantize(x, layer.norm, self._eps), layer.qkv)
            q, k, v = (part.view(tokens, -1, self._dim) for part in torch.split(qkv, split, dim=1))
            if layer.q_norm is not None and layer.k_norm is not None:
                q, k = _rms(q, layer.q_norm, self._eps), _rms(k, layer.k_norm, self._eps)
            attended = bound.attend(
                at,
                q.transpose(0, 1),
                k.transpose(0, 1),
                v.transpose(0, 1),
                scale=self._scale,
                window=layer.window,
            )
            product(quantize_rows(attended.reshape(tokens, -1)), layer.out, x, add=True)
            gate_up = product(rms_quantize(x, layer.mlp_norm, self._eps), layer.gate_up)
            product(silu_mul_quantize(gate_up), layer.down, x, add=True)
        last = x[wanted]
        logits = product(rms_quantize(last, self._norm, self._eps), self._head)
        return Forward(logits, _rms(last, self._norm, self._eps) if hidden else None)


def _rms(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """``weight * x / sqrt(mean(x^2) + eps)`` over the last dimension."""
    return weight * (x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps))
