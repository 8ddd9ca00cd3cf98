"""The models of `kvorum serve`: what loads each, and how much memory it takes."""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

from kvorum.cli.arguments import choose_model
from kvorum.cli.display.state import ShownRun
from kvorum.cli.planned_run import load
from kvorum.errors import BadRequest

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from kvorum.api import Engine
    from kvorum.cli.arguments import LoadOptions
    from kvorum.serve.model_source import ModelSource


def offered_models(
    models: Sequence[str | None], options: LoadOptions, check: Callable[[], None]
) -> Sequence[ModelSource]:
    """Each of ``models`` (None: the strongest that fits), the first with ``check`` before it is loaded.

    Raises:
        BadRequest: two have one name, or one that is loaded later is not here yet. UnknownName, ModelFileError.
    """
    from kvorum.serve.model_source import ModelSource, short_name

    if len(models) > 1 and "adapter" in options:
        raise BadRequest("--adapter is for one model; give adapters among others as models: -m NAME -m FOLDER.")
    found: dict[str, ModelSource] = {}
    for at, given in enumerate(models):
        model = choose_model(given, exact=options["quantize"] is None)
        name = short_name(model)
        if name in found:
            raise BadRequest(f"Two models are called {name}: requests could not tell them apart; give one.")
        if at and not _is_here(model):  # nothing is fetched because a request names it
            raise BadRequest(
                f"The model {model} would be loaded when it is first asked for, and is not here: kvorum pull it."
            )
        read = partial(_again, model, options) if at else _First(model, options, check)
        found[name] = ModelSource(name, read, _memory(model, options) if len(models) > 1 else 0)
    return list(found.values())


def _is_here(model: str) -> bool:
    """Whether the model can be loaded without fetching anything."""
    from kvorum.models.adapter_config import named_base
    from kvorum.models.cache_folder import entry_folder
    from kvorum.models.catalogue import Entry, locate

    found = locate(named_base(model) or model)
    if isinstance(found, Entry):
        folder = entry_folder(found)
        return folder.gguf.is_file() or folder.converted()
    return found is not None


class _First:
    """Loads the first model: as every command does at first, later as the others are."""

    def __init__(self, model: str, options: LoadOptions, check: Callable[[], None]) -> None:
        self._model, self._options, self._check = model, options, check
        self._begun = False

    def __call__(self) -> Engine:
        if self._begun:
            return _again(self._model, self._options)
        self._begun = True
        return load(self._model, self._options, ShownRun(), self._check)


def _again(model: str, options: LoadOptions) -> Engine:
    """Quietly, on any thread."""
    from kvorum.api import Engine

    return Engine.load(model, **options)


def _memory(model: str, options: LoadOptions) -> int:
    """Bytes of this machine's memory that a model takes, about; 0 where that cannot be known before it is loaded."""
    import torch

    from kvorum.models.adapter_config import named_base
    from kvorum.models.catalogue import GIB, Entry, locate, memory_needed
    from kvorum.models.gguf.file import GGUFFile
    from kvorum.models.load import model_dtype

    found = locate(named_base(model) or model)
    if torch.cuda.is_available() or found is None:
        return 0
    exact = options["quantize"] is None
    if isinstance(found, Entry):
        return memory_needed(found, exact=exact)
    if found.is_file() and not exact:
        return int(found.stat().st_size * 1.3) + GIB
    weights = GGUFFile(found).weights if found.is_file() else _weights(found)
    kind = model_dtype(options["dtype"] if exact else "float32", torch.device("cpu"))  # a folder is packed from float32
    return int(weights * kind.itemsize * 1.15) + GIB


def _weights(folder: Path) -> int:
    """How many numbers the files of a folder hold; those that cannot be read are told of when it is loaded."""
    from safetensors import SafetensorError, safe_open

    count = 0
    for path in folder.glob("*.safetensors"):
        with suppress(SafetensorError, OSError), safe_open(path, framework="pt") as file:
            count += sum(prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118
    return count
