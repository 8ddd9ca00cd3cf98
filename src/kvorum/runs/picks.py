"""From what a tick came to, to its workers' tokens: drawn, injected or, in a replay, as they were recorded."""

from __future__ import annotations

from collections.abc import Sequence

from kvorum.engine.tick_result import TickResult
from kvorum.errors import KvorumError
from kvorum.runs.injection import Injections
from kvorum.runs.recorder import Scope
from kvorum.runs.replay import as_recorded
from kvorum.runs.state import RunState
from kvorum.runs.worker import Worker
from kvorum.sampling.sampling import Draw, Pick
from kvorum.store.events import TickRow


def take_picks(
    state: RunState,
    scope: Scope,
    injections: Injections,
    workers: Sequence[Worker],
    asked: Sequence[Draw],
    reply: TickResult,
) -> tuple[list[TickRow], list[KvorumError]]:
    """Let each worker take its token of the tick ``reply``, drawn with it as ``asked`` or, where that had to wait, now.

    Returns the workers' rows as a trace has them, and the errors of those who have failed and have no row.

    Raises:
        BadTrace: the recording has other rows than these.
    """
    picks: list[tuple[int, Worker, Pick]] = []
    errors: list[KvorumError] = []
    fed = []
    for at, worker in enumerate(workers):
        count = len(worker.pending)
        with worker.failing(errors):
            waits = injections.waits(worker)
            pick = injections.pick(worker, reply.output.logits[at], asked[at]) if waits else reply.pick(at)
            picks.append((at, worker, pick))
            fed.append((scope.name(worker.name), count))
    recorded = state.recording.tick(state.ticks, fed)
    if recorded is not None:
        state.ledger.seconds = float(recorded["seconds"])
    lines = []
    for number, (at, worker, pick) in enumerate(picks):
        if recorded is not None:
            pick, difference = as_recorded(pick, recorded["rows"][number], reply.output.logits[at])
            state.differences += [f"tick {state.ticks}, {fed[number][0]}: {difference}"] if difference else []
        with worker.failing(errors):
            lines.append(worker.take(pick))
            if at < len(reply.drafted) and reply.drafted[at]:
                lines[-1]["drafted"] = reply.drafted[at]
            if at < len(reply.known) and reply.known[at]:
                lines[-1]["ahead"] = True
    return lines, errors
