"""What the bodies of requests have in common: kinds of numbers and texts, and how unknown fields are met."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StrictInt, model_validator
from pydantic_core import PydanticCustomError

from kvorum.jsontypes import Json
from kvorum.serve.errors import UNKNOWN_FIELD
from kvorum.wording import unknown

Words = Annotated[str, Field(max_length=2**22)]


def _drawn(seed: int) -> int:
    return seed % 2**64


Seed = Annotated[StrictInt, Field(ge=-9223372036854776000, le=9223372036854776000), AfterValidator(_drawn)]
"""In the bounds of OpenAI's reference; as draws take it, so that no two whole numbers of 64 bits are one seed."""
Number = Annotated[float, Field(strict=True)]
"""No text and no truth value, as OpenAI's servers have it; a whole number is one."""
Share = Annotated[Number, Field(ge=0, le=1)]
Penalty = Annotated[Number, Field(ge=-2, le=2)]
Factor = Annotated[Number, Field(gt=0, le=100)]
TokenId = Annotated[str, Field(pattern=r"^[0-9]{1,10}$")]
Biases = Annotated[dict[TokenId, Annotated[Number, Field(ge=-100, le=100)]], Field(max_length=1024)]
"""By token id, which JSON has as text; OpenAI's bounds."""
Count = Annotated[StrictInt, Field(ge=1, lt=2**31)]


class RequestModel(BaseModel):
    """A part of a body; null is as if the field were not there, as with OpenAI. Unknown fields are left unread, since
    clients send replies back as they came, with fields that have no meaning in what is asked."""

    model_config = ConfigDict(extra="ignore", allow_inf_nan=False, protected_namespaces=())
    idle: ClassVar[frozenset[str]] = frozenset()
    """Fields that are taken though a reply would be the same without them."""
    neutral: ClassVar[Mapping[str, Json]] = {}
    """Fields that others have, each with the value that changes nothing: with it they are taken, and else unknown."""
    absent: ClassVar[Mapping[str, str]] = {}
    """Fields that others have, and why they are refused here; empty, false and 0 are as if they were not there."""

    @model_validator(mode="before")
    @classmethod
    def _given(cls, body: Json) -> Json:
        if not isinstance(body, dict):
            return body
        known = [field.alias or name for name, field in cls.model_fields.items()]
        taken = {name for name, value in cls.neutral.items() if name not in known and body.get(name) == value}
        body = {n: value for n, value in body.items() if value is not None and n not in cls.idle | taken}
        for name, why in cls.absent.items():
            if body.get(name):
                raise _unknown(name, why)
            body.pop(name, None)
        strange = [name for name in body if name not in known]
        if strange and cls.model_config["extra"] == "forbid":
            raise _unknown(strange[0], unknown("field", strange[0], known))
        return body


class StrictRequest(RequestModel):
    """A body without unknown fields: one is refused before all else, with the near ones that there are."""

    model_config = ConfigDict(extra="forbid")


def _unknown(field: str, message: str) -> PydanticCustomError:
    return PydanticCustomError(UNKNOWN_FIELD, "{message}", {"message": message, "field": field})
