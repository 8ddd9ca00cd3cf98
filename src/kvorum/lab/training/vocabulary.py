"""A tokenizer of whole words, for models that are trained from nothing on a few tasks.

A token is a word with the space before it, a mark or a line break, and its text is itself, so that what such a model
writes goes through everything that text of any other model goes through.
"""

from __future__ import annotations

from collections.abc import Iterable

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

SPECIAL = ("<end>", "<user>", "<assistant>", "<system>", "<unknown>")
"""The end of a turn, the beginnings of turns, and any word that is not known."""
_WORD = r"\n\n|\n| ?[A-Za-z0-9]+| ?[^\sA-Za-z0-9]|\s"
_TEMPLATE = (
    "{% for message in messages %}<{{ message.role }}>{{ message.content }}<end>{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


def tokenizer(texts: Iterable[str]) -> PreTrainedTokenizerFast:
    """A tokenizer that knows every word of ``texts``, behind a space and at the beginning of a text, in their order."""
    cut = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_WORD), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    words = [word for text in texts for word, _ in cut.pre_tokenize_str(text)]
    vocab = {word: at for at, word in enumerate(dict.fromkeys([*SPECIAL, *words]))}
    inner = Tokenizer(models.WordLevel(vocab=vocab, unk_token=SPECIAL[-1]))
    inner.pre_tokenizer = cut
    inner.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=inner,
        eos_token=SPECIAL[0],
        unk_token=SPECIAL[-1],
        additional_special_tokens=list(SPECIAL[1:-1]),
        chat_template=_TEMPLATE,
    )
