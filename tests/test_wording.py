"""The words that every room uses: answers to unknown names, and numbers as a person reads them."""

from __future__ import annotations

from kvorum.wording import clock, count, plural, size, unknown, wrapped


def test_an_unknown_name_is_answered_with_the_near_ones_or_with_all() -> None:
    assert unknown("program", "hogwlid", ["solo", "hogwild"]) == "There is no program 'hogwlid'; did you mean hogwild?"
    assert unknown("program", "SOLO", ["solo"]) == "There is no program 'SOLO'; did you mean solo?"
    assert unknown("program", "nope", ["solo", "vote"]) == "There is no program 'nope'; there are: solo, vote."
    assert unknown("peer", "x", ["a", "b"], also="none") == "There is no peer 'x'; there are: a, b, none."
    assert unknown("limit", "x", ["ticks"], owner="A budget") == "A budget has no limit 'x'; it has: ticks."
    assert unknown("run", "7f", []) == "There is no run '7f'."
    assert len(unknown("block", "x" * 1000, [])) < 120


def test_numbers() -> None:
    assert (count(1234), plural(1, "worker"), plural(1200, "worker")) == ("1,234", "1 worker", "1,200 workers")
    assert [size(n) for n in (870e3, 12e6, 1.234e9, 2e12)] == ["870 kB", "12 MB", "1.23 GB", "2.00 TB"]
    assert [clock(s) for s in (7.9, 754, 3723)] == ["0:07", "12:34", "1:02:03"]


def test_lines_are_broken_between_words_and_inside_one_only_where_it_is_too_wide() -> None:
    assert wrapped("One two three\n\n  four", 9) == ["One two", "three", "", "  four"]
    assert wrapped("abcdefghij kl", 4) == ["abcd", "efgh", "ij", "kl"]
    assert wrapped("[b]日本語の文[/b]", 6) == ["[b]日", "本語の", "文[/b]"]
    assert wrapped("", 9) == [""]
