"""The bounds that kvorum has set itself, beside what was measured.

They are for two CPU cores with AVX-512 and VNNI; each row names where its figure is the worst of what was measured.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from kvorum.bench.result import Bench

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
    over = _OVER_LLAMA.get(model, {})
    found = [
        _worst(f"W={count}, tokens/s over llama.cpp", limit, True, bench, _peer(bench, "llama.cpp", count))
        for count, limit in over.items()
    ]
    if model == SMALL:
        found.append(_worst("W=8, tokens/s over transformers", 4.0, True, bench, _peer(bench, "transformers", 8)))
    growth = bench.growth("kvorum", 1024, 8)
    found.append(_one("a tick of W=8 over W=1", 1.4, False, growth, "1,024 tokens"))
    found.append(_one("attention of W=8 over W=1", 1.6, False, bench.attention_growth(8), "4,096 tokens"))
    found.append(_one("256 spans over one", 1.15, False, bench.spans_over(256), "2,048 tokens"))
    if over:
        rates = lambda context: bench.prefill_over("llama.cpp", context)  # noqa: E731
        found.append(_worst("prefill tokens/s over llama.cpp", 1.5, True, bench, rates))
    if model == SMALL:
        start = None if bench.start is None else bench.start.median
        found.append(_one("first token of a later kvorum solve", 6.0, False, start, "", " s"))
    worst = max(bench.quality, key=lambda row: row.loss, default=None)
    where = "" if worst is None else f"{worst.at_once} tokens a forward"
    found.append(
        _one("perplexity over exact mode", 2.0, False, None if worst is None else 100 * worst.loss, where, "%")
    )
    return found


_OVER_LLAMA = {SMALL: {1: 0.6, 8: 2.0, 16: 2.5}, CODER: {1: 0.6, 4: 1.3, 8: 2.0, 16: 3.0}}


def _peer(bench: Bench, peer: str, workers: int) -> Callable[[int], float | None]:
    return lambda context: bench.over(peer, context, workers)


def _worst(what: str, limit: float, least: bool, bench: Bench, figure: Callable[[int], float | None]) -> Bound:
    """The worst figure over the contexts."""
    known: Iterable[tuple[float, int]] = ((x, context) for context in bench.contexts() if (x := figure(context)))
    found = (min if least else max)(known, default=None)
    if found is None:
        return _one(what, limit, least, None, "")
    return _one(what, limit, least, found[0], f"{found[1]:,} tokens")


def _one(what: str, limit: float, least: bool, figure: float | None, where: str, unit: str = "") -> Bound:
    return Bound(what, limit, least, unit, figure, where if figure is not None else "")
