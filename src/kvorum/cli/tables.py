"""Tables for people: as wide as they need in a pipe; in a terminal that is too narrow, each row as a small list."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text


def show_table(table: Table) -> None:
    """Print a table; in a terminal that is too narrow for it, each row as a small list."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=240)
    if console.measure(table).maximum <= console.width:
        console.print(table)
        return
    heads = [str(column.header) for column in table.columns]
    cells = [list(column.cells) for column in table.columns]
    for row in range(table.row_count):
        console.print(Text(str(cells[0][row]), "bold"))
        for head, column in zip(heads[1:], cells[1:], strict=True):
            words = ", ".join(str(column[row]).splitlines())
            grid = Table.grid(padding=(0, 1, 0, 2))
            grid.add_column(no_wrap=True)
            grid.add_column()
            grid.add_row(Text(head.split(" and ")[0], "dim"), words)
            console.print(grid)
