"""Figures for Prometheus: queue, ticks, tokens, pages, latencies."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Metrics:
    """One server's figures, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        count, size = partial(Counter, registry=self.registry), partial(Histogram, registry=self.registry)
        seconds = partial(size, buckets=_SECONDS)
        self.requests = count("kvorum_http_requests_total", "Replies, by route and status", ["route", "status"])
        self.cancelled = count("kvorum_requests_cancelled_total", "Requests whose client went away")
        self.runs = count("kvorum_runs_total", "Runs that ended, by status", ["status"])
        self.ticks = count("kvorum_ticks_total", "Forward passes")
        self.tokens = count("kvorum_tokens_total", "Tokens that went through the model", ["kind"])
        self.tick = seconds("kvorum_tick_seconds", "Duration of a forward pass")
        self.rows = size("kvorum_tick_rows", "Rows of a forward pass", buckets=_ROWS)
        self.first = seconds("kvorum_time_to_first_token_seconds", "From a request's arrival to its first token")
        self.queued = seconds("kvorum_queue_seconds", "Wait for a place")
        self.request = seconds("kvorum_request_seconds", "Duration of a request", ["route"])

    def gauge(self, name: str, text: str, read: Callable[[], float]) -> None:
        """Add a figure that is read each time Prometheus asks."""
        Gauge(name, text, registry=self.registry).set_function(read)

    def ticked(self, rows: int, tokens: int, seconds: float) -> None:
        """Count a tick: its rows, the tokens that went through the model, and how long it took."""
        self.ticks.inc()
        self.tick.observe(seconds)
        self.rows.observe(rows)
        self.tokens.labels("all").inc(tokens)

    def text(self) -> bytes:
        """All figures in Prometheus' text format."""
        return generate_latest(self.registry)
