"""``/v1/blocks``: the cache as shared memory."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path, Request
from pydantic import Field, StrictBool, StrictInt

from kvorum.serve.api.plain_decode import check_items, client_of
from kvorum.serve.api.reply_models import BlockList, BlockReply, Deleted, errors
from kvorum.serve.api.request_models import Item, Message, Words
from kvorum.serve.api.run_routes import Strict
from kvorum.serve.errors import ApiError
from kvorum.serve.service import Service

router = APIRouter(tags=["Blocks"])

BlockId = Annotated[str, Path(max_length=80)]


class AppendForm(Strict):
    """What is written: text or ids, encoded behind what ``view`` shows."""

    text: Words | None = None
    ids: list[StrictInt] | None = None
    view: list[Item] = Field(default_factory=list, max_length=256)


class BlockForm(AppendForm):
    """A new block; ``messages`` go through the model's chat template."""

    name: str = Field("", max_length=80)
    messages: list[Message] | None = Field(None, max_length=2048)
    sealed: StrictBool = False


async def _ids(service: Service, form: AppendForm) -> list[int]:
    messages = getattr(form, "messages", None)
    given = [value for value in (form.text, form.ids, messages) if value is not None]
    if len(given) > 1:
        raise ApiError(400, "Give one of text, ids and messages.")
    if form.text is not None:
        return await service.encode(form.text) if form.text else []
    if messages:
        plain = [{"role": m.role, "content": m.content} for m in messages if isinstance(m.content, str)]
        if len(plain) < len(messages):
            raise ApiError(400, "Messages of a block hold plain text.", param="messages")
        return await service.chat(plain)
    return service.ids(form.ids or [])


def _items(form: AppendForm) -> list[dict[str, Any]]:
    items = [item.model_dump(by_alias=True, exclude_none=True) for item in form.view]
    check_items(items)
    return items


@router.post("/v1/blocks", status_code=201, response_model=BlockReply, responses=errors(404, 408, 409, 413, 415, 429))
async def create(form: BlockForm, request: Request) -> Any:
    """A block, with text in it or empty; open, unless it is to be sealed."""
    service: Service = request.app.state.service
    ids = await _ids(service, form)
    return await service.host.call(
        service.blocks.create(form.name or "block", ids, _items(form), form.sealed, client_of(request))
    )


@router.get("/v1/blocks", response_model=BlockList, responses=errors())
async def listed(request: Request) -> Any:
    """All blocks, those in the store too."""
    service: Service = request.app.state.service
    return {"object": "list", "data": await service.host.call(service.blocks.list())}


@router.get("/v1/blocks/{block}", response_model=BlockReply, responses=errors(404, 409, 429))
async def get(block: BlockId, request: Request) -> Any:
    """A block with its ids and text."""
    service: Service = request.app.state.service
    return await service.host.call(service.blocks.get(block, client_of(request)))


@router.post("/v1/blocks/{block}/append", response_model=BlockReply, responses=errors(404, 408, 409, 413, 415, 429))
async def append(block: BlockId, form: AppendForm, request: Request) -> Any:
    """Write on at its end."""
    service: Service = request.app.state.service
    ids = await _ids(service, form)
    return await service.host.call(service.blocks.append(block, ids, _items(form), client_of(request)))


@router.post("/v1/blocks/{block}/save", response_model=BlockReply, responses=errors(404, 409, 429))
async def save(block: BlockId, request: Request) -> Any:
    """Write it to the store: it is there again after a restart."""
    service: Service = request.app.state.service
    return await service.host.call(service.blocks.save(block, client_of(request)))


@router.delete("/v1/blocks/{block}", response_model=Deleted, responses=errors(404))
async def delete(block: BlockId, request: Request) -> Any:
    """Forget it, here and in the store."""
    service: Service = request.app.state.service
    await service.host.call(service.blocks.delete(block))
    return {"id": block, "deleted": True}
