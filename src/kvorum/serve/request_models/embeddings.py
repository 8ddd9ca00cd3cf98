"""The body of a request for embeddings, as OpenAI's clients send it."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, StrictInt

from kvorum.serve.request_models.base import Count, StrictRequest, Words


class EmbeddingForm(StrictRequest):
    """``input``: a text or its token ids, or a list of either."""

    model: str = Field(max_length=300)
    input: Words | list[Words] | list[StrictInt] | list[list[StrictInt]] = Field(union_mode="left_to_right")
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: Count | None = None
    user: str | None = Field(None, max_length=256)
