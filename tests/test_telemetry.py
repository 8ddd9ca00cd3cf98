"""What a server tells of itself: OpenTelemetry's spans, Prometheus' figures, and the dashboard that draws them.

Covers: spans of requests (behind a client's own), of runs with a link, of a share of ticks; nothing of it where it is
off; every metric in the docs and in ``/metrics`` alike; every query of the dashboard over figures that are there, of
one server and of several replicas; its panels on their grid. Not covered: Grafana itself, the way to a collector.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

import toy_engine
from kvorum.errors import BadRequest
from kvorum.serve.metrics import Metrics, joined
from kvorum.serve.telemetry import Telemetry
from serving import served

DOCS = Path(__file__).parents[1] / "docs"
RUN = {"model": "toy:vote-2", "seed": 3, "budget": {"ticks": 20}}


@pytest.fixture(scope="session")
def provider() -> Iterator[TracerProvider]:
    """One for the process, which takes no second; a process of the suite may come back to this file."""
    made = TracerProvider()
    trace.set_tracer_provider(made)
    yield made
    made.shutdown()


@pytest.fixture
def spans(provider: TracerProvider) -> InMemorySpanExporter:
    kept = InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(kept))
    return kept


def named(spans: InMemorySpanExporter, name: str) -> list[ReadableSpan]:
    return [span for span in spans.get_finished_spans() if span.name == name]


def test_spans_of_requests_runs_and_ticks(spans: InMemorySpanExporter, tmp_path: Path) -> None:
    place = {"telemetry": True, "tick_share": 0.25}
    with served(toy_engine.fake(name="toy"), tmp_path, place=place) as server:
        known = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
        run = server.post("/v1/runs", {"problem": "Count.", **RUN}, traceparent=known).json()["id"]
        ticks = server.until(run, "finished")["ticks"]
    (request,) = named(spans, "POST /v1/runs")
    assert request.parent is not None
    assert f"{request.parent.trace_id:x}" in known
    assert request.attributes is not None
    assert request.attributes["http.response.status_code"] == 201
    (whole,) = named(spans, "run")
    assert (whole.parent, whole.links[0].context) == (None, request.context)
    assert dict(whole.attributes or {}) == {
        "kvorum.run.id": run,
        "kvorum.program": "vote",
        "kvorum.run.status": "finished",
    }
    some = named(spans, "tick")
    assert ticks // 4 <= len(some) <= ticks // 4 + 2
    assert all((span.end_time or 0) >= (span.start_time or 0) for span in some)
    told = " ".join(f"{span.attributes}{span.events}" for span in spans.get_finished_spans())
    assert "Count." not in told


def test_off_means_off(spans: InMemorySpanExporter, tmp_path: Path) -> None:
    with served(toy_engine.fake(name="toy"), tmp_path) as server:
        server.until(server.run(**RUN)["id"], "finished")
    assert spans.get_finished_spans() == ()
    with pytest.raises(BadRequest, match="tick-spans"):
        Telemetry(True, 2.0)


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The figures of a server that has done something of all kinds."""
    with served(toy_engine.fake(name="toy"), tmp_path_factory.mktemp("store")) as server:
        server.until(server.run(**RUN)["id"], "finished")
        assert server.post("/v1/completions", {"model": "toy", "prompt": "a", "max_tokens": 3}).status_code == 200
        return server.http.get("/metrics").text


def labels(text: str) -> dict[str, set[str]]:
    """By the names of figures."""
    found: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    return found


@pytest.fixture(scope="module")
def figures(text: str) -> dict[str, set[str]]:
    return labels(text)


@pytest.fixture(scope="module")
def board() -> dict[str, Any]:
    """The dashboard."""
    return dict(json.loads((DOCS / "grafana.json").read_text()))


def test_the_dashboard_has_one_datasource_and_its_panels_a_place_each(board: dict[str, Any]) -> None:
    (variable,) = board["templating"]["list"]
    assert (variable["type"], variable["query"]) == ("datasource", "prometheus")
    taken: set[tuple[int, int]] = set()
    for panel in board["panels"]:
        assert panel["datasource"] == {"type": "prometheus", "uid": f"${{{variable['name']}}}"}, panel["title"]
        x, y, width, height = (panel["gridPos"][key] for key in "xywh")
        assert min(x, y) >= 0 < min(width, height)
        assert x + width <= 24, "Grafana's grid has so many columns"
        place = {(column, row) for column in range(x, x + width) for row in range(y, y + height)}
        assert not place & taken, panel["title"]
        taken |= place


@pytest.mark.parametrize("replicas", [0, 2], ids=["one-server", "replicas"])
def test_every_query_of_the_dashboard_has_its_figures(text: str, replicas: int, board: dict[str, Any]) -> None:
    """Also where ``/metrics`` is that of several replicas: nothing is drawn once for each of them."""
    figures = labels(joined({f"r{n}": text for n in range(replicas)}).decode()) if replicas else labels(text)
    assert all("replica" in found for found in figures.values()) == bool(replicas)
    panels = board["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    queries = [target["expr"] for panel in panels for target in panel["targets"]]
    assert len(queries) >= len(panels) >= 10
    for query in queries:
        names = re.findall(r"\bkvorum_\w+", query)
        assert names, query
        assert set(names) <= set(figures), query
        by = {label for some in re.findall(r"by \(([^)]*)\)", query) for label in re.split(r",\s*", some)}
        assert by <= {"le", "instance"} | set().union(*(figures[name] for name in names)), query
        assert query.count("(") == query.count(")")
        assert re.search(r"\bsum\b", query), query


def test_every_figure_is_in_the_docs(figures: dict[str, set[str]]) -> None:
    text = (DOCS / "scaling.md").read_text(encoding="utf-8")
    told = set(re.findall(r"^\| `(kvorum_\w+)`", text, re.MULTILINE))
    parts = re.compile(r"_(bucket|count|sum|created)$")
    made = {name for name in figures if not name.endswith("_created")}
    made = {parts.sub("", name) if parts.sub("", name) + "_bucket" in made else name for name in made}
    assert told == made


def test_figures_of_several_are_one_text() -> None:
    texts = {}
    for name, ticks in (("a", 2), ("b", 3)):
        metrics = Metrics()
        metrics.gauge("kvorum_pages", "Pages", partial(float, 10 * ticks))
        for _ in range(ticks):
            metrics.ticked(1, 4, 0.01)
        texts[name] = metrics.text().decode()
    text = joined(texts).decode()
    found = {(s.name, s.labels["replica"], s.labels.get("le")): s.value for f in families(text) for s in f.samples}
    assert [found["kvorum_ticks_total", name, None] for name in "ab"] == [2.0, 3.0]
    assert [found["kvorum_pages", name, None] for name in "ab"] == [20.0, 30.0]
    assert [found["kvorum_tick_seconds_bucket", name, "+Inf"] for name in "ab"] == [2.0, 3.0]
    assert text.count("# TYPE kvorum_ticks_total counter") == 1
    alone = {s.name for f in families(texts["a"]) for s in f.samples}
    assert {name for name, _, _ in found} == alone


def families(text: str) -> list[Metric]:
    return list(text_string_to_metric_families(text))
