"""Whether two models spell text with the same tokens, so that one can say what the other may go on with."""

from __future__ import annotations

from kvorum.errors import BadRequest
from kvorum.models.tokenizer import Tokenizer


def check_same_vocabulary(one: Tokenizer | None, name: str, other: Tokenizer | None, others_name: str) -> None:
    """Ids that both have must be the same tokens; one may have further ones, as for padding.

    Raises:
        BadRequest: a model has no tokenizer, or an id is another token in the other; the message says which.
    """
    if one is None or other is None:
        raise BadRequest(f"{others_name} cannot draft for {name}: both must be loaded with their tokenizers.")
    mine, theirs = ({at: token for token, at in each.get_vocab().items()} for each in (one, other))
    for at in sorted(mine.keys() & theirs.keys()):
        if mine[at] != theirs[at]:
            raise BadRequest(
                f"{others_name} cannot draft for {name}: token {at} is {theirs[at]!r} there and {mine[at]!r} here; "
                "take a smaller model of the same family, with the same tokenizer."
            )
