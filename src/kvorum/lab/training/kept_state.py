"""What is kept of a training between its pieces, so that several pieces make the weights of one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.optim import Optimizer

from kvorum.models.tensor_file import write_tensors

_MOMENTS = ("exp_avg", "exp_avg_sq", "step")
"""What AdamW holds of each parameter."""


def save_state(
    folder: Path, parameters: Mapping[str, Tensor], optimizer: Optimizer, generator: torch.Generator, done: int
) -> None:
    """Keep the parameters after ``done`` steps, and all that the next step depends on, in one file."""
    state = {f"weight {name}": value.detach() for name, value in parameters.items()}
    for name, value in parameters.items():
        kept = optimizer.state.get(value, {})
        state |= {f"{key} {name}": kept[key].reshape(-1) for key in _MOMENTS if key in kept}
    state["generator"] = generator.get_state()
    state["done"] = torch.tensor(done)
    write_tensors(folder / "state.safetensors", state, {})


def load_state(folder: Path, parameters: Mapping[str, Tensor], optimizer: Optimizer, generator: torch.Generator) -> int:
    """Take up what ``save_state`` kept, in place; how many steps were done, 0 where there is nothing."""
    path = folder / "state.safetensors"
    if not path.is_file():
        return 0
    state = load_file(path)
    generator.set_state(state["generator"])
    with torch.no_grad():
        for name, value in parameters.items():
            value.copy_(state[f"weight {name}"])
            if f"step {name}" in state:
                moments = {key: state[f"{key} {name}"].view_as(value) for key in _MOMENTS[:2]}
                optimizer.state[value] = {**moments, "step": state[f"step {name}"].view(())}
    return int(state["done"])
