"""The seam between kvorum and a Hugging Face model: the model's attention, and nothing else, is ours.

transformers lets an attention function be registered by name. Ours hands q, k and v of each layer to the
*bound plan* of the current forward, which stores the keys and values and attends over the workers' views. The model
is called on one packed batch `[1, tokens]` with every position id zero, so it rotates nothing; the plan
rotates (see `probe`). No mask is registered under the name, so transformers builds none.

The model object stays its owner's: its configuration names our attention only while `call` runs. `call` is
therefore not safe beside another thread's forward on the same model object.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from functools import cache
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from transformers import AttentionInterface

from kvorum.attention.kernel import Attends, Softmax
from kvorum.errors import KvorumError, UnsupportedModel
from kvorum.models.forward import Forward

NAME = "kvorum"


_current: ContextVar[Attends | None] = ContextVar("kvorum_attention", default=None)
_configs: WeakKeyDictionary[nn.Module, list[Any]] = WeakKeyDictionary()


def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None = None,
    scaling: float | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """The function registered with transformers: query [1, q_heads, n, k_dim] -> ([1, n, q_heads, v_dim],
    None).

    Raises KvorumError outside `call`, and UnsupportedModel where the layer asks for something that attention
    over views does not have (its own mask, a position bias, chosen key indices, a bidirectional layer, a
    batch).
    """
    attends = _current.get()
    if attends is None:
        raise KvorumError(
            "The model's attention is set to 'kvorum' outside a kvorum forward; "
            "use Engine.forward, or set another attn_implementation."
        )
    _refuse_extras(module, query, key, attention_mask, kwargs)
    scale = query.shape[-1] ** -0.5 if scaling is None else float(scaling)
    softmax = Softmax(scale, _window(module, kwargs), softcap, s_aux)
    out = attends.attend(int(module.layer_idx), query[0], key[0], value[0], softmax)  # type: ignore[arg-type]
    return out.unsqueeze(0), None


def _window(module: nn.Module, kwargs: dict[str, Any]) -> int | None:
    """The layer's sliding window: as the call says (None: none), else the layer, else its configuration."""
    if "sliding_window" in kwargs:
        window = kwargs["sliding_window"]
    elif hasattr(module, "sliding_window"):
        window = module.sliding_window
    else:
        config = getattr(module, "config", None)
        kinds = getattr(config, "layer_types", None)
        slides = kinds is None or kinds[module.layer_idx] == "sliding_attention"
        window = getattr(config, "sliding_window", None) if slides else None
    return int(window) if window else None


def _refuse_extras(module: nn.Module, query: Tensor, key: Tensor, mask: Tensor | None, kwargs: dict[str, Any]) -> None:
    """Raise UnsupportedModel for an input of the attention function that changes which keys count, or how
    much."""
    kind = type(module).__name__
    if query.shape[0] != 1:
        raise UnsupportedModel(f"{kind} attends to a batch of {query.shape[0]}; kvorum packs one batch row.")
    if query.shape[2] != key.shape[2]:
        raise UnsupportedModel(f"{kind} attends from some of the tokens only; kvorum needs all of them.")
    if mask is not None:
        raise UnsupportedModel(f"{kind} brings its own attention mask, which has no meaning over views.")
    if kwargs.get("is_causal") is False or getattr(module, "is_causal", True) is False:
        raise UnsupportedModel(f"{kind} is not causal; kvorum needs a causal language model.")
    if not hasattr(module, "layer_idx"):
        raise UnsupportedModel(f"{kind} does not say which layer it is (no `layer_idx`).")
    for name in _MEANINGFUL & kwargs.keys():
        if kwargs[name] is not None:
            raise UnsupportedModel(f"{kind} passes `{name}` to its attention, which kvorum cannot honour.")


# Keyword arguments that models of transformers 5.17 to 5.24 give their attention and that change its result.
_MEANINGFUL = frozenset({"position_bias", "indices", "block_indices", "sinks", "head_mask", "alibi"})

AttentionInterface.register(NAME, attend)


@contextmanager
def attached(model: nn.Module, attention: Attends) -> Iterator[None]:
    """Within the context, the model's attention layers call `attention`; afterwards the model is as it was."""
    configs = _configs.get(model)
    if configs is None:
        configs = _configs[model] = _attention_configs(model)
    before = [config._attn_implementation_internal for config in configs]
    token = _current.set(attention)
    for config in configs:
        config._attn_implementation_internal = NAME
    try:
        yield
    finally:
        for config, name in zip(configs, before, strict=True):
            config._attn_implementation_internal = name
        _current.reset(token)


def _attention_configs(model: nn.Module) -> list[Any]:
    """Every distinct configuration object that a module of the model holds (nested ones for wrapped
    models)."""
    configs = [getattr(module, "config", None) for module in model.modules()]
    found = {id(config): config for config in configs if hasattr(config, "_attn_implementation_internal")}
    return list(found.values())


def call(
    model: nn.Module,
    inputs: Tensor,
    *,
    attention: Attends,
    logits_index: Tensor,
    hidden: bool = False,
    position_ids: Tensor | None = None,
    gradients: bool = False,
) -> Forward:
    """One forward pass over packed tokens, attention done by `attention`.

    `inputs` are ids [n] or embeddings [n, hidden_size]; `logits_index` [rows] (long) names the tokens whose logits
    are wanted, in that order. Logits are the model's own, with its scales and soft caps.
    `position_ids` [n] is for the probe; None means all zeros: the model rotates nothing. `gradients`: what a backward
    pass needs is kept.
    """
    if position_ids is None:
        position_ids = torch.zeros(inputs.shape[0], dtype=torch.long, device=inputs.device)
    arguments: dict[str, Any] = {"attention_mask": None, "use_cache": False, "position_ids": position_ids[None]}
    arguments["inputs_embeds" if inputs.is_floating_point() else "input_ids"] = inputs[None]
    # A decoder that knows which logits are wanted (Gemma 4) drops the other tokens before its last layers.
    keeps = _keeps_logits(type(model).forward) and not _keeps_logits(type(_decoder(model)).forward)
    if keeps:
        arguments["logits_to_keep"] = logits_index
    caught: list[Tensor] = []
    with ExitStack() as watching, torch.set_grad_enabled(gradients), attached(model, attention):
        if hidden:
            hook = _decoder(model).register_forward_hook(lambda _module, _in, out: caught.append(out[0]))
            watching.enter_context(hook)
        logits: Tensor = model(**arguments).logits[0]
    if not keeps:
        logits = logits[logits_index]
    return Forward(logits, caught[-1][0, logits_index] if hidden else None)


def _decoder(model: nn.Module) -> nn.Module:
    """The part of the model whose output is the last hidden state after the final norm, before any logit scale."""
    decoder = model.get_decoder()  # type: ignore[operator]
    if decoder is model:  # not found by transformers (Llama 4's text model)
        decoder = getattr(model, "model", None)
    if not isinstance(decoder, nn.Module):
        raise UnsupportedModel(f"{type(model).__name__} does not say which part of it is the decoder.")
    return decoder


@cache
def _keeps_logits(forward: Callable[..., Any]) -> bool:
    """Whether the forward can compute the logits of chosen tokens only."""
    return "logits_to_keep" in inspect.signature(forward).parameters
