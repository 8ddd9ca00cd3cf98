"""Whether a converted model computes what its GGUF file says: its logits on a fixed text against `gguf.reference`.

Every layer is followed through the reference where there is time; where there is not, as many as there is time for,
spread over the model, and between them the model's own hidden states are taken. What a random or damaged model shows
besides is the perplexity of a text that ships (`perplexity`).

Not covered: what shows on longer texts alone (windows, far positions), and kvorum's own attention, which
`exactness` compares at every load.
"""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from kvorum.errors import ModelFileError
from kvorum.jsontypes import Json
from kvorum.models.cache_folder import ModelFolder, change_mark, kept_checks
from kvorum.models.gguf.file import GGUFFile
from kvorum.models.gguf.reference import Reference, spread
from kvorum.models.packed.layers import PackedLinear
from kvorum.models.progress import Progress

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

TEXT = " ".join(Path(__file__).with_suffix(".txt").read_text(encoding="utf-8").split())
SECONDS = 10.0
EXACT = 1e-3
PACKED, PACKED_AS_THEY_ARE = 0.1, 0.05
_TOKENS = 48
_LOGITS = 8192


@dataclass(frozen=True)
class SelfCheck:
    """What the comparison found: parts of the largest logit, and of what the followed layers add to a token."""

    weights: str  # "packed", or a dtype
    logits: float
    hidden: float  # 0 where all layers were followed
    bound: float
    layers: int
    of: int
    seconds: float

    @property
    def passed(self) -> bool:
        """Whether it is within the bound; no number is not."""
        return self.logits <= self.bound and self.hidden <= self.bound

    def as_json(self) -> dict[str, Json]:
        """For the model's `kvorum.json`."""
        return asdict(self)

    @classmethod
    def of_json(cls, found: Mapping[str, Json]) -> SelfCheck:
        """From `as_json`."""
        return cls(**found)  # type: ignore[arg-type]

    def __str__(self) -> str:
        part = f"{self.layers} of {self.of} layers"
        worst = max(self.logits, self.hidden)
        return f"{self.weights}: differs by {worst:.1e}, at most {self.bound:.0e}; {part}, {self.seconds:.1f} s"


def weights_of(model: PreTrainedModel) -> str:
    """How a model's weights are held: "packed", or the name of its dtype."""
    packed = any(isinstance(module, PackedLinear) for module in model.modules())
    return "packed" if packed else str(model.dtype).removeprefix("torch.")


def _bound(model: PreTrainedModel) -> float:
    """The largest difference that rounding explains, of packed weights the inputs to 8 bits in every product."""
    linears = [module for module in model.modules() if isinstance(module, PackedLinear)]
    bits = [part.bits for module in linears for part in module.packed.parts]
    if bits:
        return PACKED if max(bits) > 4 else PACKED_AS_THEY_ARE
    return {torch.bfloat16: 1e-1, torch.float16: 2e-2}.get(model.dtype, EXACT)


@torch.no_grad()
def compare(model: PreTrainedModel, file: GGUFFile, ids: Sequence[int], seconds: float = SECONDS) -> SelfCheck:
    """The model's forward of the first of `ids` against the file's own, in about `seconds` at most."""
    begun = time.monotonic()
    tokens = torch.tensor(ids[:_TOKENS])
    inputs, logits = _run(model, tokens)
    vocabulary = torch.arange(0, logits.shape[-1], math.ceil(logits.shape[-1] / _LOGITS))
    reference = Reference(file)
    layers = reference.layers
    order = list(spread(layers))
    x = reference.embed(tokens)
    left = begun + seconds - time.monotonic()
    tried = time.monotonic()
    first = reference.layer(0, x)
    each = max(time.monotonic() - tried, 1e-9)
    followed = set(order[: max(2, int(left / each))])
    hidden, started = 0.0, x
    x = first
    for at in range(1, layers):
        if at in followed and at < layers - 1 and time.monotonic() > begun + seconds:
            followed.remove(at)
        if at in followed:
            if at - 1 not in followed:
                x = started = inputs[at]
            x = reference.layer(at, x)
        elif at - 1 in followed:
            hidden = max(hidden, _apart(x, inputs[at], started))
    theirs = reference.logits(x, vocabulary)
    apart = (logits[:, vocabulary].float() - theirs).abs().amax(1) / theirs.abs().max()
    weights = weights_of(model)
    return SelfCheck(
        weights=weights,
        # rounding may turn a tie between experts, or what a window just holds, for some of the tokens
        logits=float(apart.median() if weights == "packed" else apart.max()),
        hidden=hidden,
        bound=_bound(model),
        layers=len(followed),
        of=layers,
        seconds=round(time.monotonic() - begun, 1),
    )


def check_once(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: ModelFolder, source: Path, progress: Progress
) -> None:
    """Compare the model just loaded from `source`, a conversion in `folder`, unless that was done; keep the result.

    Raises `ModelFileError` if it does not pass, and then removes the conversion.
    """
    if weights_of(model) in kept_checks(source):
        return
    progress("check", 0, 1)
    file = GGUFFile(folder.gguf)
    if not Reference.covers(file):
        return
    found = compare(model, file, tokenizer(TEXT, add_special_tokens=True)["input_ids"])
    if found.passed:
        change_mark(source, "checks", {found.weights: found.as_json()})
        progress("check", 1, 1)
        return
    shutil.rmtree(source, ignore_errors=True)
    if found.weights == "packed":
        shutil.rmtree(folder.packed, ignore_errors=True)
    raise ModelFileError(failure(folder.gguf, found))


def failure(name: object, found: SelfCheck) -> str:
    """Why a model is refused."""
    return (
        f"{name} is refused: as it was converted it does not compute what its own weights say, by "
        f"{max(found.logits, found.hidden):.1e} where rounding explains {found.bound:.0e}; "
        "fetch it again, or take another file of the model, and please report it."
    )


def perplexity(logits: Tensor, ids: Sequence[int]) -> float:
    """Of `ids` but the first, by the logits [tokens, vocabulary] of each."""
    loss = torch.nn.functional.cross_entropy(logits[:-1].float(), torch.tensor(ids[1:]))
    return math.exp(min(float(loss), 700.0)) if math.isfinite(float(loss)) else math.inf


def _run(model: PreTrainedModel, ids: Tensor) -> tuple[list[Tensor], Tensor]:
    """What goes into each layer [tokens, hidden], and the logits [tokens, vocabulary]."""
    inputs: list[Tensor] = []

    def keep(module: torch.nn.Module, args: tuple[Tensor, ...], kwargs: dict[str, Tensor]) -> None:
        inputs.append((args[0] if args else kwargs["hidden_states"])[0].float())

    hooks = [layer.register_forward_pre_hook(keep, with_kwargs=True) for layer in model.model.layers]
    try:
        return inputs, model(input_ids=ids[None], use_cache=False).logits[0]
    finally:
        for hook in hooks:
            hook.remove()


def _apart(x: Tensor, theirs: Tensor, started: Tensor) -> float:
    """How far two hidden states are apart, as a part of what the layers between added; the median over tokens."""
    added = (theirs - started).norm(dim=1).clamp_min(1e-30)
    return float(((x - theirs).norm(dim=1) / added).median())
