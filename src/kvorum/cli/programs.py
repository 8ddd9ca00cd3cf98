"""`kvorum programs`: which programs there are, and what the parameters of one may be. Nobody waits for torch.

Names are those of the modules in `kvorum.programs` and of the entry points of installed packages. What programs declare
is kept in the cache folder, as `Program.as_dict` says it, until a file of kvorum or an installed package changes.
"""

from __future__ import annotations

import json
import os
from argparse import Namespace
from importlib.metadata import entry_points, version
from pathlib import Path
from pkgutil import iter_modules

import kvorum
from kvorum.jsontypes import Json, JsonObject
from kvorum.own_program_names import GROUP, is_own
from kvorum.wording import check_known, plural


def programs(args: Namespace) -> int:
    """List the programs, or one with its parameters."""
    if args.name is None:
        _list(args.json)
        return 0
    check_name(args.name)
    if is_own(args.name):
        from kvorum.programs import load

        program: JsonObject = load(args.name).as_dict()
    else:
        program = described()[args.name]
    if args.json:
        print(json.dumps(program))
    else:
        _show(program, args.name)
    return 0


def _list(as_json: bool) -> None:
    known = described()
    if as_json:
        print(json.dumps(list(known.values())))
        return
    from rich.table import Table

    from kvorum.cli.tables import show_table

    table = Table("program", "workers", "what it is", box=None, pad_edge=False)
    for program in known.values():
        table.add_row(str(program["name"]), str(program["workers"]), str(program["summary"]))
    show_table(table)
    print("\nkvorum programs NAME shows one's parameters.\nkvorum solve -p FILE.py:NAME runs one of your own.")


def _show(program: JsonObject, name: str) -> None:
    from rich.console import Console
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(width=120, highlight=False)
    console.print(Text.assemble((str(program["name"]), "bold"), f": {program['summary']}"))
    default, most, params = program["workers"], program["most_workers"], program["params"]
    assert isinstance(default, int)
    assert isinstance(params, list)
    workers = plural(default, "worker") + ("" if default == most else f" unless -w says otherwise, at most {most}")
    console.print(Text(workers + ("; more may join while it runs" if program["joins"] else ""), "dim"))
    if params:
        console.print(f"\nkvorum solve -p {name} --param NAME=VALUE, where NAME is:", markup=False)
    for parameter in params:
        default = "" if parameter["kind"] == "local" else f"; default: {_plain(parameter['default'])}"
        words = Text(f"{parameter['help'] or 'It has no description.'}\n")
        words.append(f"{parameter['allowed']}{default}", "dim")
        called = Text(parameter["name"], "bold")
        if console.width < 60:
            console.print(called)
            console.print(Padding(words, (0, 0, 0, 2)))
            continue
        grid = Table.grid(padding=(0, 2, 0, 2))
        grid.add_column(width=18, overflow="fold")
        grid.add_column()
        grid.add_row(called, words)
        console.print(grid)


def _plain(value: Json) -> str:
    """A default as one would type it."""
    if value is None or isinstance(value, bool):
        return str(value).lower()
    typed = isinstance(value, str) and value.strip() and value.isprintable()
    return str(value) if typed else json.dumps(value, ensure_ascii=False)


# -- which there are -----------------------------------------------------------------------------------------------


def program_names() -> list[str]:
    """The names of all programs. Imports none of them."""
    folder = Path(kvorum.__file__).with_name("programs")
    built_in = [module.name for module in iter_modules([str(folder)]) if module.name != "own"]
    return sorted([*built_in, *(point.name for point in entry_points(group=GROUP))])


def check_name(name: str) -> None:
    """Raises UnknownName with the near ones. An own program is not looked for yet."""
    if not is_own(name):
        check_known("program", name, program_names(), also="or FILE.py:NAME")


def described(*, wait: bool = True) -> dict[str, JsonObject]:
    """What every program declares, by name. ``wait``: import torch and the programs where it is not kept already."""
    from kvorum.models.cache_folder import cache_root

    stamp, kept = _stamp(), cache_root() / "programs.json"
    try:
        found = json.loads(kept.read_text(encoding="utf-8"))
        if found["stamp"] == stamp:
            return {str(program["name"]): program for program in found["programs"]}
    except (OSError, ValueError, KeyError, TypeError):
        pass
    if not wait:
        return {}
    from kvorum.programs import REGISTRY

    programs = [program.as_dict() for program in REGISTRY.values()]
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        fresh = kept.with_suffix(f".{os.getpid()}")
        fresh.write_text(json.dumps({"stamp": stamp, "programs": programs}), encoding="utf-8")
        fresh.replace(kept)
    except OSError:
        pass  # it is only the time of the next import
    return {str(program["name"]): program for program in programs}


def _stamp() -> list[str]:
    """What changes when a declaration may have changed."""
    files = sorted(Path(kvorum.__file__).parent.rglob("*.py"))
    newest = max(file.stat().st_mtime_ns for file in files)
    others = [f"{point.value} {point.dist.version if point.dist else ''}" for point in entry_points(group=GROUP)]
    return [version("kvorum"), str(Path(kvorum.__file__).parent), f"{len(files)} files, newest {newest}", *others]
