"""Reports made from seeds: each fact stands in the text, is told true and false, and is chosen from all over it."""

from __future__ import annotations

import pytest

from kvorum.tasks.reports import report


@pytest.mark.parametrize("places", [1, 9, 20])
def test_every_fact_stands_in_the_report(places: int) -> None:
    for seed in range(20):
        made = report(seed, places)
        assert made == report(seed, places)
        assert len(made.facts) == 4 * places
        assert len({fact.key for fact in made.facts}) == len(made.facts)
        for fact in made.facts:
            assert fact.answer in made.text
            assert fact.answer in fact.statement
            assert fact.answer not in fact.denial
            assert fact.whole == fact.answer.isdecimal()


def test_chosen_facts_are_of_all_kinds_and_places() -> None:
    made = report(3, 20)
    chosen = made.chosen(16)
    assert len(set(chosen)) == 16
    assert {fact.key.rpartition("_")[2] for fact in chosen} == {"lead", "visitors", "cost", "hours"}
    assert made.chosen(80) == list(made.facts)
