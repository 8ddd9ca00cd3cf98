"""``/tokenize``, ``/detokenize`` and ``/apply-template``, as llama-server and vLLM have them, in one."""

from __future__ import annotations

import asyncio

from fastapi import APIRouter

from kvorum.engine.detokenizer import decode
from kvorum.engine.text import encode, needed
from kvorum.models.tokenizer import Tokenizer
from kvorum.serve.api.chat_messages import template_messages
from kvorum.serve.api.chat_turn import chat_turn
from kvorum.serve.api.request_checks import ServiceDep, find_model
from kvorum.serve.asked_tools import asked_tools
from kvorum.serve.errors import ApiError
from kvorum.serve.reply_models.base import errors
from kvorum.serve.reply_models.texts import PromptReply, TextReply, TokenizerReply, TokensReply
from kvorum.serve.request_models.texts import DetokenizeForm, TokenizeForm
from kvorum.serve.request_models.tools import ToolsForm
from kvorum.serve.service import Service

router = APIRouter(tags=["Text"])


@router.post("/tokenize", responses=errors(404, 413, 415), summary="Text or a conversation to token ids")
async def tokenize(form: TokenizeForm, service: ServiceDep) -> TokensReply:
    """The ids that a prompt, or a conversation in the model's chat template, is given to the model as."""
    ids = await _ids(form, service)
    pieces = [decode(service.engine.tokenizer, [token], special=True) for token in ids]
    tokens = [{"id": token, "piece": piece} for token, piece in zip(ids, pieces, strict=True)]
    return TokensReply(
        tokens=tokens if form.with_pieces else ids,
        count=len(ids),
        max_model_len=service.context,
        token_strs=pieces if form.return_token_strs else None,
    )


@router.post("/detokenize", responses=errors(404, 413, 415), summary="Token ids to text")
async def detokenize(form: DetokenizeForm, service: ServiceDep) -> TextReply:
    """The text that the ids spell, special ones too."""
    _named(service, form.model)
    ids = service.ids(form.tokens)
    text = await asyncio.to_thread(decode, service.engine.tokenizer, ids, special=True)
    return TextReply(content=text, prompt=text)


@router.post("/apply-template", responses=errors(404, 413, 415), summary="A conversation as the model is given it")
async def apply_template(form: TokenizeForm, service: ServiceDep) -> PromptReply:
    """A conversation in the model's chat template, up to where the assistant begins, as text."""
    if form.messages is None:
        raise ApiError(400, "A template needs messages.", param="messages")
    ids = await _ids(form, service)
    return PromptReply(prompt=await asyncio.to_thread(decode, service.engine.tokenizer, ids, special=True))


@router.get("/tokenizer_info", responses=errors(404), summary="What the tokenizer adds by itself")
async def tokenizer_info(service: ServiceDep) -> TokenizerReply:
    """Its special tokens and its chat template, in vLLM's form: what a client needs that counts tokens through
    ``/tokenize``. Of the model that was given first."""
    tokenizer = needed(service.engine.tokenizer)
    ends = tokenizer.eos_token_id
    return TokenizerReply(
        tokenizer_class=type(tokenizer).__name__,
        eos_token=None if ends is None else decode(tokenizer, [ends], special=True),
        bos_token=_first(tokenizer),
        chat_template=tokenizer.get_chat_template(tools=None) if tokenizer.chat_template else None,
        model_max_length=service.context,
    )


def _first(tokenizer: Tokenizer) -> str | None:
    """The token that the tokenizer puts before a text, if it puts one there."""
    added = encode(tokenizer, "", special=True)
    return decode(tokenizer, added[:1], special=True) if added and added[0] != tokenizer.eos_token_id else None


async def _ids(form: TokenizeForm, service: Service) -> list[int]:
    _named(service, form.model)
    given = [name for name in ("content", "prompt", "messages") if getattr(form, name) is not None]
    if len(given) != 1:
        raise ApiError(400, "Send one of content, prompt and messages.", param=given[1] if given else "prompt")
    if form.messages is not None:
        asked = asked_tools(ToolsForm(tools=form.tools, tool_choice="none"))
        return (await chat_turn(service, template_messages(form.messages), asked)).ids
    text = form.content if form.content is not None else form.prompt or ""
    given_special = form.add_special if form.add_special is not None else form.add_special_tokens
    special = form.prompt is not None if given_special is None else given_special
    service.check_length(text)
    return service.ids(await asyncio.to_thread(encode, service.engine.tokenizer, text, special=special))


def _named(service: Service, model: str | None) -> None:
    if model is not None:
        find_model(service, model)
