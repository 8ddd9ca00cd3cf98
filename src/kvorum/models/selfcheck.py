"""Whether a converted model computes what its GGUF file says: its logits on a fixed text against `gguf.reference`.

Every layer is followed through the reference where there is time; where there is not, as many as there is time for,
spread over the model, and between them the model's own hidden states are taken. Windows are made narrower on both
sides, by as many tokens, so that the text leaves them. What a random or damaged model shows besides is the perplexity
of a text that ships (`perplexity`).

Not covered: what shows at far positions alone, and kvorum's own attention, which `exactness` compares at every load and
`compare_with_transformers` on the whole text.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from kvorum.errors import ModelFileError
from kvorum.jsontypes import Json
from kvorum.models.cache_folder import ModelFolder, dropping, keep_check, kept_checks
from kvorum.models.gguf.file import GGUFFile
from kvorum.models.gguf.reference import Reference, spread
from kvorum.models.packed.layers import PackedLinear
from kvorum.models.progress import Progress

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

TEXT = " ".join(Path(__file__).with_suffix(".txt").read_text(encoding="utf-8").split())
SECONDS = 8.0
WINDOW = 16
"""How wide windows are at most while a model is checked, in tokens: most of those that are compared leave it."""
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


def window_of(model: PreTrainedModel) -> int:
    """How many tokens the layers of a model see that do not see all; 0: all layers do."""
    return getattr(model.config.get_text_config(), "sliding_window", None) or 0


def beyond(model: PreTrainedModel) -> int:
    """By how many tokens a model's window is wider than is looked at here."""
    return max(0, window_of(model) - WINDOW)


@contextmanager
def narrower(model: PreTrainedModel, tokens: int) -> Iterator[None]:
    """Within the context a model's windows are by so many tokens narrower, but no less than one token wide."""
    wide = window_of(model)
    modules: list[Any] = [module for module in model.modules() if getattr(module, "sliding_window", None) == wide]
    held = [model.config.get_text_config(), *modules] if wide and tokens else []
    try:
        for each in held:
            each.sliding_window = max(1, wide - tokens)
        yield
    finally:
        for each in held:
            each.sliding_window = wide


@torch.no_grad()
def compare(model: PreTrainedModel, file: GGUFFile, ids: Sequence[int], seconds: float = SECONDS) -> SelfCheck:
    """The model's forward of the first of `ids` against the file's own, in about `seconds` at most."""
    begun = time.monotonic()
    tokens = torch.tensor(ids[:_TOKENS])
    reference = Reference(file)
    reference.narrower = max(beyond(model), reference.window - WINDOW)
    with narrower(model, reference.narrower):
        inputs, logits = _run(model, tokens)
    last = reference.layers - 1
    followed = {0, min(1, last), last}
    hidden, x = 0.0, reference.embed(tokens)
    started, each = x, 0.0
    for at in range(reference.layers):
        left = begun + seconds - time.monotonic()
        if at == 2:  # the first takes longer: nothing is in memory yet
            followed.update(list(spread(reference.layers))[: max(0, int(left / each))])
        if at in followed and 0 < at < last and left < 2 * each:  # the last and the logits are to come
            followed.remove(at)
        if at in followed:
            if at and at - 1 not in followed:
                x = started = inputs[at]
            since = time.monotonic()
            x = reference.layer(at, x)
            each = max(time.monotonic() - since, 1e-9)
        elif at - 1 in followed:
            hidden = max(hidden, _apart(x, inputs[at], started))
    vocabulary = torch.arange(0, logits.shape[-1], math.ceil(logits.shape[-1] / _LOGITS))
    apart = _distance(logits[:, vocabulary], reference.logits(x, vocabulary), model)
    return _found(model, apart, hidden, len(followed), begun)


@torch.no_grad()
def compare_with_transformers(model: PreTrainedModel, logits: Tensor, plain: PreTrainedModel, ids: Tensor) -> SelfCheck:
    """kvorum's logits [tokens, vocabulary] of `ids`, by its attention and runner over `model`, against `plain`'s own
    forward: the same model of transformers, its weights as the folder has them; windows of both made narrower."""
    begun = time.monotonic()
    with narrower(plain, beyond(plain)):
        theirs = plain(input_ids=ids[None], use_cache=False).logits[0].float()
    layers = int(plain.config.get_text_config().num_hidden_layers)
    return _found(model, _distance(logits, theirs, model), 0.0, layers, begun)


def _distance(logits: Tensor, theirs: Tensor, model: PreTrainedModel) -> float:
    """The largest difference of logits [tokens, n], as a part of the largest of `theirs`."""
    apart = (logits.float() - theirs).abs().amax(1) / theirs.abs().max()
    # rounding may turn a tie between experts, or what a window just holds, for some of the tokens
    return float(apart.median() if weights_of(model) == "packed" else apart.max())


def _found(model: PreTrainedModel, logits: float, hidden: float, layers: int, begun: float) -> SelfCheck:
    of, seconds = int(model.config.get_text_config().num_hidden_layers), round(time.monotonic() - begun, 1)
    return SelfCheck(weights_of(model), logits, hidden, _bound(model), layers, of, seconds)


def check_once(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: ModelFolder, source: Path, progress: Progress
) -> None:
    """Compare the model just loaded from `source`, a conversion in `folder`, unless that was done; keep the result.

    Raises `ModelFileError` if it does not pass, `UnsupportedModel` if it cannot be exact (`probe`), and then removes
    the conversion.
    """
    if weights_of(model) in kept_checks(source):
        return
    progress("check", 0, 1)
    file = GGUFFile(folder.gguf)
    if not Reference.covers(file):
        return
    from kvorum.models.probe import probe  # which imports transformers, as the model has done already

    with dropping(source, *([folder.packed] if weights_of(model) == "packed" else [])):
        found = compare(model, file, tokenizer(TEXT, add_special_tokens=True)["input_ids"])
        if not found.passed:
            raise ModelFileError(failure(folder.gguf, found))
        probe(model)
    keep_check(source, found.weights, found.as_json())
    progress("check", 1, 1)


def failure(name: object, found: SelfCheck, converted: str = "as it was converted") -> str:
    """Why a model is refused."""
    return (
        f"{name} is refused: {converted} it does not compute what its own weights say, by "
        f"{max(found.logits, found.hidden):.1e} where rounding explains {found.bound:.0e}; "
        "fetch it again, or take another file of it, and please report it."
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
