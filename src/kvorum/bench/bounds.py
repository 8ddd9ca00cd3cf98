"""The bounds that kvorum has set itself, beside what was measured.

They are for two CPU cores with AVX-512 and VNNI; each row names where its figure is the worst of what was measured.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

from kvorum.bench.result import OURS, WITHOUT_MODEL, Bench

Figures: TypeAlias = "Sequence[tuple[float | None, str]]"
"""What was measured, and where."""

SMALL, CODER = "smollm2-135m", "qwen2.5-coder-1.5b"
MACHINE = "two cores with AVX-512 and VNNI"


@dataclass(frozen=True, slots=True)
class Bound:
    """``figure``: the worst that was measured, None where nothing was, found at ``where``. ``limit``: at least that if
    ``least``, at most otherwise."""

    what: str
    limit: float
    least: bool
    unit: str
    figure: float | None
    where: str

    @property
    def met(self) -> bool | None:
        """Whether the figure keeps the bound; None where there is none."""
        if self.figure is None:
            return None
        return self.figure >= self.limit if self.least else self.figure <= self.limit


def bounds(bench: Bench, model: str) -> list[Bound]:
    """All bounds that apply to ``model``."""
    found: list[Bound] = []

    def add(what: str, limit: float, figures: Figures, *, least: bool = False, unit: str = "") -> None:
        known = [(figure, where) for figure, where in figures if figure is not None]
        figure, where = (min if least else max)(known, default=(None, ""))
        found.append(Bound(what, limit, least, unit, figure, where))

    def in_every_context(ratio: Callable[[int], float | None]) -> Figures:
        return [(ratio(context), f"{context:,} tokens") for context in bench.contexts()]

    over = _OVER_LLAMA.get(model, {})
    for workers, limit in over.items():
        rates = in_every_context(partial(bench.over, "llama.cpp", workers=workers))
        add(f"W={workers}, tokens/s over llama.cpp", limit, rates, least=True)
    if model == SMALL:
        rates = in_every_context(partial(bench.over, "transformers", workers=8))
        add("W=8, tokens/s over transformers", 4.0, rates, least=True)
    add("a tick of W=8 over W=1", 1.4, [(bench.growth(OURS, 1024, 8), "1,024 tokens")])
    add("attention of W=8 over W=1", 1.6, [(bench.attention_growth(8), "4,096 tokens")])
    add("256 spans over one", 1.15, [(bench.spans_over(256), "2,048 tokens")])
    if over:
        rates = in_every_context(partial(bench.prefill_over, "llama.cpp"))
        add("prefill tokens/s over llama.cpp", 1.5, rates, least=True)
    if model == SMALL:
        start = None if bench.start is None else bench.start.median
        add("first token of a later kvorum solve", 6.0, [(start, "")], unit=" s")
    if model in _AFTER_TORCH:
        add("first token behind `import torch`", _AFTER_TORCH[model], bench.after_torch(), unit=" s")
    quick = [(bench.starts[name].median, name) for name in WITHOUT_MODEL if name in bench.starts]
    add("what needs no model", 0.25, quick, unit=" s")
    losses = [(100 * row.loss, f"{row.at_once} tokens a forward") for row in bench.quality]
    add("perplexity over exact mode", 2.0, losses, unit="%")
    return found


_AFTER_TORCH = {SMALL: 1.0, CODER: 2.5}
_OVER_LLAMA = {SMALL: {1: 0.6, 8: 2.0, 16: 2.5}, CODER: {1: 0.6, 4: 1.3, 8: 2.0, 16: 3.0}}
