"""Taking up what is asked of a run from outside: recorded, joined by what injections ask, given to its program."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from kvorum.runs.injection import Injections
from kvorum.runs.recorder import Recorder
from kvorum.runs.state import RunState
from kvorum.runs.steering import Command, spread
from kvorum.runs.worker import Worker


class CommandReader:
    """The commands of the outermost run; its program takes them, or ``steer`` takes them up in the program's place.

    ``by_program``: whether the program takes them itself.
    """

    def __init__(self, state: RunState, recorder: Recorder, injections: Injections) -> None:
        self._state, self._recorder, self._injections = state, recorder, injections
        self.by_program = False

    def take(self, workers: Sequence[Worker], *, shared: bool) -> list[Command]:
        """The commands since the last tick, as ``Run.take_commands`` gives them to a program."""
        found = self._state.take_commands()
        for command in found:
            self._recorder.command(command)
        found += self._injections.commands(workers)
        return found if shared else spread(found, [worker.name for worker in workers if worker.active])

    def steer(self, workers: Sequence[Worker], encode: Callable[[str], list[int]]) -> None:
        """Feed workers what is said to them, end those that leave, and end the run where the answer is wanted now."""
        for command in self.take(workers, shared=False):
            self._state.answer_now |= command.kind == "answer"
            for worker in workers:
                if worker.name == command.worker and command.kind == "say":
                    worker.feed(encode(command.text))
                elif worker.name == command.worker and command.kind == "leave":
                    worker.active = False
