"""How many items a claim needs, and when a study may look at it before it has them all.

Looks are equally spaced. What each may spend of the level is what O'Brien and Fleming's boundaries spend (Lan and
DeMets, Biometrika 1983): next to nothing early, nearly all at the end. So whoever stops at a look that is crossed is
wrong no more often than whoever looks once.
"""

from __future__ import annotations

import math
from functools import cache
from itertools import pairwise

import numpy as np

from kvorum.lab import need

POWER = 0.8
"""How often a difference of the smallest size that matters is to be found."""
_FEWEST = 2
_NODES = 400


def needed(smallest: float, deviation: float, level: float) -> int:
    """How many items a paired t test needs to find a mean difference of ``smallest`` with the chance ``POWER``; at
    least two.

    ``deviation``: the standard deviation of differences, as expected. ``level``: of the test, two-sided.
    """
    test = need("statsmodels.stats.power").TTestPower()
    effect = smallest / deviation
    if not test.power(effect, _FEWEST, level) < POWER:  # where it is enormous there is no solution, nor a power
        return _FEWEST
    items: float = test.solve_power(effect_size=effect, alpha=level, power=POWER)
    return math.ceil(items)


@cache
def levels(looks: int, level: float) -> tuple[float, ...]:
    """The two-sided p value that is enough at each of equally spaced looks, for ``level`` over all of them."""
    normal = need("scipy.stats").norm
    end = normal.isf(level / 4)  # each side spends 2 - 2 cdf(end / sqrt(time)): at the end half of the level
    spent = [4 * normal.sf(end * math.sqrt(looks / at)) for at in range(1, looks + 1)]
    edges = [float(normal.isf(spent[0] / 2))]  # of the sum of independent steps, each with variance 1
    nodes, weights = np.polynomial.legendre.leggauss(_NODES)
    places = nodes * edges[0]
    density = weights * edges[0] * normal.pdf(places)  # of sums that have crossed no edge so far

    def beyond(edge: float) -> float:
        return float(density @ (normal.sf(edge - places) + normal.cdf(-edge - places)))

    for before, now in pairwise(spent):
        edge = need("scipy.optimize").brentq(lambda at, part=now - before: beyond(at) - part, 0, 40)
        fresh = nodes * edge
        density = weights * edge * (normal.pdf(fresh[:, None] - places[None, :]) @ density)
        places = fresh
        edges.append(float(edge))
    return tuple(float(2 * normal.sf(edge / math.sqrt(at))) for at, edge in enumerate(edges, start=1))
