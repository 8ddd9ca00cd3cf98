"""Bodies of requests that are nearly right: a body that each route takes, broken at random places however deep.

What is made from the server's description alone mostly ends at the first check: an unknown model, a question without a
type. These bodies pass it, and go wrong further inside.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any

from hypothesis import strategies as st

_MESSAGES: list[Any] = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": [{"type": "text", "text": "What is 2 + 3?"}]},
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"a": 2}'}}],
    },
    {"role": "tool", "tool_call_id": "c1", "content": "5"},
]
_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"a": {"type": "integer", "minimum": 0, "maximum": 99}, "b": {"enum": ["x", None, 1.5]}},
    "required": ["a"],
    "additionalProperties": False,
}
_TOOL = {"name": "add", "description": "adds", "parameters": _SCHEMA, "strict": True}
_DRAWN = {"temperature": 0.7, "top_p": 0.9, "top_k": 5, "seed": 1, "stop": ["\n\n"], "logit_bias": {"5": 1}}


def bodies(model: str, *, block: str, response: str) -> dict[str, Any]:
    """A body for each route that takes one, by its path; each is answered. ``block`` and ``response`` exist."""
    view = [{"block": block, "from": 0, "to": 2}, {"gap": 3}]
    asked = [
        {"type": "predicate", "name": "dry", "instructions": "Is it dry?"},
        {"type": "choice", "instructions": "Who?", "choices": [{"value": "Ann"}, {"value": True, "description": "B"}]},
        {"type": "score", "instructions": "How wet?", "levels": [{"label": "dry"}, {"label": "wet"}]},
    ]
    named = {
        "dry": {"type": "noul", "instructions": "Is it dry?"},
        "who": {"type": "choice", "criteria": {"Ann": None, "Bob": "the other"}},
        "wet": {"type": "score", "criteria": ["dry", "wet"]},
    }
    function = {"type": "function", "function": _TOOL}
    chosen = {"type": "function", "function": {"name": "add"}}
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": _SCHEMA, "strict": True}}
    items: list[Any] = [
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Add."}]},
        {"type": "function_call", "call_id": "c1", "name": "add", "arguments": '{"a": 2}'},
        {"type": "function_call_output", "call_id": "c1", "output": [{"type": "input_text", "text": "5"}]},
    ]
    responding = {
        "model": model, "input": items, "instructions": "Be brief.", "tools": [{"type": "function", **_TOOL}],
        "tool_choice": {"type": "function", "name": "add"}, "text": {"format": {"type": "text"}},
        "metadata": {"a": "b"}, "previous_response_id": response,
    }  # fmt: skip
    used = {"type": "tool_use", "id": "toolu_1", "name": "add", "input": {"a": 2}}
    talk = [
        {"role": "user", "content": [{"type": "text", "text": "Add."}]},
        {"role": "assistant", "content": [used]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "toolu_1", "content": [
            {"type": "text", "text": "5"}]}]},
    ]  # fmt: skip
    tool = {"name": "add", "description": "adds", "input_schema": _SCHEMA}
    message = {"model": model, "system": [{"type": "text", "text": "Be brief."}], "messages": talk, "tools": [tool]}
    return {
        "/v1/chat/completions": {
            "model": model, "messages": _MESSAGES, "tools": [function], "tool_choice": chosen, "max_tokens": 8,
            "response_format": None, "logprobs": False, "n": 1, **_DRAWN,
        },
        "/v1/completions": {
            "model": model, "prompt": ["a", "b"], "max_tokens": 4, "response_format": form, "echo": False, **_DRAWN,
            "kvorum": {"view": view},
        },
        "/v1/systemone": {"model": model, "state": {"a": ["b", {"c": 1}]}, "questions": named, "orders": 2},
        "/v1/decisions": {"model": model, "input": items, "questions": asked, "orders": 1},
        "/v1/ask": {
            "model": model, "documents": {"one": "It is dry.", "two": {"block": block}}, "questions": ["Is it?"],
            "tokens": 3, "quote": False, "keep": False, "rows": 2,
        },
        "/v1/fields": {"model": model, "document": "a is 5.", "schema": _SCHEMA, "tokens": 3, "keep": False},
        "/v1/responses": {**responding, "max_output_tokens": 4, "store": True, "background": False},
        "/v1/responses/input_tokens": responding,
        "/v1/messages": {
            **message, "max_tokens": 4, "tool_choice": {"type": "tool", "name": "add"}, "stop_sequences": ["x"],
            "metadata": {"user_id": "u"},
        },
        "/v1/messages/count_tokens": message,
        "/v1/runs": {
            "problem": "Count.", "model": model, "program": "vote", "workers": ["Ann", "Bob"], "params": {},
            "budget": {"ticks": 3}, "sampling": {"temperature": 0.5, "logit_bias": {"5": 1}}, "seed": 1,
        },
        "/v1/runs/{run}/step": {"ticks": 1},
        "/v1/runs/{run}/commands": {"kind": "say", "worker": "Alice", "text": "Go on."},
        "/v1/runs/{run}/fork": {"tick": 1, "seed": 2, "budget": {"ticks": 4}, "paused": True},
        "/v1/blocks": {"model": model, "messages": _MESSAGES[:2], "name": "notes", "sealed": False},
        "/v1/blocks/{block}/append": {"text": "More."},
        "/tokenize": {"model": model, "messages": _MESSAGES, "tools": [function], "add_special": True},
        "/detokenize": {"model": model, "tokens": [1, 2, 3]},
        "/apply-template": {"model": model, "messages": _MESSAGES, "tools": [function]},
        "/v1/embeddings": {"model": model, "input": [[1, 2], [3]], "encoding_format": "float"},
        "/mcp": {
            "jsonrpc": "2.0", "id": 1, "method": "tools/call",
            "params": {"name": "decide", "arguments": {"text": "It is dry.", "questions": asked}},
        },
    }  # fmt: skip


_ODD: list[Any] = [
    None, True, 0, -1, 1e308, 2**63, 10**30, "", "\0", "\ud800", "../../x", "/etc/passwd", "file:///etc/passwd",
    "http://127.0.0.1:9/x", "{{ 7 * 7 }}", "<|im_end|>", "a" * 300, "\u202e", [], {}, [[]], {"": {}}, [None],
    {"$ref": "http://127.0.0.1:9/x"}, {"type": "image_url", "image_url": {"url": "file:///etc/passwd"}},
]  # fmt: skip
_LEAVES = st.sampled_from(_ODD) | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8)
_ANY = st.recursive(_LEAVES, lambda below: st.lists(below, max_size=3) | st.dictionaries(st.text(max_size=5), below))


def places(body: Any) -> list[tuple[Any, Any]]:
    """Each object or list in ``body`` with a key or index in it."""
    found: list[tuple[Any, Any]] = []
    waiting = [body]
    while waiting:
        part = waiting.pop()
        keys = [*part] if isinstance(part, dict) else [*range(len(part))] if isinstance(part, list) else []
        found += [(part, key) for key in keys]
        waiting += [part[key] for key in keys]
    return found


def broken(body: Any) -> st.SearchStrategy[Any]:
    """``body`` with one to three places replaced, left out, doubled, wrapped or filled from elsewhere in it."""

    @st.composite
    def one(draw: Callable[[st.SearchStrategy[Any]], Any]) -> Any:
        made = deepcopy(body)
        for _ in range(draw(st.integers(1, 3))):
            there = places(made)
            if not there:
                break
            part, key = there[draw(st.integers(0, len(there) - 1))]
            how = draw(st.sampled_from(["replace", "replace", "leave out", "wrap", "double", "swap"]))
            if how == "replace":
                part[key] = deepcopy(draw(_ANY))  # what is drawn is shared
            elif how == "leave out":
                del part[key]
            elif how == "wrap":
                part[key] = draw(st.sampled_from([[part[key]], {"x": part[key]}, [part[key], part[key]]]))
            elif isinstance(part, list):
                part.append(deepcopy(part[key]))
            else:
                other, at = there[draw(st.integers(0, len(there) - 1))]
                part[draw(st.text(max_size=4)) if how == "double" else key] = deepcopy(other[at])
        return made

    return one()
