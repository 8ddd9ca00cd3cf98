"""Fields of requests that this server does not have: each is refused by its name, or is known to change nothing.

Covers every route that takes a body, all fields that the newest openai and anthropic clients have a name for, what
vLLM and llama-server have beside them, fields that pick tokens on each route whose model writes, and how hard a model
is to think.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import openai.types as openai_types
import pytest
from anthropic.types import message_count_tokens_params as count_params
from anthropic.types.beta import message_create_params as message_params
from openai.types.beta import response_create_params as response_params
from openai.types.chat import completion_create_params as chat_params

import toy_engine
from kvorum.serve.api.anthropic.forms import CountForm, MessagesForm
from kvorum.serve.api.responses.forms import ResponseForm
from kvorum.serve.request_models.base import RequestModel
from kvorum.serve.request_models.chat import ChatForm
from kvorum.serve.request_models.completions import NEUTRAL, CompletionForm
from kvorum.serve.request_models.embeddings import EmbeddingForm
from serving import Served, served

USER = [{"role": "user", "content": "Hi."}]
QUESTION = {"type": "predicate", "instructions": "So?"}
BODIES: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": USER, "max_tokens": 4},
    "/v1/completions": {"prompt": "a", "max_tokens": 4},
    "/v1/responses": {"input": "a", "max_output_tokens": 4},
    "/v1/responses/input_tokens": {"input": "a"},
    "/v1/messages": {"messages": USER, "max_tokens": 4},
    "/v1/messages/count_tokens": {"messages": USER},
    "/v1/embeddings": {"input": "a"},
    "/v1/decisions": {"input": "a", "questions": [QUESTION]},
    "/v1/systemone": {"state": "a", "questions": {"so": {"type": "noul"}}},
    "/v1/ask": {"questions": ["So?"], "tokens": 4},
    "/v1/fields": {"document": "a", "schema": {"type": "object", "properties": {"a": {"type": "boolean"}}}},
    "/v1/runs": {"problem": "a", "budget": {"ticks": 4}},
    "/v1/blocks": {"text": "a"},
    "/tokenize": {"prompt": "a"},
    "/detokenize": {"tokens": [1]},
    "/apply-template": {"messages": USER},
}
WRITES = ["/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages"]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(toy_engine.engine(name="toy"), tmp_path_factory.mktemp("store")) as up:
        yield up


def message(path: str, reply: dict[str, Any]) -> str:
    return str(reply["detail"][0]["msg"] if path == "/v1/systemone" else reply["error"]["message"])


@pytest.mark.forward
@pytest.mark.parametrize("path", BODIES)
def test_an_unknown_field_is_refused_by_its_name(server: Served, path: str) -> None:
    body = {"model": "toy", **BODIES[path]}
    taken = server.post(path, body)
    assert taken.status_code < 300, taken.text
    refused = server.post(path, body | {"logit_byas": {}})
    assert refused.status_code in (400, 422)
    assert "'logit_byas'" in message(path, refused.json())
    assert server.post(path, body | {"logit_byas": None}).status_code < 300  # null is as if it were not there


def fields(*kinds: type) -> set[str]:
    """All that a client's body may have."""
    return {name for kind in kinds for one in kind.__mro__ for name in getattr(one, "__annotations__", {})}


@pytest.mark.parametrize(
    ("form", "there"),
    [
        (ChatForm, fields(chat_params.CompletionCreateParamsStreaming)),
        (CompletionForm, fields(openai_types.completion_create_params.CompletionCreateParamsStreaming)),
        (ResponseForm, fields(response_params.ResponseCreateParamsStreaming) - {"betas"}),
        (EmbeddingForm, fields(openai_types.EmbeddingCreateParams)),
        (MessagesForm, fields(message_params.MessageCreateParamsStreaming) - {"betas"}),
        (CountForm, fields(count_params.MessageCountTokensParams)),
    ],
)
def test_every_field_of_a_client_is_known(form: type[RequestModel], there: set[str]) -> None:
    """Taken, known to change nothing, or refused with a reason of its own. (Betas go as a header.)"""
    names = {field.alias or name for name, field in form.model_fields.items()}
    assert there <= names | form.idle | set(form.absent)
    assert not names & (form.idle | set(form.absent))


@pytest.mark.forward
@pytest.mark.parametrize(
    ("path", "field", "value", "says"),
    [
        ("/v1/chat/completions", "store", True, "/v1/responses"),
        ("/v1/chat/completions", "audio", {"voice": "x"}, "audio"),
        ("/v1/chat/completions", "modalities", ["audio"], "'text'"),
        ("/v1/chat/completions", "verbosity", "low", "'medium'"),
        ("/v1/chat/completions", "functions", [{"name": "f"}], "tools"),
        ("/v1/chat/completions", "function_call", "auto", "tools"),
        ("/v1/chat/completions", "web_search_options", {"a": 1}, "web"),
        ("/v1/chat/completions", "repeat_penalty", 1.1, "did you mean repetition_penalty"),
        ("/v1/chat/completions", "ignore_eos", True, "ignore_eos"),
        ("/v1/chat/completions", "stream_options", {"continuous_usage_stats": True}, "continuous_usage_stats"),
        ("/v1/responses", "top_logprobs", 3, "chat completions"),
        ("/v1/responses", "include", ["file_search_call.results"], "reasoning.encrypted_content"),
        ("/v1/responses", "multi_agent", {"enabled": True}, "NAME:PROGRAM-4"),
        ("/v1/messages", "mcp_servers", [{"url": "http://127.0.0.1"}], "mcp_servers"),
        ("/v1/messages", "context_management", {"edits": [{"type": "clear_tool_uses_20250919"}]}, "clear_thinking"),
        ("/v1/messages", "output_config", {"task_budget": {"type": "tokens", "total": 9}}, "max_tokens"),
    ],
)
def test_what_is_not_there_says_why(server: Served, path: str, field: str, value: Any, says: str) -> None:
    refused = server.post(path, {"model": "toy", **BODIES[path], field: value})
    assert refused.status_code == 400
    assert says in refused.json()["error"]["message"]


@pytest.mark.forward
@pytest.mark.parametrize("path", WRITES[:2])
def test_what_other_servers_have_is_taken_at_the_value_that_does_nothing(server: Served, path: str) -> None:
    body = {"model": "toy", **BODIES[path]}
    assert server.post(path, body | dict(NEUTRAL)).status_code == 200
    for name, value in NEUTRAL.items():
        other: Any = [3] if isinstance(value, list) else not value if isinstance(value, bool) else 0.5
        refused = server.post(path, body | {name: other})
        assert refused.status_code == 400, name
        assert name in refused.json()["error"]["message"]


@pytest.mark.forward
@pytest.mark.parametrize("path", WRITES)
def test_fields_that_pick_tokens_work_wherever_a_model_writes(server: Served, path: str) -> None:
    """A bias leaves one token alone; the same seed, below 0 too, picks the same again."""

    def written(**more: Any) -> str:
        reply = server.post(path, {"model": "toy", **BODIES[path], **more})
        assert reply.status_code == 200, reply.text
        body = reply.json()
        if "choices" in body:
            return str(body["choices"][0].get("text") or body["choices"][0]["message"]["content"])
        blocks = body["content"] if path == "/v1/messages" else body["output"][-1]["content"]
        return str(blocks[0]["text"])

    z, y = server.post("/tokenize", {"prompt": "zy", "add_special_tokens": False}).json()["tokens"]
    assert written(logit_bias={str(z): 100}) == "zzzz"
    two: Any = {"logit_bias": {str(z): 100, str(y): 99}, "temperature": 0}
    alone = written(**two)
    assert set(alone) <= {"z", "y"}
    for penalty in ({"frequency_penalty": 2}, {"presence_penalty": 2}, {"repetition_penalty": 2}):
        assert set(written(**two, **penalty)) == {"z", "y"}
    assert written(**two, dry_multiplier=50, dry_allowed_length=1) != alone
    assert written(seed=-1) == written(seed=-1) != written(seed=7)
    assert written(top_k=1) == written(temperature=0) == written(min_p=1.0)


def test_how_hard_to_think() -> None:
    """A switch is all that there is."""
    chat: dict[str, Any] = {"model": "toy", "messages": USER}
    assert ChatForm(**chat).thinking is None
    assert ChatForm(**chat, reasoning_effort="none").thinking is False
    assert ChatForm(**chat, reasoning_effort="high").thinking is True
    switch: Any = {"enable_thinking": False}
    assert ChatForm(**chat, reasoning_effort="high", chat_template_kwargs=switch).thinking is False
    effort: Any = {"effort": "minimal", "summary": "auto"}
    assert ResponseForm(model="toy", input="x", reasoning=effort).thinks is False
