"""`kvorum programs`: which programs there are, and what the parameters of one may be."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from kvorum.cli.program_list import check_name, described
from kvorum.cli.tables import show_table
from kvorum.own_programs import is_own
from kvorum.wording import plural

if TYPE_CHECKING:
    from argparse import Namespace

    from kvorum.jsontypes import Json, JsonObject


def programs(args: Namespace) -> int:
    """List the programs, or one with its parameters."""
    if args.name is None:
        _list(args.json)
        return 0
    check_name(args.name)
    if is_own(args.name):
        from kvorum.programs import load

        told: JsonObject = load(args.name).as_dict()
    else:
        told = described()[args.name]
    if args.json:
        print(json.dumps(told))
    else:
        _show(told, args.name)
    return 0


def _list(as_json: bool) -> None:
    known = described()
    if as_json:
        print(json.dumps(list(known.values())))
        return
    table = Table("program", "workers", "what it is", box=None, pad_edge=False)
    for program in known.values():
        table.add_row(str(program["name"]), str(program["workers"]), str(program["summary"]))
    show_table(table)
    print("\nkvorum programs NAME shows one's parameters.\nkvorum solve -p FILE.py:NAME runs one of your own.")


def _show(program: JsonObject, name: str) -> None:
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(width=120, highlight=False)
    console.print(Text.assemble((str(program["name"]), "bold"), f": {program['summary']}"))
    default, most = program["workers"], program["most_workers"]
    assert isinstance(default, int)
    workers = "1 worker" if default == most else f"{plural(default, 'worker')} unless -w says otherwise, at most {most}"
    console.print(Text(workers + ("; more may join while it runs" if program["joins"] else ""), "dim"))
    params = program["params"]
    if isinstance(params, list) and params:
        console.print(f"\nkvorum solve -p {name} --param NAME=VALUE, where NAME is:", markup=False)
        for parameter in params:
            _show_parameter(parameter, console)


def _show_parameter(parameter: JsonObject, console: Console) -> None:
    default = "" if parameter["kind"] == "local" else f"; default: {_plain(parameter['default'])}"
    words = Text(f"{parameter['help'] or 'It has no description.'}\n").append(f"{parameter['allowed']}{default}", "dim")
    if console.width < 60:
        console.print(Text(str(parameter["name"]), "bold"))
        console.print(Padding(words, (0, 0, 0, 2)))
        return
    grid = Table.grid(padding=(0, 2, 0, 2))
    grid.add_column(width=18, overflow="fold")
    grid.add_column()
    grid.add_row(Text(str(parameter["name"]), "bold"), words)
    console.print(grid)


def _plain(value: Json) -> str:
    """A default as one would type it."""
    if value is None or isinstance(value, bool):
        return str(value).lower()
    typed = isinstance(value, str) and value.strip() and value.isprintable()
    return str(value) if typed else json.dumps(value, ensure_ascii=False)
