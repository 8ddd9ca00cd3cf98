"""The lean runner: a decoder for the Llama shape over packed weights: what a tick needs of the model and nothing else.

The generic modules of transformers spend more time between the products than in them when a tick has few tokens. This
decoder does the same arithmetic with q, k, v and gate, up fused, inputs quantised once per fused product, and
residuals added by the product. With the native kernels a tick is one call for all layers; what follows here in torch is
its twin, and their common twin is the seam, on the same packed modules. Covers Llama, Mistral, Qwen2, Qwen3, SmolLM3
and Granite configurations whose linear layers are all packed; any other model goes through ``seam``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from kvorum.attention.kernel import BoundPlan, Softmax
from kvorum.attention.plan import Plan
from kvorum.attention.tap import Tap
from kvorum.models.forward import Forward
from kvorum.models.packed.layers import PackedEmbedding, PackedLinear
from kvorum.models.packed.matrix import PackedMatrix, PackedPart
from kvorum.models.packed.products import native_path, product, quantize_rows, rms, rms_quantize, silu_mul_quantize
from kvorum.models.runners.runner import ModelRunner, RunnerSetup
from kvorum.native_extension import Kernels, kernels

if TYPE_CHECKING:
    from kvorum_native import Decoder

_SHAPES = ("llama", "mistral", "qwen2", "qwen3", "smollm3", "granite")


@dataclass(frozen=True, eq=False, slots=True)
class _Layer:
    norm: Tensor
    qkv: PackedMatrix
    q_norm: Tensor | None
    k_norm: Tensor | None
    out: PackedMatrix
    mlp_norm: Tensor
    gate_up: PackedMatrix
    down: PackedMatrix


class LeanRunner(ModelRunner):
    """The model's forward over packed weights. Float32 on the CPU."""

    name = "lean"
    preference = 10

    def __init__(self, setup: RunnerSetup, layers: list[_Layer]) -> None:
        model: Any = setup.model
        head, embed = model.get_output_embeddings(), model.get_input_embeddings()
        # of a few rows, the module around the packed rows takes as long as they do
        self._embed = embed.part.dequantize if isinstance(embed, PackedEmbedding) and embed.scale == 1.0 else embed
        self._embedding = getattr(model.config, "embedding_multiplier", 1.0)
        self._layers = layers
        self._norm: Tensor = model.get_decoder().norm.weight
        self._head = _times(head.packed, 1 / getattr(model.config, "logits_scaling", 1.0))
        self._eps: float = model.config.rms_norm_eps
        first = setup.shape.layers[0]
        self._q_heads, self._kv_heads, self._dim = first.q_heads, first.kv_heads, first.k_dim
        # YaRN and LongRoPE scale what they rotate, q and k alike
        rotated = getattr(getattr(model.get_decoder(), "rotary_emb", None), "attention_scaling", 1.0)
        scale = getattr(model.config, "attention_multiplier", self._dim**-0.5)
        self._softmaxes = tuple(
            Softmax(scale * (rotated**2 if layer.rotary.rotated else 1.0), layer.window) for layer in setup.shape.layers
        )
        self._attention = setup.attention
        self._native = self._compiled(kernels())

    def _compiled(self, native: Kernels | None) -> Decoder | None:
        """All layers as one native object, or None."""
        if native is None or native_path() is None:
            return None
        made = native.Decoder(
            self._q_heads, self._kv_heads, self._dim, self._eps, self._norm.data_ptr(), self._head.matrix(native)
        )
        for layer in self._layers:
            norms = (layer.norm, layer.q_norm, layer.k_norm, layer.mlp_norm)
            norm, q_norm, k_norm, mlp_norm = (0 if each is None else each.data_ptr() for each in norms)
            matrices = (layer.qkv, layer.out, layer.gate_up, layer.down)
            qkv, out, gate_up, down = (each.matrix(native) for each in matrices)
            made.add(norm, qkv, q_norm, k_norm, out, mlp_norm, gate_up, down)
        return made

    @classmethod
    def of(cls, setup: RunnerSetup) -> LeanRunner | None:
        """For a model of the Llama shape whose linear layers are all packed."""
        model: Any = setup.model
        if not covers(model):
            return None
        residual = getattr(model.config, "residual_multiplier", 1.0)
        layers = []
        for layer in model.get_decoder().layers:
            attention = layer.self_attn
            q, k, v, out, gate, up, down = (linear.packed for linear in _linears(layer))
            q_norm, k_norm = getattr(attention, "q_norm", None), getattr(attention, "k_norm", None)
            layers.append(
                _Layer(
                    norm=layer.input_layernorm.weight,
                    qkv=PackedMatrix.join((q, k, v)),
                    q_norm=None if q_norm is None else q_norm.weight,
                    k_norm=None if k_norm is None else k_norm.weight,
                    out=_times(out, residual),
                    mlp_norm=layer.post_attention_layernorm.weight,
                    gate_up=PackedMatrix.join((gate, up)),
                    down=_times(down, residual),
                )
            )
        return cls(setup, layers)

    @torch.no_grad()
    def forward(
        self, plan: Plan, inputs: Tensor, wanted: Tensor, *, hidden: bool = False, tap: Tap | None = None
    ) -> Forward:
        """As ``ModelRunner.forward``."""
        bound = self._attention.bind(plan, tap)
        # a copy of given embeddings: residuals are added in place
        x = inputs.to(torch.float32, copy=True) if inputs.is_floating_point() else self._embed(inputs)
        if self._embedding != 1.0:
            x *= self._embedding
        if self._native is not None:
            x = x.contiguous()
            logits = torch.empty(len(wanted), self._head.rows)
            states = torch.empty(len(wanted), x.shape[1]) if hidden else None
            if bound.run_decoder(self._native, x, wanted, logits, states, self._softmaxes):
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
                q, k = rms(q, layer.q_norm, self._eps), rms(k, layer.k_norm, self._eps)
            q, k, v = (part.transpose(0, 1) for part in (q, k, v))
            attended = bound.attend(at, q, k, v, self._softmaxes[at])
            product(quantize_rows(attended.reshape(tokens, -1)), layer.out, x, add=True)
            gate_up = product(rms_quantize(x, layer.mlp_norm, self._eps), layer.gate_up)
            product(silu_mul_quantize(gate_up), layer.down, x, add=True)
        last = x[wanted]
        logits = product(rms_quantize(last, self._norm, self._eps), self._head)
        return Forward(logits, rms(last, self._norm, self._eps) if hidden else None)


def covers(model: Any) -> bool:
    """Whether a causal LM is of the Llama shape, and its linear layers are all packed."""
    if model.config.model_type not in _SHAPES or model.config.hidden_act != "silu":
        return False
    linears = [linear for layer in model.get_decoder().layers for linear in _linears(layer)]
    return all(isinstance(linear, PackedLinear) for linear in [model.get_output_embeddings(), *linears])


def _linears(layer: Any) -> list[Any]:
    """A layer's products in the order in which it takes them: q, k, v, out, gate, up, down."""
    attention = [getattr(layer.self_attn, f"{name}_proj") for name in ("q", "k", "v", "o")]
    return [*attention, layer.mlp.gate_proj, layer.mlp.up_proj, layer.mlp.down_proj]


def _times(packed: PackedMatrix, factor: float) -> PackedMatrix:
    """The matrix with every output times ``factor``; the codes stay where they are."""
    if factor == 1.0:
        return packed
    biases = [None if part.bias is None else part.bias * factor for part in packed.parts]
    return PackedMatrix(
        PackedPart(part.data, part.mult * factor, part.bits, bias)
        for part, bias in zip(packed.parts, biases, strict=True)
    )
