"""The model runners, and which of them a backend takes."""

from __future__ import annotations

from kvorum.errors import BadRequest
from kvorum.models.runners.graphs import GraphRunner as GraphRunner
from kvorum.models.runners.lean import LeanRunner as LeanRunner
from kvorum.models.runners.runner import GenericRunner as GenericRunner
from kvorum.models.runners.runner import ModelRunner, RunnerSetup

RUNNERS: dict[str, type[ModelRunner]] = {
    kind.name: kind
    for kind in sorted(ModelRunner.among(globals().values()), key=lambda kind: kind.preference, reverse=True)
}
"""Those imported above, by name, the preferred ones first."""


def choose(name: str, setup: RunnerSetup) -> ModelRunner:
    """The runner called ``name`` for ``setup``; "auto": the fastest that covers it.

    Raises:
        BadRequest: there is no such runner, or it does not cover the setup.
    """
    if name not in ("auto", *RUNNERS):
        raise BadRequest(f"There is no runner {name!r}; take {', '.join(('auto', *RUNNERS))}.")
    for known, runner in RUNNERS.items():
        if name in ("auto", known) and (made := runner.of(setup)) is not None:
            return made
    raise BadRequest(f"The runner {name!r} does not cover {type(setup.model).__name__} here; take runner='auto'.")
