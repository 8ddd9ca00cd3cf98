"""What a key has left, in the headers of its replies: as OpenAI's API names them, and as Anthropic's does."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from kvorum.serve.error_forms import MESSAGES
from kvorum.serve.keys.allowance import Left


def limit_headers(left: Sequence[Left], path: str) -> list[tuple[bytes, bytes]]:
    """The headers of a reply at ``path`` (without the root path)."""
    forms = _anthropic if path == MESSAGES or path.startswith(f"{MESSAGES}/") else _openai
    return [(name.encode(), value.encode()) for each in left for name, value in forms(each).items()]


def _openai(left: Left) -> dict[str, str]:
    return {
        f"x-ratelimit-limit-{left.kind}": str(left.limit),
        f"x-ratelimit-remaining-{left.kind}": str(left.left),
        f"x-ratelimit-reset-{left.kind}": _duration(left.full),
    }


def _duration(seconds: float) -> str:
    """As Go writes one: 30ms, 6s, 1m5s."""
    if seconds < 1:
        return f"{math.ceil(seconds * 1000)}ms"
    minutes, rest = divmod(math.ceil(seconds), 60)
    return f"{minutes}m{rest}s" if minutes else f"{rest}s"


def _anthropic(left: Left) -> dict[str, str]:
    full = datetime.now(UTC) + timedelta(seconds=left.full)
    return {
        f"anthropic-ratelimit-{left.kind}-limit": str(left.limit),
        f"anthropic-ratelimit-{left.kind}-remaining": str(left.left),
        f"anthropic-ratelimit-{left.kind}-reset": full.strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
