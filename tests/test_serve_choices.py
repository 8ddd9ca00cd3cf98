"""What `/v1/programs` says of parameters: every choice is the program's own, and no other word is taken."""

from __future__ import annotations

import inspect

import pytest

import toy
from kvorum import Budget, programs
from kvorum.errors import UnknownName
from kvorum.serve.api.choices import CHOICES
from kvorum.serve.api.model_names import NOT_OFFERED, about_program

CHOSEN = [(program, name) for program, table in CHOICES.items() for name in table]


def test_defaults_and_kinds() -> None:
    for program in programs.REGISTRY.values():
        told = {param["name"]: param for param in about_program(program)["params"]}
        assert set(told) == set(inspect.signature(program.function).parameters) - {"run"} - NOT_OFFERED
        for param in told.values():
            if param["choices"] is not None:
                assert param["default"] in (*param["choices"], None)
                assert len(set(param["choices"])) == len(param["choices"])
        assert "answer" not in told or told["answer"]["choices"] == ["boxed", "code", "text"]
    hogwild = {param["name"]: param["type"] for param in about_program(programs.find("hogwild"))["params"]}
    assert (hogwild["memory"], hogwild["openings"], hogwild["layout"]) == ("integer", "boolean", "string")


@pytest.mark.parametrize(("program", "name"), CHOSEN, ids=["-".join(pair) for pair in CHOSEN])
def test_the_words_are_the_programs(program: str, name: str) -> None:
    """Another word is refused with a sentence that names those that there are."""
    if (program, name) == ("consensus", "quorum"):
        pytest.skip('Anything but "honest" is all.')
    with pytest.raises(UnknownName) as refused:
        toy.engine().run(programs.find(program), "Count.", workers=2, budget=Budget(ticks=1), **{name: "other"})
    for word in CHOICES[program][name]:
        assert word in str(refused.value)
