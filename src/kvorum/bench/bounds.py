"""The bounds that kvorum has set itself for ticks, prefill, start and the loss of the fast mode.

They are for two CPU cores with AVX2, or with AVX-512 and VNNI, where a core multiplies two to four times as much a
cycle; each row names where its figure is the worst of what was measured.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from kvorum.bench.bound import CODER, SMALL, Bound, Figures
from kvorum.bench.result import OURS, WITHOUT_MODEL, About, Bench

_AFTER_TORCH = {SMALL: 1.0, CODER: 2.5}
_OVER_LLAMA = {SMALL: {8: 2.0, 16: 2.5}, CODER: {4: 1.3, 8: 2.0, 16: 3.0}}
_ONE_WORKER, _OF_BANDWIDTH = 1.2, 92.0
_ONE = "W=1, tokens/s over llama.cpp, or share of the bandwidth"


def machine_meant(about: About) -> str:
    """The machine that the bounds are set for, of the two that there are, by the kernels of this one."""
    return f"two cores with {'AVX-512 and VNNI' if _wide(about) else 'AVX2'}"


def bounds(bench: Bench, about: About) -> list[Bound]:
    """All bounds that apply to the model, on the kernels that it was measured with."""
    found: list[Bound] = []

    def add(what: str, limit: float, figures: Figures, *, least: bool = False, unit: str = "") -> None:
        found.append(Bound.worst(what, limit, figures, least=least, unit=unit))

    def in_every_context(ratio: Callable[[int], float | None]) -> Figures:
        return [(ratio(context), f"{context:,} tokens") for context in bench.contexts()]

    model = about.model
    if model in _OVER_LLAMA:
        found.append(_one_worker(bench, about))
        for workers, limit in _OVER_LLAMA[model].items():
            rates = in_every_context(partial(bench.over, "llama.cpp", workers=workers))
            add(f"W={workers}, tokens/s over llama.cpp", limit, rates, least=True)
    if model == SMALL:
        rates = in_every_context(partial(bench.over, "transformers", workers=8))
        add("W=8, tokens/s over transformers", 4.0, rates, least=True)
    if _wide(about):
        add("a tick of W=8 over W=1", 1.4, [(bench.growth(OURS, 1024, 8), "1,024 tokens")])
    add("attention of W=8 over W=1", 1.6 if _wide(about) else 2.2, [(bench.attention_growth(8), "4,096 tokens")])
    add("256 spans over one", 1.15, [(bench.spans_over(256), "2,048 tokens")])
    if model in _OVER_LLAMA:
        rates = in_every_context(partial(bench.prefill_over, "llama.cpp"))
        add("prefill tokens/s over llama.cpp", 2.5, rates, least=True)
    if model in _AFTER_TORCH:
        add("first token behind `import torch`", _AFTER_TORCH[model], bench.after_torch(), unit=" s")
    quick = [(bench.starts[name].median, name) for name in WITHOUT_MODEL if name in bench.starts]
    add("what needs no model", 0.25, quick, unit=" s")
    losses = [(100 * row.loss, f"{row.at_once} tokens a forward") for row in bench.quality]
    add("perplexity over exact mode", 2.0, losses, unit="%")
    return found


def _one_worker(bench: Bench, about: About) -> Bound:
    """Faster than llama.cpp, or nearly as fast as memory can be read; beside the context where that is furthest off."""
    in_contexts = []
    for context in bench.contexts():
        if (team := bench.tick(OURS, context, 1)) is not None:
            over, where = bench.over("llama.cpp", context, 1), f"{context:,} tokens"
            share = Bound("", _OF_BANDWIDTH, True, "%", 100 * about.share(team), where)
            in_contexts.append(Bound(_ONE, _ONE_WORKER, True, "", over, where, share))
    none = Bound("", _OF_BANDWIDTH, True, "%", None, "")
    return min(in_contexts, key=_nearness, default=Bound(_ONE, _ONE_WORKER, True, "", None, "", none))


def _nearness(bound: Bound) -> tuple[int, float]:
    """First what is missed, then what is not known, then what is met; in each, by how far it is from its limit."""
    both = (bound, bound.other)
    nearest = max((one.figure or 0.0) / one.limit for one in both if one is not None)
    return (False, None, True).index(bound.met), nearest


def _wide(about: About) -> bool:
    return "kernels avx512" in about.machine.capability
