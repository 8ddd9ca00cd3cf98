"""``/v1/completions``: text or token ids to text, with echo and log-probabilities."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from fastapi import APIRouter, Request
from starlette.responses import Response

from kvorum.engine.decode import Token
from kvorum.jsontypes import JsonObject
from kvorum.serve.api.dependencies import Client, ServiceDep
from kvorum.serve.api.model_names import read_model_name
from kvorum.serve.api.plain_decode import DecodedChoice, client_name, decode_request, finish_reason, plain_reply
from kvorum.serve.api.team_reply import team_reply
from kvorum.serve.engine_thread.generator import DecodeRequest, EchoedPrompt, NewToken
from kvorum.serve.engine_thread.scoring import Scored
from kvorum.serve.errors import ApiError
from kvorum.serve.logprob_format import LogprobFormat, TextOffsets
from kvorum.serve.reply_models import CompletionReply, errors
from kvorum.serve.request_models import CompletionForm
from kvorum.serve.service import Service

router = APIRouter(tags=["OpenAI"])


@router.post(
    "/v1/completions",
    response_model=None,
    responses={
        200: {"model": CompletionReply, "content": {"text/event-stream": {}}},
        **errors(404, 408, 409, 413, 415, 429),
    },
    summary="Complete text",
)
async def completions(form: CompletionForm, request: Request, service: ServiceDep, client: Client) -> Response:
    """Text or token ids to text. ``echo`` with ``logprobs`` scores the prompt, as log-likelihood harnesses ask."""
    named, client = read_model_name(service, form.model), client_name(client, form)
    if form.suffix:
        raise ApiError(400, "This server does not fill in between two texts.", param="suffix")
    if form.best_of is not None and form.best_of != (form.n or 1):
        raise ApiError(400, "best_of is not taken here; ask for n replies.", param="best_of")
    if named.program is not None:
        if not isinstance(form.prompt, str):
            raise ApiError(400, "A program takes one prompt, as text.", param="prompt")
        return await team_reply(service, named, form, form.prompt, form.max_tokens, request, client)
    top = None if form.logprobs is None or form.logprobs is False else int(form.logprobs)
    if top is not None and not 0 <= top <= 20:
        raise ApiError(400, "logprobs lies from 0 to 20.", param="logprobs")
    tokens = 16 if form.max_tokens is None else form.max_tokens
    if not tokens and not form.echo:
        raise ApiError(400, "max_tokens=0 needs echo=true: there is nothing to reply otherwise.", param="max_tokens")
    prompts = await _prompts(service, form.prompt)
    wanted = decode_request(service, form, prompts, tokens, top=top, echo=bool(form.echo))
    how = _TextFormat(service, wanted, None if top is None else service.logprobs)
    return await plain_reply(service, form, wanted, request, client, how)


async def _prompts(service: Service, given: str | list[str] | list[int] | list[list[int]]) -> list[list[int]]:
    """The token ids of each prompt. Raises ApiError for none, too many, or ids that the model does not have."""
    if isinstance(given, str):
        return [await service.encode(given)]
    ids = [part for part in given if isinstance(part, int)]
    if ids:
        return [service.ids(ids)]
    if not given:
        raise ApiError(400, "The prompt is empty: it has no token to go on from.", param="prompt")
    if len(given) > service.settings.limits.choices:
        raise ApiError(400, f"At most {service.settings.limits.choices} prompts at a time.", param="prompt")
    texts = [(await service.encode(one)) if isinstance(one, str) else one for one in given]
    return [service.ids(one) for one in texts if isinstance(one, list)]


class _TextFormat:
    """How completions of ``prompts`` are written; ``logprobs`` None: they are not asked for."""

    def __init__(self, service: Service, wanted: DecodeRequest, logprobs: LogprobFormat | None) -> None:
        self._tokenizer, self._wanted, self._logprobs = service.engine.tokenizer, wanted, logprobs
        self._offsets: dict[int, TextOffsets] = {}  # by the reply's index

    def whole(self, choice: DecodedChoice) -> JsonObject:
        text, offsets = self._next(choice.index, choice.tokens, choice.echoed)
        logprobs = None if self._logprobs is None else self._logprobs.plain(choice.tokens, offsets, choice.echoed)
        return {"text": text + choice.text, "logprobs": logprobs, "finish_reason": choice.finish}

    def parts(self, piece: NewToken | EchoedPrompt) -> Iterator[JsonObject]:
        tokens, scored, finish = [], None, None
        if isinstance(piece, EchoedPrompt):
            scored, finish = piece.scored, None if self._wanted.tokens else "length"
        else:
            tokens, finish = [piece.token], piece.token.finish and finish_reason(piece.token.finish)
        text, offsets = self._next(piece.index, tokens, scored)
        text += "".join(token.text for token in tokens)
        logprobs = None if self._logprobs is None else self._logprobs.plain(tokens, offsets, scored)
        if text or finish or logprobs or scored:  # else it is part of a character
            yield {"text": text, "logprobs": logprobs, "finish_reason": finish}

    def _next(self, index: int, tokens: Sequence[Token], echoed: Scored | None) -> tuple[str, list[int]]:
        """The echoed text, and where the echoed tokens and ``tokens`` begin."""
        prompt = self._wanted.prompts[index // self._wanted.choices]
        places = self._offsets.setdefault(index, TextOffsets(self._tokenizer, prompt))
        offsets, text = ([], "") if echoed is None else places.echoed(echoed.ids)
        return text, offsets + places.next(tokens)
