"""``/v1/blocks``: the cache as shared memory."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Request

from kvorum.serve.api.chat_messages import template_messages
from kvorum.serve.api.request_checks import AllowedDep, Client, ServiceDep, hold_model
from kvorum.serve.engine_thread.saved_blocks import about_block
from kvorum.serve.errors import ApiError
from kvorum.serve.keys.caller import Caller
from kvorum.serve.reply_models.base import Deleted, errors
from kvorum.serve.reply_models.blocks import BlockList, BlockReply
from kvorum.serve.request_models.blocks import AppendForm, BlockForm
from kvorum.serve.server import Server
from kvorum.serve.service import Service

router = APIRouter(tags=["Blocks"])

BlockId = Annotated[str, Path(max_length=80)]


async def _ids(service: Service, form: AppendForm) -> list[int]:
    messages = form.messages if isinstance(form, BlockForm) else None
    if sum(value is not None for value in (form.text, form.ids, messages)) > 1:
        raise ApiError(400, "Give one of text, ids and messages.")
    if form.text is not None:
        return await service.encode(form.text) if form.text else []
    if messages:
        if any(m.content is None or m.tool_calls for m in messages):
            raise ApiError(400, "Messages of a block hold text and no calls.", param="messages")
        return await service.chat(template_messages(messages))
    return service.ids(form.ids or [])


async def _block_model(request: Request, block: BlockId, server: AllowedDep, client: Client) -> Service:
    models = server.models
    saved = models.saved_blocks(models.first)
    there = models.block_owner(block, client.owner) or await asyncio.to_thread(saved.model_of, block, client.owner)
    return await hold_model(request, client, models.named(there or ""))


BlockModel = Annotated[Service, Depends(_block_model)]
"""The model of the block that the path names."""


def _not_loaded(server: Server, client: Caller) -> Iterator[BlockReply]:
    """The saved blocks of models that are not loaded now."""
    for name in (name for name in server.models.sources if name not in server.models.loaded):
        saved = server.models.saved_blocks(name).all()
        yield from (about_block(held) for held in saved if held.owner == client.owner)


@router.post("/v1/blocks", status_code=201, responses=errors(404, 408, 409, 413, 415, 429))
async def create(form: BlockForm, service: ServiceDep, client: Client) -> BlockReply:
    """A block, with text in it or empty; open, unless it is to be sealed."""
    ids, name = await _ids(service, form), form.name or "block"
    return await service.thread.call(service.blocks.create, name, ids, form.view, form.sealed, client)


@router.get("/v1/blocks", responses=errors())
async def listed(server: AllowedDep, client: Client) -> BlockList:
    """All blocks, those in the store too."""
    models, found = server.models, list[BlockReply]()
    for service in list(models.loaded.values()):
        found += await server.shared.thread.call(service.blocks.listed, client)
    found += await asyncio.to_thread(lambda: list(_not_loaded(server, client)))
    return BlockList(data=sorted(found, key=lambda block: -block.created))


@router.get("/v1/blocks/{block}", responses=errors(404, 409, 429))
async def get(block: BlockId, service: BlockModel, client: Client) -> BlockReply:
    """A block with its ids and text."""
    return await service.thread.call(service.blocks.get, block, client)


@router.post("/v1/blocks/{block}/append", responses=errors(404, 408, 409, 413, 415, 429))
async def append(block: BlockId, form: AppendForm, service: BlockModel, client: Client) -> BlockReply:
    """Write text or ids on at the end of an open block."""
    ids = await _ids(service, form)
    return await service.thread.call(service.blocks.append, block, ids, form.view, client)


@router.post("/v1/blocks/{block}/save", responses=errors(404, 409, 429))
async def save(block: BlockId, service: BlockModel, client: Client) -> BlockReply:
    """Write it to the store: it is there again after a restart."""
    return await service.thread.call(service.blocks.save, block, client)


@router.delete("/v1/blocks/{block}", responses=errors(404))
async def delete(block: BlockId, service: BlockModel, client: Client) -> Deleted:
    """Forget it, here and in the store."""
    await service.thread.call(service.blocks.delete, block, client)
    return Deleted(id=block)
