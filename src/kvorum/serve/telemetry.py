"""Spans for OpenTelemetry: of runs, and of a share of the ticks. An extra, and nothing where it is off.

Those of requests are FastAPI's own, behind the ``traceparent`` that a client sends. A run outlives the request that
began it: its span is one of its own, with a link to that request's. A tick serves many at a time and has no parent.
Where spans go is said by OpenTelemetry's own variables (``OTEL_EXPORTER_OTLP_ENDPOINT``, ``OTEL_SERVICE_NAME``). No
span holds what was asked or answered.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from inspect import signature
from typing import TYPE_CHECKING

import fastapi
from fastapi import FastAPI

from kvorum.errors import BadRequest, MissingExtra, need

if TYPE_CHECKING:
    from opentelemetry.trace import SpanContext

Tell = Callable[[Mapping[str, str | int | float]], None]
"""Adds to what a span says."""


class Telemetry:
    """The spans of one server. ``tick_share``: the share of ticks that get one, from 0 to 1.

    Raises:
        BadRequest: the share is none.
        MissingExtra: they are ``on``, and OpenTelemetry is missing, or a FastAPI that makes those of requests.
    """

    def __init__(self, on: bool, tick_share: float = 0.01) -> None:
        if not 0 <= tick_share <= 1:
            raise BadRequest(f"--tick-spans {tick_share} must be from 0 to 1.")
        self.on, self._share, self._due = on, tick_share, 0.0
        if on:
            need("opentelemetry.trace", "kvorum serve --telemetry", "otel")
            if "telemetry" not in signature(FastAPI.__init__).parameters:  # vLLM 0.32 cannot have that FastAPI
                raise MissingExtra(
                    f"kvorum serve --telemetry needs FastAPI 0.165 or newer, and {fastapi.__version__} is installed; "
                    "install it with: pip install 'kvorum[otel]', or leave --telemetry out."
                )

    def here(self) -> SpanContext | None:
        """The span that is under way, for a run to link to."""
        if not self.on:
            return None
        from opentelemetry import trace

        return trace.get_current_span().get_span_context()

    @contextmanager
    def run(self, run: str, program: str, begun_by: SpanContext | None) -> Iterator[Tell]:
        """The span of a run, from when it waits for a place to its end here."""
        if not self.on:
            yield _nothing
            return
        from opentelemetry import context, trace

        links = [trace.Link(begun_by)] if begun_by is not None and begun_by.is_valid else []
        told = {"kvorum.run.id": run, "kvorum.program": program}
        tracer = trace.get_tracer("kvorum")
        with tracer.start_as_current_span("run", context.Context(), links=links, attributes=told) as span:
            yield lambda more: span.set_attributes(dict(more))

    def ticked(self, rows: int, tokens: int, seconds: float) -> None:
        """A tick that has just ended: every so manieth gets a span."""
        if not self.on:
            return
        self._due += self._share
        if self._due < 1:
            return
        self._due -= 1
        from opentelemetry import context, trace

        end = time.time_ns()
        told = {"kvorum.tick.rows": rows, "kvorum.tick.tokens": tokens}
        tracer, start = trace.get_tracer("kvorum"), end - int(seconds * 1e9)
        tracer.start_span("tick", context.Context(), attributes=told, start_time=start).end(end)


def export() -> None:
    """Send spans by OTLP over HTTP, to where OpenTelemetry's variables say. Raises MissingExtra."""
    need("opentelemetry.sdk.trace", "kvorum serve --telemetry", "otel")
    need("opentelemetry.exporter.otlp.proto.http", "kvorum serve --telemetry", "otel")
    from opentelemetry import trace
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)


def _nothing(more: Mapping[str, str | int | float]) -> None:
    """Nobody wants to know."""
