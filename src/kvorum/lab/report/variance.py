"""The decomposition of a study's variance as Markdown."""

from __future__ import annotations

from kvorum.lab.statistics.intervals import Interval
from kvorum.lab.statistics.variance import Decomposition


def as_markdown(found: Decomposition) -> str:
    """Tables in words that say what they are of."""

    def line(name: str, value: Interval | None) -> str:
        return "" if value is None else f"| {name} | {value.value:.3f} | {value.low:.3f} to {value.high:.3f} |"

    lines = [
        f"R² of the mean scores of {found.configurations} configurations, {found.items} items, {found.runs} runs; 95% "
        "intervals by a bootstrap over items. Shares are order-free (Shapley) and sum up to the whole.",
        "",
        "| | R² | 95% |",
        "|---|---|---|",
        line("log tokens alone", found.tokens_alone),
        line("all factors", found.r2),
        *(
            line(f"share of {'log tokens' if name == 'tokens' else name}", share)
            for name, share in found.shares.items()
        ),
        "",
        "| score per doubling of tokens | | 95% |",
        "|---|---|---|",
        line("least squares", found.slope),
        line("instrumented by the assigned budget", found.instrumented),
    ]
    if found.left_out:
        lines += ["", "| task left out | R² on it by a fit on the others |", "|---|---|"]
        lines += [f"| {task} | {value:.2f} |" for task, value in found.left_out.items()]
    if found.mixed:
        lines += ["", "| single runs, logistic mixed model of solved | |", "|---|---|"]
        lines += [f"| {name} | {value:.3f} |" for name, value in found.mixed.items()]
    lines += ["", *found.notes]
    return "\n".join(line for line in lines if line is not None).replace("\n\n\n", "\n\n").strip() + "\n"
