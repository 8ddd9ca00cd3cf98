"""A tokenizer of the `tokenizers` package with its chat template: what kvorum asks of one, without transformers.

It is made of a loaded tokenizer of transformers, and kept as that one stood, so that text and ids are the same by
construction. What transformers' tokenizers can do besides is done by that tokenizer, loaded when it is first asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tokenizers import Tokenizer as Compiled

from kvorum.jsontypes import Json
from kvorum.models.chat_template import render

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True, slots=True)
class Spelling:
    """What a tokenizer says besides its compiled part.

    ``names``: the special tokens by what templates call them, as in ``eos_token``. ``special``: the ids of all of them.
    """

    names: Mapping[str, str]
    special: Sequence[int]
    end: int | None
    template: str | Mapping[str, str] | None
    cleans: bool

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerBase) -> Spelling:
        """That of a loaded tokenizer."""
        return cls(
            names=dict(tokenizer.special_tokens_map),
            special=list(tokenizer.all_special_ids),
            end=tokenizer.eos_token_id,
            template=tokenizer.chat_template,
            cleans=bool(tokenizer.clean_up_tokenization_spaces),
        )


class LightTokenizer:
    """See `kvorum.models.tokenizer.Tokenizer`. ``load``: loads the tokenizer of transformers that it stands for."""

    def __init__(
        self, compiled: Compiled, spelling: Spelling, load: Callable[[], PreTrainedTokenizerBase | None]
    ) -> None:
        compiled.no_padding()
        compiled.no_truncation()
        self.backend_tokenizer = compiled
        self.chat_template = spelling.template
        self.eos_token_id = spelling.end
        self._spelling, self._load = spelling, load

    @classmethod
    def read(cls, path: Path, spelling: Spelling, load: Callable[[], PreTrainedTokenizerBase | None]) -> LightTokenizer:
        """From the file of a compiled tokenizer."""
        return cls(Compiled.from_file(str(path)), spelling, load)

    @cached_property
    def whole(self) -> Any:
        """The tokenizer of transformers."""
        return self._load()

    def __getattr__(self, name: str) -> Any:
        """Whatever else transformers' tokenizers have."""
        if name.startswith("__") or name in ("_load", "_spelling", "backend_tokenizer"):  # while it is being copied
            raise AttributeError(name)
        return getattr(self.whole, name)

    def __len__(self) -> int:
        return self.backend_tokenizer.get_vocab_size(with_added_tokens=True)

    @property
    def all_special_ids(self) -> list[int]:
        """The ids of tokens that stand for no text."""
        return list(self._spelling.special)

    def __call__(
        self, text: str | Sequence[str], *, add_special_tokens: bool = True, **options: Json
    ) -> Mapping[str, Sequence[int]]:
        """One text to ids, under ``input_ids``, and the mask that goes with them; all else as transformers does it."""
        if not isinstance(text, str) or set(options) - {"split_special_tokens"}:
            found: Mapping[str, Sequence[int]] = self.whole(text, add_special_tokens=add_special_tokens, **options)
            return found
        self.backend_tokenizer.encode_special_tokens = bool(options.get("split_special_tokens", False))
        ids = self.backend_tokenizer.encode(text, add_special_tokens=add_special_tokens).ids
        return Ids(input_ids=ids, attention_mask=[1] * len(ids))

    def decode(
        self,
        token_ids: int | Sequence[int],
        skip_special_tokens: bool = False,
        clean_up_tokenization_spaces: bool | None = None,
    ) -> str:
        """Ids to text, special tokens left out or not."""
        cleans = self._spelling.cleans if clean_up_tokenization_spaces is None else clean_up_tokenization_spaces
        if cleans or not isinstance(token_ids, list):  # an array, say, or several texts
            options = {"skip_special_tokens": skip_special_tokens, "clean_up_tokenization_spaces": cleans}
            text: str = self.whole.decode(token_ids, **options)
            return text
        return self.backend_tokenizer.decode(token_ids, skip_special_tokens=skip_special_tokens)

    def get_vocab(self) -> dict[str, int]:
        """Every token as the tokenizer spells it, and its id."""
        return self.backend_tokenizer.get_vocab(with_added_tokens=True)

    def get_chat_template(self, chat_template: str | None = None, tools: Json = None) -> str:
        """The template, of several the one of that name, else the one for tools or the default."""
        if not isinstance(self.chat_template, str) or chat_template is not None:
            return str(self.whole.get_chat_template(chat_template, tools))
        return self.chat_template

    def apply_chat_template(
        self, conversation: Sequence[Mapping[str, Json]], *, tokenize: bool = True, **variables: Json
    ) -> str:
        """A conversation as the text that the model was trained on, or as its ids."""
        given = variables.get("chat_template") or self.chat_template
        if tokenize or not isinstance(given, str) or _BEYOND & variables.keys():
            text: str = self.whole.apply_chat_template(conversation, tokenize=tokenize, **variables)
            return text
        more = {name: value for name, value in variables.items() if name != "chat_template"}
        return render(given, conversation, **{**self._spelling.names, **more})


_BEYOND = frozenset({"continue_final_message", "return_assistant_tokens_mask", "sanitize_control_tokens"})
"""What transformers does with a template that is not rendering it."""


class Ids(dict[str, list[int]]):
    """What a tokenizer of transformers answers with: a dictionary whose entries are attributes too."""

    def __getattr__(self, name: str) -> list[int]:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None
