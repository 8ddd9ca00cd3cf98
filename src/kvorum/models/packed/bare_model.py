"""A packed model without transformers: its packed layers and norms in plain containers, by their names in the file.

What the lean runner and the engine ask of a model is there. The modules of transformers are made around the same
layers, and without copying a weight, when somebody asks for the whole model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

from torch import Tensor, nn

from kvorum.errors import UnsupportedModel
from kvorum.jsontypes import Json
from kvorum.models.packed.layers import fill_packed, read_packed
from kvorum.models.shape import ModelShape

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class BareModel(nn.Module):
    """The layers of a packed file.

    ``config``: the model's whole configuration. ``attention_scaling``: what its rotation multiplies, by YaRN or
    LongRoPE. ``shape`` and ``fingerprint``: what the probe and the fingerprint of the whole model said. ``load``: makes
    the whole model without weights.
    """

    def __init__(
        self,
        path: Path,
        *,
        config: Mapping[str, Json],
        ends: list[int],
        attention_scaling: float,
        shape: ModelShape,
        fingerprint: str,
        load: Callable[[], PreTrainedModel],
    ) -> None:
        super().__init__()
        self.shape, self.fingerprint, self._load = shape, fingerprint, load
        self.config = SimpleNamespace(**config)
        self.generation_config = SimpleNamespace(eos_token_id=ends)
        self._file = read_packed(path)
        for name, held in [*self._file.modules.items(), *self._file.tensors.items()]:
            if ".rotary_emb." not in name:  # it is in the shape
                _place(self, name, held)
        setattr(self.get_decoder(), "rotary_emb", SimpleNamespace(attention_scaling=attention_scaling))  # noqa: B010
        self.eval()

    def get_decoder(self) -> nn.Module:
        """All layers and the final norm."""
        return self.get_submodule("model")

    def get_input_embeddings(self) -> nn.Module:
        """From ids to the first layer's inputs."""
        return self.get_submodule("model.embed_tokens")

    def get_output_embeddings(self) -> nn.Module:
        """From the last layer's outputs to logits."""
        return self.get_submodule("lm_head")

    @cached_property
    def whole(self) -> PreTrainedModel:
        """The model of transformers, over the same packed layers."""
        model = self._load()
        fill_packed(model, self._file)
        model.eval().requires_grad_(False)
        return model

    def forward(self, *inputs: Tensor) -> Tensor:
        """It has none: a runner calls its layers."""
        raise UnsupportedModel("A packed model without transformers has no forward of its own; take `whole`.")


def _place(model: nn.Module, name: str, held: nn.Module | Tensor) -> None:
    """Put what is called ``name`` into the tree of containers, which grows as it needs to."""
    *path, leaf = name.split(".")
    if leaf == "weight" and path[-1] == "embed_tokens" and isinstance(held, Tensor):
        leaf, held = path.pop(), nn.Embedding.from_pretrained(held, freeze=True)
    for step in path:
        if not hasattr(model, step):
            model.add_module(step, nn.ModuleList() if step == "layers" else nn.Module())
        model = getattr(model, step)
    setattr(model, leaf, nn.Parameter(held, requires_grad=False) if isinstance(held, Tensor) else held)
