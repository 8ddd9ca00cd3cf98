"""The Python part of a streamed chat: what a token costs beside its tick, in microseconds of one core.

``python benchmarks/stream_part.py`` prints two lines, each the least of five rounds: ``decode``, from a tick of 64 rows
that computes nothing to their tokens; and the HTTP side, from a token to the bytes of its event, without the socket.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from types import SimpleNamespace

import torch
from starlette.requests import Request

from kvorum import Engine, Sampling, View
from kvorum.backends.backend import Done, Work
from kvorum.backends.fake import FakeBackend
from kvorum.engine.decode import Token
from kvorum.sampling.sampling import Pick
from kvorum.serve.api.openai_reply import openai_reply
from kvorum.serve.choice_format import ChatFormat
from kvorum.serve.engine_thread.generator import Piece, ReplyPart
from kvorum.serve.request_models.chat import ChatForm
from kvorum.serve.thoughts import apart

ROWS, TOKENS, EVENTS = 64, 60, 20000


LOGITS = torch.zeros(ROWS, 49152)
PICKS = [Pick(100, -1.0)] * ROWS


class Nothing(FakeBackend):
    """Picks one token for every row."""

    def forward(self, work: Work) -> Done:
        rows = len(work.wanted)
        return Done(lambda: LOGITS[:rows], None, PICKS[:rows], None)


async def decode() -> float:
    """Microseconds a token of a row."""
    engine = Engine(Nothing(LOGITS.shape[1], kv_tokens=16384), speculate=False)
    sampling = Sampling(temperature=0.7, top_p=0.95)

    async def row(at: int) -> None:
        view = View(engine.block())
        async for _ in engine.decode(view, ids=[1, 2], sampling=sampling, max_tokens=TOKENS, stream=at, logprobs=False):
            pass

    begun = time.process_time()
    await asyncio.gather(*map(row, range(ROWS)))
    return (time.process_time() - begun) / ROWS / TOKENS * 1e6


async def pieces() -> AsyncGenerator[Piece, None]:
    """A reply, token by token."""
    for at in range(EVENTS):
        yield ReplyPart(0, " word", None, (Token(at, " word", float("nan")),))
    yield ReplyPart(0, "", "stop")


async def stream() -> float:
    """Microseconds an event."""
    state = SimpleNamespace(server=SimpleNamespace(shared=SimpleNamespace(ended=asyncio.Event())))
    scope = {"type": "http", "path": "/v1/chat/completions", "headers": [], "app": SimpleNamespace(state=state)}

    async def receive() -> dict[str, str]:
        await asyncio.sleep(3600)
        return {"type": "http.disconnect"}

    async def send(_: object) -> None:
        pass

    request = Request(scope, receive)
    form = ChatForm.model_validate({"model": "m", "messages": [{"role": "user", "content": "hi"}], "stream": True})
    begun = time.process_time()
    reply = await openai_reply(request, form, apart(pieces(), begun=False), ChatFormat())
    await reply(scope, receive, send)
    return (time.process_time() - begun) / EVENTS * 1e6


def main() -> None:
    for name, measure in (("decode, a token of a row", decode), ("an event of a stream", stream)):
        print(f"{name}: {min(asyncio.run(measure()) for _ in range(5)):.1f} us", flush=True)


if __name__ == "__main__":
    main()
