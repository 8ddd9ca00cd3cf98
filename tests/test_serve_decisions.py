"""`/v1/systemone` and `/v1/decisions` with the official clients, on tiny random models.

Covers every kind of question in both forms, states as text, JSON, messages and kept blocks, orders, errors as each API
has them, the limits, the models as each client lists them, and the same bits alone and under load. What the numbers
themselves are is in ``test_decide.py``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest
import torch
import typesafe_sdk as typesafe

import toy_engine
from kvorum import Choice, Engine, Score, YesNo
from kvorum.harness.decisions.wire import to_openai
from serving import Served, served
from tiny_folder import tiny_file

STATE = "The pump in the cellar stands still. Ann has closed the valve, and the floor is dry."
ASKED: list[Any] = [
    {"type": "predicate", "name": "dry", "instructions": "Is the floor dry?"},
    {"type": "choice", "instructions": "Who closed it?", "choices": [{"value": "Ann"}, {"value": "Bob"}]},
    {"type": "score", "instructions": "How wet is it?", "levels": [{"label": "dry"}, {"label": "wet"}]},
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    torch.set_num_threads(1)
    with served(toy_engine.engine(name="toy"), tmp_path_factory.mktemp("store"), prompt_tokens=2000) as up:
        yield up


@pytest.fixture(scope="module")
def client(server: Served) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as made:
        yield made


@pytest.fixture(scope="module")
def jev(server: Served) -> Iterator[typesafe.TypeSafeClient]:
    with typesafe.TypeSafeClient(base_url=server.url, api_key="none") as made:
        yield made


def test_openai(client: openai.OpenAI) -> None:
    """The answers are the library's own, in order, an unnamed one with the name null."""
    made = client.decisions.create(model="toy", input=STATE, questions=ASKED)
    questions = [
        YesNo("Is the floor dry?", "dry"),
        Choice("Who closed it?", options=["Ann", "Bob"]),
        Score("How wet is it?", levels=["dry", "wet"]),
    ]
    own = toy_engine.engine().decide(STATE, questions)
    for answer, expected in zip(made.answers, to_openai(own, questions), strict=True):
        assert_close(answer.to_dict(), expected)
    assert [answer.name for answer in made.answers] == ["dry", None, None]
    assert made.usage.input_tokens == own.ledger.prefill == made.usage.total_tokens
    assert made.usage.input_tokens_details.cached_tokens == made.usage.output_tokens == 0
    mass = made.to_dict()["kvorum"]["mass"]  # type: ignore[index]
    assert mass == pytest.approx([decision.mass for decision in own])


def assert_close(told: Any, expected: Any) -> None:
    """Equal JSON, but for the last bits of numbers."""
    if isinstance(expected, dict):
        assert told.keys() == expected.keys()
        for key, value in expected.items():
            assert_close(told[key], value)
    elif isinstance(expected, list):
        for one, other in zip(told, expected, strict=True):
            assert_close(one, other)
    else:
        assert told == (pytest.approx(expected, abs=1e-6) if isinstance(expected, float) else expected)


def test_choices_keep_their_types(client: openai.OpenAI) -> None:
    """true and "true" are two options, and each comes back as what it is."""
    question: Any = {
        "type": "choice",
        "instructions": "Which?",
        "choices": [{"value": True}, {"value": "true", "description": "as a word"}],
    }
    (answer,) = client.decisions.create(model="toy", input="x", questions=[question]).answers
    assert answer.type == "choice"
    assert [one.value for one in answer.probabilities] == [True, "true"]
    assert [type(one.value) for one in answer.probabilities] == [bool, str]
    assert sum(one.probability for one in answer.probabilities) == pytest.approx(1)


def test_a_conversation_as_input(server: Served, client: openai.OpenAI) -> None:
    """One user's parts are their text; several items stand line by line, with who says what."""
    question = ASKED[:1]

    def asked(given: Any) -> float:
        (answer,) = client.decisions.create(model="toy", input=given, questions=question).answers
        assert answer.type == "predicate"
        return answer.probability

    parts = [{"type": "input_text", "text": STATE[:20]}, {"type": "input_text", "text": STATE[20:]}]
    assert asked([{"role": "user", "content": parts}]) == asked(STATE)
    talk = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Is it dry?"},
        {"type": "function_call", "call_id": "c1", "name": "look", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c1", "output": "dry"},
        {"role": "assistant", "content": [{"type": "output_text", "text": "It is."}]},
    ]
    text = "System: Be brief.\n\nUser: Is it dry?\n\nAssistant calls look: {}\n\nlook returns: dry\n\nAssistant: It is."
    assert asked(talk) == asked(text)
    with pytest.raises(openai.BadRequestError, match="no call 'c2'"):
        asked([{"type": "function_call_output", "call_id": "c2", "output": "dry"}, {"role": "user", "content": "x"}])
    image: Any = [{"role": "user", "content": [{"type": "input_image", "image_url": "http://127.0.0.1/x.png"}]}]
    with pytest.raises(openai.BadRequestError, match="only parts of text"):
        asked(image)


def test_system_one(jev: typesafe.TypeSafeClient, client: openai.OpenAI) -> None:
    """The same numbers as in the other form, by name."""
    reply = jev.system_one(
        STATE,
        {
            "dry": typesafe.Noul(instructions="Is the floor dry?"),
            "who": typesafe.Choice(instructions="Who closed it?", criteria={"Ann": None, "Bob": None}),
            "wet": typesafe.Score(instructions="How wet is it?", criteria=["dry", "wet"]),
        },
        model="toy",
    )
    dry, who, wet = client.decisions.create(model="toy", input=STATE, questions=ASKED).answers
    assert dry.type == "predicate"
    assert reply.nouls["dry"].noul == dry.probability
    assert who.type == "choice"
    assert reply.choices["who"].choice == who.choice
    assert [*reply.choices["who"].probabilities.values()] == [one.probability for one in who.probabilities]
    assert wet.type == "score"
    assert reply.scores["wet"].score == wet.score
    assert reply.scores["wet"].legend == {0: "dry", 1: "wet"}
    assert reply.usage.input_tokens
    assert reply.raw_http_response.headers["x-typesafe-request-id"].startswith("req_")
    top = max(one.probability for one in who.probabilities)
    assert reply.choices["who"].confidence == pytest.approx((2 * top - 1) / 1)


def test_a_state_of_json_and_a_question_without_instructions(jev: typesafe.TypeSafeClient) -> None:
    noul: Any = {"type": "noul", "criteria": {"true": "No water stands on it."}}
    first = jev.system_one({"floor": "dry"}, {"Is it dry?": noul}, model="toy")
    asked: Any = {"x": {**noul, "instructions": "Is it dry?"}}
    again = jev.system_one('{"floor": "dry"}', asked, model="toy")
    assert first.nouls["Is it dry?"].noul == again.nouls["x"].noul


def test_models(jev: typesafe.TypeSafeClient) -> None:
    """System One's client lists the model that questions are asked of."""
    assert [model.name for model in jev.models.list().models] == ["toy"]


def test_kept_blocks(server: Served, client: openai.OpenAI) -> None:
    """A view of kept blocks in place of a state: nothing of it is encoded again, and it stays as it was."""
    block = server.post("/v1/blocks", {"text": STATE}).json()
    view = [{"block": block["id"]}]
    made = client.decisions.create(model="toy", input="", questions=ASKED, extra_body={"view": view})
    assert made.usage.input_tokens_details.cached_tokens == block["tokens"]
    ledger = made.to_dict()["kvorum"]["ledger"]  # type: ignore[index]
    assert made.usage.input_tokens == block["tokens"] + ledger["prefill"]
    assert server.http.get(f"/v1/blocks/{block['id']}").json()["tokens"] == block["tokens"]
    with pytest.raises(openai.BadRequestError, match="not both"):
        client.decisions.create(model="toy", input="x", questions=ASKED, extra_body={"view": view})
    server.http.delete(f"/v1/blocks/{block['id']}")
    with pytest.raises(openai.NotFoundError, match="no block"):
        client.decisions.create(model="toy", input="", questions=ASKED, extra_body={"view": view})
    assert server.free()


def test_orders(client: openai.OpenAI) -> None:
    """An even number of orders says the same whether a list is given forwards or backwards."""

    def shares(names: list[str], orders: int) -> dict[Any, float]:
        asked: Any = {"type": "choice", "instructions": "Who?", "choices": [{"value": name} for name in names]}
        made = client.decisions.create(model="toy", input=STATE, questions=[asked], extra_body={"orders": orders})
        assert made.answers[0].type == "choice"
        return {one.value: one.probability for one in made.answers[0].probabilities}

    names = ["Ann", "Bob", "Cid"]
    assert shares(names, 1) != pytest.approx(shares(names[::-1], 1), abs=1e-6)
    assert shares(names, 6) == pytest.approx(shares(names[::-1], 6), abs=1e-6)
    own = toy_engine.engine().decide(STATE, Choice("Who?", options=names), orders=6)[0].shares
    assert shares(names, 6) == pytest.approx(own, abs=1e-6)


@pytest.mark.parametrize(
    ("question", "says"),
    [
        ({"type": "choice", "criteria": {str(n): None for n in range(256)}}, "256 options"),
        ({"type": "choice", "criteria": {}}, "0 options"),
        ({"type": "choice"}, "needs its options"),
        ({"type": "score", "criteria": [str(n) for n in range(11)]}, "11 levels"),
        ({"type": "score", "criteria": ["one"]}, "1 level"),
        ({"type": "box"}, "the types are"),
        ({"type": "noul", "criterion": {}}, "criteria"),
        ({}, "the types are"),
        ({"type": ["noul"]}, "the types are"),
    ],
)
def test_what_cannot_be_asked_names_its_question(server: Served, question: dict[str, Any], says: str) -> None:
    """422 with System One's detail, 400 with OpenAI's error."""
    body = {"model": "toy", "state": "x", "questions": {"first": {"type": "noul"}, "mine": question}}
    reply = server.post("/v1/systemone", body)
    assert reply.status_code == 422
    (detail,) = reply.json()["detail"]
    assert "mine" in detail["msg"]
    assert says in detail["msg"]
    assert detail["loc"] == ["body", "questions", "mine"]
    named = {"instructions": "Which?", **question, "name": "mine"}
    reply = server.post("/v1/decisions", {"model": "toy", "input": "x", "questions": [ASKED[0], named]})
    assert reply.status_code == 400
    error = reply.json()["error"]
    assert (error["param"], error["type"]) == ("questions.1", "invalid_request_error")
    assert says in error["message"]


@pytest.mark.parametrize("count", [1, 2, 255])
def test_as_many_options_as_there_may_be(server: Served, count: int) -> None:
    criteria = {f"o{n}": None for n in range(count)}
    body = {"model": "toy", "state": "x", "questions": {"q": {"type": "choice", "criteria": criteria}}}
    answer = server.post("/v1/systemone", body).json()["answers"]["q"]
    assert [*answer["probabilities"]] == [*criteria]
    assert sum(answer["probabilities"].values()) == pytest.approx(1)


def test_errors_of_the_whole_request(server: Served, jev: typesafe.TypeSafeClient, client: openai.OpenAI) -> None:
    long = "word " * 3000
    with pytest.raises(typesafe.TypeSafeUnprocessableEntityError, match="longer than the 2000") as caught:
        jev.system_one(long, {"q": typesafe.Noul(instructions="So?")}, model="toy")
    assert caught.value.request_id
    with pytest.raises(openai.BadRequestError, match="longer than the 2000"):
        client.decisions.create(model="toy", input=long, questions=ASKED)
    with pytest.raises(typesafe.TypeSafeNotFoundError, match="there is toy"):
        jev.system_one("x", {"q": typesafe.Noul(instructions="So?")}, model="jev-latest")
    with pytest.raises(openai.BadRequestError, match="without a program"):
        client.decisions.create(model="toy:hogwild-4", input="x", questions=ASKED)
    missing = server.post("/v1/systemone", {"model": "toy", "state": "x"})
    assert missing.status_code == 422
    assert missing.json()["detail"][0]["loc"] == ["body", "questions"]
    images = {"model": "toy", "state": "x", "questions": {"q": {"type": "noul"}}, "assets": {"a": {"type": "image"}}}
    assert server.post("/v1/systemone", images).status_code == 422
    assert server.http.get("/v1/systemone").status_code == 405
    many = server.post("/v1/decisions", {"model": "toy", "input": "x", "questions": ASKED[:1] * 401})
    assert many.status_code == 400
    assert "at most 400" in many.json()["error"]["message"]


def test_a_state_that_does_not_fit_the_model(tmp_path: Any) -> None:
    """Never cut: how long it is and what the model takes is said."""
    with served(toy_engine.fake(name="toy", max_positions=64), tmp_path) as up:
        reply = up.post("/v1/systemone", {"model": "toy", "state": "x" * 60, "questions": {"q": {"type": "noul"}}})
        assert reply.status_code == 422
        assert "this model takes 64" in reply.json()["detail"][0]["msg"]
        assert up.free()


def test_the_same_bits_under_load(tmp_path: Any) -> None:
    """Packed weights and native kernels: alone, and while streams run, states are encoded and others are asked, in
    both forms. JSON has every bit of a float, so equal replies are equal bits."""
    pytest.importorskip("kvorum_native")
    engine = Engine.load(tiny_file(), kv_tokens=65536)
    assert engine.weights == "packed"
    mine = {
        "dry": {"type": "noul", "instructions": "Is the floor dry?"},
        "who": {"type": "choice", "instructions": "Who closed the valve?", "criteria": {"Ann": None, "Bob": None}},
        "wet": {"type": "score", "instructions": "How wet is the floor?", "criteria": ["dry", "damp", "wet"]},
    }
    asked = {"model": "tiny", "state": STATE * 10, "questions": mine, "orders": 2}  # more than one piece
    same = {"model": "tiny", "input": STATE * 10, "questions": ASKED, "orders": 2}
    others = [{**asked, "state": f"{n}. {STATE}", "questions": {**mine, f"{n}": mine["dry"]}} for n in (1, 2)]
    stream = {"model": "tiny", "max_tokens": 2000, "stream": True, "logit_bias": {"0": -100}}
    with served(engine, tmp_path) as up:
        alone = up.post("/v1/systemone", asked).json()["answers"], up.post("/v1/decisions", same).json()["answers"]

        async def chatter(client: httpx.AsyncClient, begun: asyncio.Event) -> None:
            while True:  # until it is cancelled, so that there is always somebody beside
                async with client.stream("POST", "/v1/completions", json={**stream, "prompt": "It is"}) as reply:
                    async for _ in reply.aiter_lines():
                        begun.set()

        async def under_load() -> list[Any]:
            async with httpx.AsyncClient(base_url=up.url, timeout=60) as client:
                begun = [asyncio.Event() for _ in range(4)]
                beside = [asyncio.create_task(chatter(client, one)) for one in begun]
                await asyncio.gather(*(one.wait() for one in begun))
                bodies = [asked, *others, same, others[0], asked, {**asked, "state": STATE * 9}, same]
                paths = ["/v1/decisions" if "input" in body else "/v1/systemone" for body in bodies]
                made = [client.post(path, json=body) for path, body in zip(paths, bodies, strict=True)]
                replies = await asyncio.gather(*made)
                assert not any(one.done() for one in beside)
                for one in beside:
                    one.cancel()
                await asyncio.gather(*beside, return_exceptions=True)
                return [reply.json()["answers"] for reply in replies]

        found = asyncio.run(under_load())
        assert (found[0], found[3], found[5], found[7]) == (*alone, *alone)
        assert found[1]["dry"] != alone[0]["dry"] != found[6]["dry"]
        assert up.free()
