"""The probe: how each layer of a model rotates, learned from the model itself, and whether kvorum can be
exact on it.

The model runs once with an attention that returns the values: every token attends to itself alone. Then
nothing but the rotation of q and k may depend on a token's position, and no token may notice another. Layer
by layer the probe finds the rotation that maps q at position 0 to q at position p. A second pass compares a
short causal forward through the seam with the model's own. There is no table of model families.

Refused with one sentence each: rotations that change with the length (dynamic NTK), learned positions, ALiBi,
recurrent, convolutional and hybrid layers, encoder-decoders, bidirectional models, sparse attention by index,
models that do not use transformers' attention interface.
"""

from __future__ import annotations

import torch
from torch import nn

from kvorum.errors import UnsupportedModel
from kvorum.models import exactness, layer_fit, seam
from kvorum.models.catalogue import out_of_memory
from kvorum.models.shape import ModelShape
from kvorum.wording import first_line


def probe(model: nn.Module) -> ModelShape:
    """Learn the model's shape and rotations; leaves the model as it was. Costs three forwards of a few
    tokens.

    Raises UnsupportedModel, in one sentence, if the model cannot be exact over views.
    """
    if not hasattr(model, "config"):
        raise UnsupportedModel(f"{type(model).__name__} is no Hugging Face causal language model.")
    exactness.refuse_by_configuration(model, model.config.get_text_config())  # type: ignore[union-attr,operator]
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        return _learn(model)
    finally:
        for module in training:
            module.training = True


def _learn(model: nn.Module) -> ModelShape:
    refusal = UnsupportedModel("unreachable")
    # more than one try, with other tokens: where two experts score alike, rounding may swap them
    for attempt in range(3):
        try:
            shape = _fit(model, attempt)
            count, device = min(8, shape.max_positions or 8), next(model.parameters()).device
            ids = layer_fit.check_tokens(shape.vocab, count, attempt, device)
            exactness.compare_with_own_forward(model, [layer.rotary for layer in shape.layers], ids)
            return shape
        except UnsupportedModel as error:
            refusal = error
    raise refusal


def _fit(model: nn.Module, attempt: int) -> ModelShape:
    """What one packed forward shows of the model."""
    name = type(model).__name__
    config = model.config.get_text_config()  # type: ignore[union-attr,operator]
    max_positions, max_tokens = exactness.limits(config)
    places = layer_fit.probe_places(exactness.farthest(max_positions, getattr(config, "max_position_embeddings", None)))
    if len(places) == 1:
        raise UnsupportedModel(f"{name} has learned a single position, so that nothing can be said of its rotation.")
    vocab = model.get_input_embeddings().num_embeddings  # type: ignore[operator]
    ids, same = layer_fit.probe_tokens(vocab, len(places), attempt, next(model.parameters()).device)
    positions = torch.zeros_like(ids)
    positions[same] = torch.tensor(places, device=ids.device)
    recorder = layer_fit.Recorder()
    try:
        out = seam.call(model, ids, attention=recorder, logits_index=same, position_ids=positions, hidden=True)
    except (AttributeError, IndexError, KeyError, TypeError, RuntimeError) as error:
        if out_of_memory(error):
            raise
        if recorder.seen:
            raise UnsupportedModel(f"{name} cannot be run as its configuration has it: {first_line(error)}.") from error
        raise UnsupportedModel(
            f"{name} computes attention on its own, so kvorum cannot take its place (it failed: {error})."
        ) from error
    if not recorder.seen:
        raise UnsupportedModel(
            f"{name} does not use the attention interface of transformers, so kvorum cannot take its place."
        )
    layer_fit.refuse_missing_layers(name, recorder, range(int(config.num_hidden_layers)))
    assert out.hidden is not None
    slack = exactness.tolerance(out.hidden.dtype)
    layer_fit.refuse_mixed(name, out.hidden, slack)
    fitter = layer_fit.Fitter(layer_fit.frequencies(model), positions[same], slack)
    layers = layer_fit.fit_layers(name, recorder, fitter, same, getattr(config, "layer_types", None) or ())
    return ModelShape(
        tuple(layers), out.logits.shape[-1], out.hidden.shape[-1], max_positions, max_tokens, exactness.trained(config)
    )
