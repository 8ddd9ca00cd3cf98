"""What JSON can hold, as types: for traces, requests, settings and results that come from or go to a file or a peer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

Json: TypeAlias = "bool | int | float | str | Sequence[Json] | Mapping[str, Json] | None"
"""Any JSON value, read only."""

JsonObject: TypeAlias = "Mapping[str, Json]"
"""A JSON object, read only."""
