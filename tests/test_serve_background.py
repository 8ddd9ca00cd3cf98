"""`background` of `/v1/responses` with the official client, on the engine without a model.

Covers its states, retrieving, streams that are left and taken up again, cancel before and after its beginning, delete,
teams, errors that come later, keys, a server that stops, and tokens that are counted before. The rest of Responses is
in ``test_serve_responses.py``.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

import toy_engine
from kvorum.serve.keys.api_key import ApiKey
from serving import KEY, Served, served

LONG: dict[str, Any] = {
    "max_output_tokens": 4000,
    "extra_body": {"logit_bias": {str(256 + len(toy_engine.MERGES)): -100}},
}
"""Of a reply that does not end by itself for a while."""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Served]:
    with served(toy_engine.fake(name="toy"), tmp_path, tokens=4000) as up:
        yield up


@pytest.fixture
def client(server: Served) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as made:
        yield made


def over(client: openai.OpenAI, response: str, *besides: str) -> Any:
    """The response once it is neither queued nor in progress."""
    end = time.monotonic() + 60
    while (found := client.responses.retrieve(response)).status in ("queued", "in_progress", *besides):
        assert time.monotonic() < end
        time.sleep(0.01)
    return found


def test_it_is_made_while_nobody_waits(server: Served, client: openai.OpenAI) -> None:
    """What comes of it is what would have come at once; its events are there from any number on."""
    told: Any = {"model": "toy", "input": "Hello.", "max_output_tokens": 30, "temperature": 0}
    queued = client.responses.create(**told, background=True)
    assert (queued.status, queued.background, queued.output) == ("queued", True, [])
    done = over(client, queued.id)
    at_once = client.responses.create(**told)
    assert (done.status, done.output_text, done.background) == (at_once.status, at_once.output_text, True)
    events = list(client.responses.retrieve(done.id, stream=True))
    assert [event.type for event in events[:3]] == ["response.created", "response.queued", "response.in_progress"]
    assert [event.sequence_number for event in events] == [*range(len(events))]
    assert events[-1].type in ("response.completed", "response.incomplete")
    rest = list(client.responses.retrieve(done.id, stream=True, starting_after=4))
    assert rest == events[5:]
    further = client.responses.create(model="toy", input="On.", previous_response_id=done.id, max_output_tokens=4)
    assert further.usage is not None
    assert done.usage is not None
    assert further.usage.input_tokens > done.usage.total_tokens
    with pytest.raises(openai.BadRequestError, match="background"):
        client.responses.retrieve(at_once.id, stream=True)
    assert server.free()


def test_tokens_are_counted_before(client: openai.OpenAI) -> None:
    """As many as the same response then has, alone and behind an earlier one."""
    first = client.responses.create(model="toy", input="Hello.", max_output_tokens=4)
    asked: Any = {"model": "toy", "instructions": "Be brief.", "input": "What is 1 + 2?"}
    behind: list[dict[str, Any]] = [{}, {"previous_response_id": first.id}]
    for more in behind:
        counted = client.responses.input_tokens.count(**asked, **more).input_tokens
        made: Any = client.responses.create(**asked, **more, max_output_tokens=2)
        assert made.usage.input_tokens == counted


def test_a_stream_is_left_and_taken_up_again(server: Served, client: openai.OpenAI) -> None:
    streamed = client.responses.create(model="toy", input="Hello.", background=True, stream=True, **LONG)
    seen: list[Any] = [next(streamed) for _ in range(6)]
    streamed.close()
    number = seen[0].response.id
    assert client.responses.retrieve(number).status == "in_progress"
    again = client.responses.retrieve(number, stream=True, starting_after=seen[-1].sequence_number)
    assert next(again).sequence_number == len(seen)
    assert client.responses.cancel(number).status == "cancelled"
    *_, last = again
    assert last.type == "response.incomplete"
    assert last.response.status == "cancelled"
    assert server.free()


def test_cancel_and_delete(server: Served, client: openai.OpenAI) -> None:
    """One that waits for its turn, too; the same again changes nothing."""
    first = client.responses.create(model="toy", input="Hello.", background=True, **LONG)
    cancelled = client.responses.cancel(first.id)
    assert cancelled.status == "cancelled"
    assert client.responses.cancel(first.id).to_dict() == client.responses.retrieve(first.id).to_dict()
    second = client.responses.create(model="toy", input="Hello.", background=True, **LONG)
    client.responses.delete(second.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(second.id)
    short = client.responses.create(model="toy", input="Hello.", background=True, max_output_tokens=2)
    over(client, short.id)
    with pytest.raises(openai.BadRequestError, match="in progress"):
        client.responses.cancel(short.id)
    assert server.free()


def test_a_team(server: Served, client: openai.OpenAI) -> None:
    made = client.responses.create(model="toy:vote-2", input="Hello.", background=True, max_output_tokens=40)
    assert over(client, made.id).output[-1].type == "message"
    endless = client.responses.create(model="toy:vote-2", input="Hello.", background=True)
    run = next(iter(server.http.get("/v1/runs").json()["data"]))["id"]
    if client.responses.cancel(endless.id).status == "cancelled":
        assert server.until(run, "stopped", "finished", "failed")
    assert server.free()


def test_what_goes_wrong_later_is_its_status(tmp_path: Path) -> None:
    """No place left: where others get a 429, it fails with the same sentence."""
    with (
        served(toy_engine.fake(name="toy"), tmp_path, tokens=4000, waiting=1, rows=1) as up,
        openai.OpenAI(base_url=f"{up.url}/v1", api_key="none", max_retries=0) as client,
    ):
        first = client.responses.create(model="toy", input="Hello.", background=True, stream=True, **LONG)
        before: Any = [next(first) for _ in range(3)]
        waits = client.responses.create(model="toy", input="Hello.", background=True, **LONG)
        late = over(client, client.responses.create(model="toy", input="Hello.", background=True, **LONG).id)
        assert late.status == "failed"
        assert late.error is not None
        assert late.error.code == "server_busy"
        assert client.responses.retrieve(waits.id).status == "queued"
        assert client.responses.cancel(waits.id).status == "cancelled"
        first.close()
        assert client.responses.cancel(before[0].response.id).status == "cancelled"
        assert up.free()


def test_it_is_unseen_by_other_keys(tmp_path: Path) -> None:
    place = {"api_keys": (ApiKey.of("another-key-for-tests", "other"),)}
    with served(toy_engine.fake(name="toy"), tmp_path, key=KEY, place=place, tokens=4000) as up:
        mine, other = (
            openai.OpenAI(base_url=f"{up.url}/v1", api_key=key, max_retries=0) for key in (KEY, "another-key-for-tests")
        )
        made = mine.responses.create(model="toy", input="Hello.", background=True, **LONG)
        with pytest.raises(openai.NotFoundError):
            other.responses.retrieve(made.id, stream=True)
        with pytest.raises(openai.NotFoundError):
            other.responses.cancel(made.id)
        assert mine.responses.cancel(made.id).status == "cancelled"
        mine.close()
        other.close()


def test_a_server_that_stops(tmp_path: Path) -> None:
    """What had not ended by then has failed, and says so."""
    with (
        served(toy_engine.fake(name="toy"), tmp_path, tokens=4000) as up,
        openai.OpenAI(base_url=f"{up.url}/v1", api_key="none", max_retries=0) as client,
    ):
        made = client.responses.create(model="toy", input="Hello.", background=True, **LONG)
    with served(toy_engine.fake(name="toy"), tmp_path) as up:
        found = up.http.get(f"/v1/responses/{made.id}").json()
        assert found["status"] == "failed"
        assert "ended" in found["error"]["message"] or "stopping" in found["error"]["message"]
