"""A transformers model without weights: its parameters on the meta device, its buffers (frequencies, scales) real."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from kvorum.errors import UnsupportedModel
from kvorum.jsontypes import Json

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel


def configuration(fields: Mapping[str, Json]) -> PretrainedConfig:
    """The configuration of the model type in `fields`. Raises `UnsupportedModel`: transformers refuses it."""
    from transformers import AutoConfig

    rest: dict[str, Any] = {name: value for name, value in fields.items() if name != "model_type"}
    try:
        with quiet_transformers():
            config: PretrainedConfig = AutoConfig.for_model(str(fields["model_type"]), **rest)
            return config
    except Exception as error:  # of many types: its own checks, and those of what it is made with
        raise UnsupportedModel(f"transformers refuses the model's configuration: {_sentence(error)}.") from error


def skeleton(config: PretrainedConfig) -> PreTrainedModel:
    """The causal LM of a configuration. Raises `UnsupportedModel`: transformers refuses it, or leaves out a buffer."""
    model = bare(config)
    fill_buffers(model)
    return model


def bare(config: PretrainedConfig) -> PreTrainedModel:
    """The causal LM of a configuration, with buffers that hold nothing yet. Raises as `skeleton`."""
    from transformers import AutoModelForCausalLM

    try:
        with quiet_transformers(), torch.device("meta"):
            model: PreTrainedModel = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    except Exception as error:
        raise UnsupportedModel(f"transformers refuses the model's configuration: {_sentence(error)}.") from error
    model.train(False)
    return model


def fill_buffers(model: PreTrainedModel, *, saved: bool = True) -> None:
    """Give a bare model's buffers what they hold; `saved`: also those that stand in a model's files. Raises as
    `skeleton`."""
    for owner, module in _owned(model, model):
        found = [name for name, buffer in module.named_buffers(recurse=False) if buffer.is_meta]
        meta = [name for name in found if saved or name in module._non_persistent_buffers_set]
        for name in meta:
            buffer = getattr(module, name)
            module._buffers[name] = torch.full_like(buffer, _unfilled(buffer.dtype), device="cpu")
        try:
            if meta:
                owner._init_weights(module)
        except Exception as error:  # it may need what a module has from elsewhere
            raise UnsupportedModel(
                f"transformers does not fill {meta[0]} of {type(module).__name__}: {_sentence(error)}."
            ) from error
        for name in meta:
            buffer = getattr(module, name)
            if (buffer.isnan() if buffer.is_floating_point() else buffer == _unfilled(buffer.dtype)).any():
                raise UnsupportedModel(f"transformers does not fill {name} of {type(module).__name__}.")


def _owned(module: nn.Module, owner: PreTrainedModel) -> Iterator[tuple[PreTrainedModel, nn.Module]]:
    """All modules, each with the innermost model that it is a part of: whose weights it is to begin with."""
    from transformers import PreTrainedModel

    owner = module if isinstance(module, PreTrainedModel) else owner
    yield owner, module
    for child in module.children():
        yield from _owned(child, owner)


def _unfilled(dtype: torch.dtype) -> float | int:
    """What stands in a buffer that nobody has filled."""
    return torch.nan if dtype.is_floating_point else torch.iinfo(dtype).min


def _sentence(error: BaseException) -> str:
    return " ".join(str(error).split()).rstrip(".: ")[:240] or type(error).__name__


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """No bars and no advice from transformers on the terminal; as it was before, afterwards."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
