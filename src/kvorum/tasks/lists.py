"""Lists without repeats: a team writes down members of a set, each only once. Repeats can be counted exactly."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from kvorum.tasks.item import Item
from kvorum.tasks.scoring import AnswerPart, Score, normalised, split

MONTHS = split("January, February, March, April, May, June, July, August, September, October, November, December")
GREEK = split(
    "alpha, beta, gamma, delta, epsilon, zeta, eta, theta, iota, kappa, lambda, mu, nu, xi, omicron, pi, rho, sigma, "
    "tau, upsilon, phi, chi, psi, omega"
)


def _primes(draw: random.Random) -> tuple[str, list[str]]:
    low = 10 * draw.randint(0, 4)
    high = low + 50
    found = [n for n in range(max(2, low), high) if all(n % d for d in range(2, int(n**0.5) + 1))]
    return f"prime numbers between {low} and {high}", list(map(str, found))


def _multiples(draw: random.Random) -> tuple[str, list[str]]:
    of = draw.randint(3, 9)
    return f"multiples of {of} from 1 to {of * 12}", [str(of * n) for n in range(1, 13)]


def _digits(draw: random.Random) -> tuple[str, list[str]]:
    total = draw.randint(6, 12)
    found = [str(n) for n in range(10, 100) if n // 10 + n % 10 == total]
    return f"two-digit numbers whose digits add up to {total}", found


def _months(draw: random.Random) -> tuple[str, list[str]]:
    return "months of the year", MONTHS


def _greek(draw: random.Random) -> tuple[str, list[str]]:
    return "names of letters of the Greek alphabet", GREEK


KINDS: tuple[Callable[[random.Random], tuple[str, list[str]]], ...] = (_primes, _multiples, _digits, _months, _greek)


def lists(seed: int, names: tuple[str, ...], *, wanted: int = 0) -> Item:
    """``wanted`` different members of a set (0: all of it, at most 12).

    Soft score: different members named, over the larger of what is wanted and what was named: entries that are wrong or
    repeated cost as much as missing ones.
    """
    draw = random.Random(seed)
    what, members = KINDS[seed % len(KINDS)](draw)
    count = min(wanted or 12, len(members))
    prompt = (
        f"Write a list of {count} different {what}; nothing may be listed twice.\n"
        "The final answer is the whole list, with commas between."
    )
    known = {normalised(member): member for member in members}

    def score(answer: str | None) -> Score:
        named = [normalised(entry) for entry in split(answer or "")]
        right = [known[entry] for entry in dict.fromkeys(named) if entry in known][:count]
        soft = len(right) / max(count, len(named))
        return Score(soft, soft == 1.0, dict.fromkeys(right, 1.0))

    def guess(draw: random.Random) -> str:
        pool: Sequence[str] = list(map(str, range(100))) if members[0].isdecimal() else [*MONTHS, *GREEK]
        return ", ".join(draw.sample(pool, count))

    parts = [AnswerPart(member, member) for member in members]
    constant = ", ".join(map(str, range(12)))
    return Item("lists", seed, prompt, score, ", ".join(members[:count]), guess, constant=constant, parts=parts)
