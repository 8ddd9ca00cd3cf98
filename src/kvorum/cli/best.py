"""`kvorum solve --best`: which program is likely to pay for a job, with what was measured of it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from kvorum.cli.arguments import choose_model, is_exact, load_options
from kvorum.jsontypes import Json

if TYPE_CHECKING:
    from argparse import Namespace

    from kvorum.lab.advice.advice import Advice

SURE = 0.5
"""A sort of which the model is less sure than that may as well be another one."""


def best(args: Namespace, job: str) -> int:
    """Say it; nothing is solved. Returns the exit code."""
    from kvorum.api import Engine
    from kvorum.lab.advice.advice import advise

    engine = Engine.load(choose_model(args.model, exact=is_exact(args)), **load_options(args))
    found = advise(engine, job)
    print(json.dumps(_as_json(found)) if args.json else _in_words(found, engine.name))
    return 0


def _in_words(found: Advice, model: str) -> str:
    sort = found.sort
    lines = [f"What this asks for: {sort.words} ({found.sure:.0%} sure)."]
    if found.sure < SURE:
        lines.append(f"  That is hardly more than a guess of {model}; -m takes a stronger model.")
    lines.append(f"{found.program} is likely to pay: {found.command}")
    if found.program == sort.program:
        lines.append(f"  {sort.gain}.")
    elif sort.program:
        lines.append(f"  {sort.program} is made for it, and did worse where it was measured.")
    else:
        lines.append("  one reply; no other program was measured to do better at such jobs.")
    lines.append(f"Measured with {found.model}:" if found.found else "Nothing was measured of such jobs.")
    lines += [f"  {one.program:10s} {one}" for one in found.found]
    if found.found and found.model != model:
        lines.append(f"  (nothing was measured with {model})")
    return "\n".join(lines)


def _as_json(found: Advice) -> dict[str, Json]:
    names = ("program", "kinds", "jobs", "score", "beside")
    return {
        "sort": found.sort.name,
        "sure": round(found.sure, 3),
        "program": found.program,
        "command": found.command,
        "model": found.model,
        "measured": [{name: getattr(one, name) for name in names} for one in found.found],
    }
