"""Pictures of a study, as SVG text."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from kvorum.lab import need
from kvorum.lab.statistics.compare import ArmScore, Comparison
from kvorum.lab.statistics.intervals import Interval

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from kvorum.lab.measure.attention_shares import Shares

AXES = {"ticks": "critical-path ticks", "tokens": "decode-equivalent tokens", "seconds": "wall seconds of a run"}


def against(arms: list[ArmScore], floor: float) -> str:
    """Score of every arm on a task against ticks, tokens and seconds, with 95% intervals; the random floor dotted.

    A line joins an arm's budgets, one for each team size.
    """
    sizes = {arm.where[2] for arm in arms}
    lines: dict[str, list[ArmScore]] = {}
    for arm in sorted(arms, key=lambda arm: (arm.arm, arm.where[2:])):
        lines.setdefault(f"{arm.arm}, {arm.where[2]}" if len(sizes) > 1 else arm.arm, []).append(arm)
    figure = need("matplotlib.figure").Figure(figsize=(11, 3.2))  # no pyplot: nothing global, no window
    axes = figure.subplots(1, 3, sharey=True)
    for axis, (name, label) in zip(axes, AXES.items(), strict=True):
        for at, (label_of, points) in enumerate(lines.items()):
            style = {"marker": "osv^D<>phX*"[at % 11], "color": f"C{at % 10}", "capsize": 2, "lw": 1, "ms": 5}
            values, ends = _bars([arm.score for arm in points])
            axis.errorbar([getattr(arm, name) for arm in points], values, ends, label=label_of, **style)
        axis.axhline(floor, color="gray", ls=":", lw=1)
        axis.set_xlabel(label)
        axis.set_ylim(-0.03, 1.03)
    axes[0].set_ylabel("mean score")
    figure.legend(
        *axes[0].get_legend_handles_labels(), loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=8, frameon=False
    )
    return _svg(figure)


def forest(found: list[Comparison], margin: float) -> str:
    """Differences of the shared-cache arm from every other, with 95% intervals; the margin of sameness shaded."""
    several = len({c.where[0] for c in found}) > 1
    places = [
        f"{f'{model}, ' if several else ''}{task}, {team} workers, {ticks} ticks"
        for model, task, team, ticks in (c.where for c in found)
    ]
    labels = [f"{place}: {c.one} − {c.other}" for place, c in zip(places, found, strict=True)]
    return labelled([c.pair.difference for c in found], labels, ["C0"] * len(found), margin)


def labelled(found: Sequence[Interval], labels: Sequence[str], colours: Sequence[str], margin: float = 0.1) -> str:
    """Differences from the first, on top, to the last, with 95% intervals; within ``margin`` of nothing is shaded."""
    figure = need("matplotlib.figure").Figure(figsize=(8, 0.8 + 0.24 * len(found)))
    axis = figure.subplots()
    for at, (one, colour) in enumerate(zip(reversed(found), reversed(colours), strict=True)):
        values, ends = _bars([one])
        axis.errorbar(values, [at], xerr=ends, fmt="o", color=colour, ms=4, lw=1, capsize=2)
    axis.axvspan(-margin, margin, color="gray", alpha=0.15, lw=0)
    axis.axvline(0, color="black", lw=0.6)
    axis.set_yticks(range(len(found)))
    axis.set_yticklabels(labels[::-1], fontsize=7)
    axis.set_ylim(-0.6, len(found) - 0.4)
    axis.set_xlabel("difference of mean scores")
    return _svg(figure)


def panels(arms: Mapping[str, Mapping[str, Interval]]) -> str:
    """Of each measure a panel with every arm's mean and its 95% interval."""
    names = list(dict.fromkeys(name for values in arms.values() for name in values))
    figure = need("matplotlib.figure").Figure(figsize=(2.8 * len(names), 0.8 + 0.28 * len(arms)))
    axes = figure.subplots(1, len(names), sharey=True, squeeze=False)[0]
    for axis, name in zip(axes, names, strict=True):
        shown = [(at, values[name]) for at, values in enumerate(arms.values()) if name in values]
        values, ends = _bars([one for _, one in shown])
        axis.errorbar(values, [at for at, _ in shown], xerr=ends, fmt="o", color="C0", ms=4, lw=1, capsize=2)
        axis.set_xlabel(name)
        axis.grid(axis="x", lw=0.3)
    axes[0].set_yticks(range(len(arms)), list(arms), fontsize=8)
    axes[0].invert_yaxis()
    return _svg(figure)


def heat(
    workers: list[str],
    owners: list[str],
    shares: Shares,
    names: list[str],
    by_layer: Shares,
    ticks: list[int],
    by_tick: Shares,
) -> str:
    """Shares of attention: ``[workers, owners]`` with numbers; of each named pair ``[pairs, layers]``, and over
    ``ticks`` ``[pairs, ticks]``, on one scale."""
    size = max(len(names) * 0.22, len(workers) * 0.42, 1.6)
    figure = need("matplotlib.figure").Figure(figsize=(13, size + 1.1), layout="constrained")
    axes = figure.subplots(1, 3, width_ratios=[1.1, 1.4, 1.4])
    axes[0].imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for row, line in enumerate(shares):
        for column, share in enumerate(line):
            if share == share:
                ink = "white" if share > 0.6 else "black"
                axes[0].text(column, row, f"{share:.2f}", ha="center", va="center", fontsize=8, color=ink)
    axes[0].set_xticks(range(len(owners)), [owner or "nobody" for owner in owners], fontsize=8, rotation=30)
    axes[0].set_yticks(range(len(workers)), workers, fontsize=8)
    axes[0].set_title("whose words each attends to", fontsize=9)
    high = max(float(part[part == part].max(initial=0.0)) for part in (by_layer, by_tick)) or 1.0
    for axis, part, title in ((axes[1], by_layer, "by layer"), (axes[2], by_tick, "by tick")):
        image = axis.imshow(part, cmap="magma", vmin=0, vmax=high, aspect="auto", interpolation="nearest")
        axis.set_yticks(range(len(names)), names, fontsize=7)
        axis.set_title(f"to the others' words, {title}", fontsize=9)
    axes[1].set_xlabel("layer", fontsize=8)
    shown = range(0, len(ticks), max(1, len(ticks) // 8))
    axes[2].set_xticks(shown, [str(ticks[at]) for at in shown], fontsize=8)
    axes[2].set_xlabel("tick", fontsize=8)
    figure.colorbar(image, ax=axes[2], label="share")
    return _svg(figure)


def _bars(found: Sequence[Interval]) -> tuple[list[float], list[list[float]]]:
    """The values of intervals, and how far their ends lie below and above these."""
    below, above = [one.value - one.low for one in found], [one.high - one.value for one in found]
    return [one.value for one in found], [below, above]


def _svg(figure: Figure) -> str:
    out = io.StringIO()
    with need("matplotlib").rc_context({"svg.hashsalt": "kvorum", "svg.fonttype": "none"}):
        figure.savefig(out, format="svg", bbox_inches="tight", metadata={"Date": None, "Creator": None})
    text = out.getvalue()
    return text[text.index("<svg") :]
