"""What whole jobs of one text must gain with the model that this is set for, against a llama-server and one by one."""

from __future__ import annotations

from kvorum.bench.bound import CODER, Bound
from kvorum.bench.fanout.session import OURS, Fanout, Line

_KEPT, _COLD = "text in the cache", "from cold"
_FIRST = "one question, first answer token"


def fanout_bounds(found: Fanout, model: str) -> list[Bound]:
    """Of each job that was measured; none for other models, and none that a peer would be needed for where none was."""
    if model != CODER:
        return []
    rows = []

    def add(what: str, limit: float, theirs: Line | None, ours: Line | None) -> None:
        if theirs is not None and ours is not None:
            rows.append(Bound(what, limit, True, "", theirs.median / ours.median, f"{theirs.side}, {theirs.how}"))

    def own(job: str, how: str) -> Line | None:
        return found.lines.get((job, OURS, how))

    def server(job: str, how: str, named: str = "llama-server") -> Line | None:
        """The faster one, where it ran with several numbers of slots."""
        lines = [line for line in found.of_job(job) if line.side.startswith(named) and line.how == how]
        return min(lines, key=lambda line: line.median, default=None)

    ask, decided, filled = own("ask", "at once"), own("decide", "over HTTP, text kept"), own("fields", "at once")
    add("ask: over llama-server at its best", 2.6, server("ask", _KEPT), ask)
    add("ask: over llama-server one by one", 3.8, server("ask", _KEPT, "llama-server, one by one"), ask)
    add("ask: from cold, over llama-server", 2.1, server("ask", _COLD), own("ask", _COLD))
    add("ask: over kvorum one by one", 2.7, own("ask", "one by one"), ask)
    add("ask: first token of a kept text", 10, own("ask", f"{_FIRST}, {_COLD}"), own("ask", f"{_FIRST}, text kept"))
    add("fields: over a call a field", 2.3, server("fields", "a call a field"), filled)
    add("fields: over one JSON reply", 3, server("fields", "one object"), filled)
    add("decide: over llama-server", 2.2, server("decide", _KEPT), decided)
    return rows
