"""Figures for Prometheus: queue, ticks, tokens, pages, latencies."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Metrics:
    """One server's figures, in a registry of its own."""

    def __init__(self) -> None:
        r = self.registry = CollectorRegistry()
        self.requests = Counter(
            "kvorum_http_requests_total", "Replies, by route and status", ["route", "status"], registry=r
        )
        self.cancelled = Counter("kvorum_requests_cancelled_total", "Requests whose client went away", registry=r)
        self.ticks = Counter("kvorum_ticks_total", "Forward passes", registry=r)
        self.tokens = Counter("kvorum_tokens_total", "Tokens that went through the model", ["kind"], registry=r)
        self.tick = Histogram("kvorum_tick_seconds", "Duration of a forward pass", registry=r, buckets=_SECONDS)
        self.rows = Histogram("kvorum_tick_rows", "Rows of a forward pass", registry=r, buckets=_ROWS)
        self.first = Histogram(
            "kvorum_time_to_first_token_seconds",
            "From a request's arrival to its first token",
            registry=r,
            buckets=_SECONDS,
        )
        self.queued = Histogram("kvorum_queue_seconds", "Wait for a place", registry=r, buckets=_SECONDS)
        self.request = Histogram(
            "kvorum_request_seconds", "Duration of a request", ["route"], registry=r, buckets=_SECONDS
        )
        self.runs = Counter("kvorum_runs_total", "Runs that ended, by status", ["status"], registry=r)

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
