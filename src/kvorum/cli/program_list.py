"""What programs there are, for those who will not wait for torch: lists, completion, and a name that is mistyped.

Names are those of the modules in `kvorum.programs` and of the entry points of installed packages. What programs declare
is kept in the cache folder, as `Program.as_dict` says it, until a file of kvorum or an installed package changes.
"""

from __future__ import annotations

import json
import os
from importlib.metadata import entry_points, version
from importlib.util import find_spec
from pathlib import Path
from pkgutil import iter_modules

import kvorum
from kvorum.errors import UnknownName
from kvorum.jsontypes import JsonObject
from kvorum.own_programs import GROUP, is_own
from kvorum.wording import unknown


def program_names() -> list[str]:
    """The names of all programs. Imports none of them."""
    spec = find_spec("kvorum.programs")
    assert spec is not None
    built_in = [module.name for module in iter_modules(spec.submodule_search_locations) if module.name != "own"]
    return sorted([*built_in, *(point.name for point in entry_points(group=GROUP))])


def check_name(name: str) -> None:
    """Raises UnknownName with the near ones. An own program is not looked for yet."""
    if not is_own(name) and name not in (known := program_names()):
        raise UnknownName(unknown("program", name, known, also="or FILE.py:NAME"))


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
