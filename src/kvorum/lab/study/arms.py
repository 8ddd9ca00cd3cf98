"""Arms of a study: a program over a channel, as the parameters that the program takes.

A channel is how the workers' words pass between them. The controls of a shared cache are channels too: the same team
whose blocks are hidden ("none"), another problem's ("mismatched"), "zeroed", "random", or encoded anew ("text").
"""

from __future__ import annotations

from typing import Any

from kvorum.errors import UnknownName
from kvorum.tasks.item import Item

CHANNELS: dict[str, dict[str, dict[str, Any]]] = {
    "solo": {"none": {}},
    "vote": {"none": {}},
    "hogwild": {name: {"channel": name} for name in ("cache", "text", "none", "mismatched", "zeroed", "random")},
    "relay": {
        "latent": {"think": "latent", "handover": "cache"},
        "cache": {"think": "text", "handover": "cache"},
        "text": {"think": "text", "handover": "text"},
        "none": {"arm": "none"},
        "mismatched": {"think": "latent", "arm": "mismatched"},
        "zeroed": {"think": "latent", "arm": "zeroed"},
        "random": {"think": "latent", "arm": "random"},
    },
    "network": {"text": {"channel": "text"}, "cache": {"channel": "cache"}},
    "consensus": {"text": {"channel": "text"}, "cache": {"channel": "cache"}},
}
"""Programs of a study; of each the channels, the first one the default, and the parameters that make them."""

REAL = {"hogwild": "cache", "relay": "latent", "network": "cache", "consensus": "cache"}
"""The channel that a program's other channels are compared with."""

FINAL_TOKENS = 32
"""The most tokens of a forced answer, the same for every arm."""


def channels(program: str) -> list[str]:
    """The channels of a program. Raises UnknownName."""
    if program not in CHANNELS:
        raise UnknownName(f"A study has no program {program!r}; it can have: {', '.join(CHANNELS)}.")
    return list(CHANNELS[program])


def fits(program: str, item: Item) -> bool:
    """Whether the program can be given the item. One worker alone can be given anything."""
    if program == "solo":
        return True
    if item.programs or program in ("network", "consensus"):
        return program in item.programs
    return True


def parameters(program: str, channel: str, item: Item, other: Item) -> dict[str, Any]:
    """The program's parameters; ``other`` is the item whose blocks are shown where they are mismatched."""
    params = dict(CHANNELS[program][channel])
    if program in item.programs:
        params |= item.params
    else:
        params["final_tokens"] = FINAL_TOKENS
    if channel == "mismatched":
        params["other"] = other.prompt
        params["other_private"] = dict(other.private)
        if program == "relay":
            params["other_private"] = list(other.private.values())
    return params
