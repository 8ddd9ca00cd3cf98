"""Figures for Prometheus: queue, ticks, tokens, pages, latencies."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping
from functools import partial

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Metric, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

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
        self.of_all: Callable[[], Awaitable[bytes]] = self._own
        """What ``/metrics`` replies: these figures, or where this is one of several replicas, those of all."""

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

    async def _own(self) -> bytes:
        return self.text()


def joined(texts: Mapping[str, str]) -> bytes:
    """The figures of several servers in Prometheus' text format, each with its server's name as the label ``replica``.

    ``texts``: what each server's own ``/metrics`` has, by the server's name.
    """
    registry = CollectorRegistry()
    registry.register(_Joined(texts))
    return generate_latest(registry)


class _Joined(Collector):
    """The families of all texts, those of one name in one."""

    def __init__(self, texts: Mapping[str, str]) -> None:
        self._families: dict[str, Metric] = {}
        for replica, text in sorted(texts.items()):
            for family in text_string_to_metric_families(text):
                whole = self._families.setdefault(family.name, Metric(family.name, family.documentation, family.type))
                for sample in family.samples:
                    whole.samples.append(sample._replace(labels={**sample.labels, "replica": replica}))

    def collect(self) -> Iterator[Metric]:
        """All of them."""
        return iter(self._families.values())
