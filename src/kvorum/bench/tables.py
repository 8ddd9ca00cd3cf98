"""What the reports of a bench have in common: their first line, and the form of their tables."""

from __future__ import annotations

from rich.table import Table

from kvorum.bench.result import Machine


def headline(model: str, machine: Machine) -> str:
    """What was measured, and on what."""
    return f"{model} on {machine.processor}: {machine.threads} threads, {machine.capability}, {machine.date}"


def figures_table(title: str, *columns: str, words: int = 1) -> Table:
    """The first columns are ``words``, on the left; numbers are on the right."""
    table = Table(title=f"\n{title}", title_justify="left", box=None, padding=(0, 1, 0, 0), pad_edge=False)
    for at, head in enumerate(columns):
        if at < words:
            table.add_column(head)
        else:
            table.add_column(head, justify="right", no_wrap=True)
    return table
