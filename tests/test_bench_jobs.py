"""Whole jobs of `kvorum bench`: what is asked and what counts as right, and what a llama-server is sent.

A small HTTP server stands in for llama-server's wire; the real one is no package, so it is run by hand
(docs/performance.md says with which version). Not here: seconds.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

import toy_engine
from kvorum.bench.fanout.jobs import Form, Questions, Statements
from kvorum.bench.fanout.llama_server import LlamaServer
from kvorum.bench.fanout.our_server import OurServer
from kvorum.bench.fanout.ours import Ours
from kvorum.bench.fanout.peer import Prompts, Wanted
from kvorum.bench.fanout.static_cache import StaticPrompt
from kvorum.errors import BenchError
from serving import served


def test_right_answers_count_and_wrong_ones_do_not() -> None:
    questions, form, statements = Questions.make(0), Form.make(1), Statements.make(2)
    assert (len(questions.facts), len(form.facts), len(statements.said)) == (16, 12, 20)
    assert questions.right([f"It is {fact.answer}.\nAnd more" for fact in questions.facts]) == 16
    assert questions.right(["I do not know."] * 16) == 0
    whole = {fact.key: int(fact.answer) if fact.whole else fact.answer for fact in form.facts}
    assert form.right([json.dumps(whole)]) == 12
    assert form.right([json.dumps(whole | {form.facts[0].key: "?"})]) == 11
    assert form.right([f' "{fact.answer}",' for fact in form.facts]) == 12
    assert form.right(["no JSON"]) == 0
    assert 5 < sum(statements.true) < 15
    assert statements.right(["Yes" if true else "No" for true in statements.true]) == 20
    assert statements.right(["yes"] * 20) == sum(statements.true)


@pytest.mark.slow
def test_decisions_over_http_are_those_of_the_engine(tmp_path: Path) -> None:
    """Of a text that is encoded first, and of one that is kept."""
    said, engine = Statements.make(2, places=2, count=3), toy_engine.engine(name="toy")
    own = Ours(engine, tmp_path / "kept")
    expected = own.decide(said, own.state(said), together=True).texts
    with served(toy_engine.engine(name="toy"), tmp_path, prompt_tokens=4000) as up:
        server = OurServer(up.url, "toy")
        assert server.decide(said, server.keep(said)).texts == expected
        assert len(server.decide(said).texts) == 3
        with pytest.raises(BenchError, match="refused /v1/decisions"):
            server.decide(said, "block_none")
        server.close()


class _Wire(BaseHTTPRequestHandler):
    """What llama-server answers; ``seen`` has what it was sent."""

    seen: list[tuple[str, Any]] = []  # noqa: RUF012 - one server at a time
    refuses = False

    def do_GET(self) -> None:
        self._reply({"status": "ok"})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.seen.append((self.path, body))
        self._reply(
            {"error": {"message": "no"}} if self.refuses else {"content": f"said {len(body.get('prompt', ()))}"}
        )

    def _reply(self, body: dict[str, Any]) -> None:
        data = json.dumps(body).encode()
        self.send_response(500 if "error" in body else 200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def wire() -> Iterator[str]:
    _Wire.seen, _Wire.refuses = [], False
    with ThreadingHTTPServer(("127.0.0.1", 0), _Wire) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_the_text_is_handed_to_every_slot_and_each_prompt_goes_to_one(wire: str) -> None:
    peer = LlamaServer(wire, Path("model.gguf"), slots=3, room=64, threads=2)
    peer.keep([5, 6])
    paths = [path for path, _ in _Wire.seen]
    assert paths == ["/completion", "/slots/0?action=save", "/slots/1?action=restore", "/slots/2?action=restore"]
    assert _Wire.seen[0][1]["prompt"] == [5, 6]
    _Wire.seen.clear()
    schema = {"type": "object"}
    replies = peer.write(Prompts([5, 6], [[7], [8, 9], [1], [2]]), Wanted(4, stops=("x",), schema=schema))
    assert replies.texts == ["said 3", "said 4", "said 3", "said 3"]
    sent = {tuple(body["prompt"]): body for _, body in _Wire.seen}
    assert {key: body["id_slot"] for key, body in sent.items()} == {
        (5, 6, 7): 0,
        (5, 6, 8, 9): 1,
        (5, 6, 1): 2,
        (5, 6, 2): 0,
    }
    body = sent[5, 6, 7]
    assert (body["n_predict"], body["stop"], body["json_schema"], body["temperature"]) == (4, ["x"], schema, 0)
    peer.close()


def test_a_server_that_is_not_there_or_refuses_is_named(wire: str) -> None:
    with pytest.raises(BenchError, match="no llama-server answers"):
        LlamaServer("http://127.0.0.1:1", Path("model.gguf"), slots=1, room=64, threads=2)
    with pytest.raises(BenchError, match="cannot be started"):
        LlamaServer("/no/such/llama-server", Path("model.gguf"), slots=1, room=64, threads=2)
    with pytest.raises(BenchError, match="ended with exit code"):
        LlamaServer("/bin/false", Path("model.gguf"), slots=1, room=64, threads=2)
    peer = LlamaServer(wire, Path("model.gguf"), slots=1, room=64, threads=2)
    _Wire.refuses = True
    with pytest.raises(BenchError, match="refused /completion"):
        peer.keep([1])


def test_transformers_reads_only_what_is_new_of_a_longer_beginning() -> None:
    engine = toy_engine.engine(torch.float32)
    text, form, ending = (engine.tokenizer(words).input_ids for words in ("A pump drips. " * 4, "Its form: ", "key"))
    both, prompts = [*text, *form], Prompts([*text, *form], [ending, ending[:1]])
    read: list[int] = []
    model = engine.model
    assert isinstance(model, PreTrainedModel)
    hook = model.get_input_embeddings().register_forward_hook(lambda _, args, __: read.append(args[0].shape[1]))
    whole, parts = (StaticPrompt(model, engine.tokenizer, 256) for _ in range(2))
    whole.keep(both)
    parts.keep(text)
    parts.keep(both)
    assert read == [len(both), len(text), len(form)]
    assert parts.write(prompts, Wanted(6)).texts == whole.write(prompts, Wanted(6)).texts
    parts.keep(both)  # again, from the start
    hook.remove()
    assert read[-1] == len(both)
