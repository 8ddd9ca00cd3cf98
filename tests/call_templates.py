"""Chat templates that know tools, written small in the forms that are in use, and a tokenizer that takes them."""

from __future__ import annotations

from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

HERMES = (
    "{%- if tools %}{{ '<|im_start|>system\\n' }}{%- if messages[0]['role'] == 'system' %}{{ messages[0]['content'] + "
    "'\\n\\n' }}{%- endif %}{{ 'Tools:' }}{%- for tool in tools %}{{ '\\n' }}{{ tool | tojson }}{%- endfor %}"
    "{{ '<|im_end|>\\n' }}{%- elif messages[0]['role'] == 'system' %}"
    "{{ '<|im_start|>system\\n' + messages[0]['content'] + '<|im_end|>\\n' }}{%- endif %}{%- for m in messages %}"
    "{%- if m.role == 'user' or (m.role == 'assistant' and not m.tool_calls) %}"
    "{{ '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}{%- elif m.role == 'assistant' %}"
    "{{ '<|im_start|>assistant' }}{%- if m.content %}{{ '\\n' + m.content }}{%- endif %}{%- for c in m.tool_calls %}"
    '{%- set c = c.function %}{{ \'\\n<tool_call>\\n{"name": "\' + c.name + \'", "arguments": \' }}'
    "{{ c.arguments | tojson }}{{ '}\\n</tool_call>' }}{%- endfor %}{{ '<|im_end|>\\n' }}{%- elif m.role == 'tool' %}"
    "{{ '<|im_start|>user\\n<tool_response>\\n' + m.content + '\\n</tool_response><|im_end|>\\n' }}{%- endif %}"
    "{%- endfor %}{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{%- endif %}"
)
"""Tags around an object, as Hermes and Qwen write it; arguments are objects."""

LLAMA_3 = (
    "{{- bos_token }}{%- if messages[0]['role'] == 'system' %}{%- set rules = messages[0]['content'] %}"
    "{%- set messages = messages[1:] %}{%- else %}{%- set rules = '' %}{%- endif %}"
    "{{- '<|start_header_id|>system<|end_header_id|>\\n\\n' + rules }}{%- if tools %}{%- for t in tools %}"
    "{{- t | tojson(indent=4) }}{{- '\\n\\n' }}{%- endfor %}{%- endif %}{{- '<|eot_id|>' }}{%- for m in messages %}"
    "{%- if not (m.role == 'tool' or 'tool_calls' in m) %}"
    "{{- '<|start_header_id|>' + m['role'] + '<|end_header_id|>\\n\\n' + m['content'] | trim + '<|eot_id|>' }}"
    "{%- elif 'tool_calls' in m %}{%- if m.tool_calls | length != 1 %}"
    "{{- raise_exception('This model only supports single tool-calls at once!') }}{%- endif %}"
    "{%- set c = m.tool_calls[0].function %}{%- if builtin %}{{- '<|python_tag|>' }}{%- endif %}"
    "{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}"
    "{{- '{\"name\": \"' + c.name + '\", \"parameters\": ' }}{{- c.arguments | tojson }}{{- '}<|eot_id|>' }}"
    "{%- else %}{{- '<|start_header_id|>ipython<|end_header_id|>\\n\\n' }}{{- m.content | tojson }}"
    "{{- '<|eot_id|>' }}{%- endif %}{%- endfor %}{%- if add_generation_prompt %}"
    "{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{%- endif %}"
)
"""The bare object, one call a turn, as Llama 3 has it."""

MISTRAL = (
    "{{- bos_token }}{%- set users = messages | selectattr('role', 'equalto', 'user') | list %}{%- for m in messages %}"
    "{%- if m.role == 'user' %}{%- if tools and m == users[-1] %}{{- '[AVAILABLE_TOOLS] [' }}{%- for t in tools %}"
    "{{- t | tojson }}{%- if not loop.last %}{{- ', ' }}{%- endif %}{%- endfor %}{{- '][/AVAILABLE_TOOLS]' }}"
    "{%- endif %}{{- '[INST] ' + m.content + '[/INST]' }}{%- elif m.role == 'system' %}{{- '[INST] ' + m.content + "
    "'[/INST]' }}{%- elif m.tool_calls is defined %}{{- '[TOOL_CALLS] [' }}{%- for c in m.tool_calls %}"
    "{%- set out = c.function | tojson %}{{- out[:-1] }}{%- if c.id | length != 9 %}"
    "{{- raise_exception('Tool call IDs should be alphanumeric strings with length 9!') }}{%- endif %}"
    "{{- ', \"id\": \"' + c.id + '\"}' }}{%- if not loop.last %}{{- ', ' }}{%- else %}{{- ']' + eos_token }}"
    "{%- endif %}{%- endfor %}{%- elif m.role == 'assistant' %}{{- ' ' + m.content | trim + eos_token }}"
    "{%- elif m.role == 'tool' %}{{- '[TOOL_RESULTS] {\"content\": ' + m.content | tojson + ', \"call_id\": \"' + "
    "m.tool_call_id + '\"}[/TOOL_RESULTS]' }}{%- endif %}{%- endfor %}"
)
"""A list of objects with ids of nine characters, as Mistral's third tokenizer has it."""

MISTRAL_NAMED = (
    "{{- bos_token }}{%- if tools %}{{- '[AVAILABLE_TOOLS]' }}{{- tools | tojson }}{{- '[/AVAILABLE_TOOLS]' }}"
    "{%- endif %}{%- for m in messages %}{%- if m.role == 'tool' %}{{- '[TOOL_RESULTS]' + m.content + "
    "'[/TOOL_RESULTS]' }}{%- elif m.tool_calls is defined %}{{- m.content }}{%- for c in m.tool_calls %}"
    "{{- '[TOOL_CALLS]' + c.function.name + '[ARGS]' + c.function.arguments }}{%- endfor %}{{- eos_token }}"
    "{%- elif m.role == 'assistant' %}{{- m.content + eos_token }}{%- else %}{{- '[INST]' + m.content + '[/INST]' }}"
    "{%- endif %}{%- endfor %}"
)
"""A name and its arguments behind marks, as Mistral's later tokenizers have it; arguments are text."""

DEEPSEEK = (
    "{{- bos_token }}{%- if tools %}{{- tools | tojson }}{%- endif %}{%- for m in messages %}{%- if m.role == 'user' "
    "or m.role == 'system' %}{{- '<｜User｜>' + m.content }}{%- elif m.role == 'tool' %}"
    "{{- '<｜tool▁output▁begin｜>' + m.content + '<｜tool▁output▁end｜>' }}{%- elif m.tool_calls is defined %}"
    "{{- '<｜Assistant｜>' + m.content + '<｜tool▁calls▁begin｜>' }}{%- for c in m.tool_calls %}"
    "{%- if not loop.first %}{{- '\\n' }}{%- endif %}{{- '<｜tool▁call▁begin｜>function<｜tool▁sep｜>' + "
    "c.function.name + '\\n```json\\n' + c.function.arguments + '\\n```<｜tool▁call▁end｜>' }}{%- endfor %}"
    "{{- '<｜tool▁calls▁end｜>' + "
    "eos_token }}{%- else %}{{- '<｜Assistant｜>' + m.content + eos_token }}{%- endif %}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<｜Assistant｜><think>\\n' }}{%- endif %}"
)
"""Names and fences between many marks, as DeepSeek writes it; the assistant's turn begins with a thought."""

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
"""Knows no tools."""

TEMPLATES = {
    "hermes": HERMES,
    "llama3": LLAMA_3,
    "mistral": MISTRAL,
    "named": MISTRAL_NAMED,
    "deepseek": DEEPSEEK,
    "plain": CHATML,
}
MARKS = {
    "hermes": ["<|im_start|>", "<tool_call>", "</tool_call>"],
    "llama3": ["<|start_header_id|>", "<|end_header_id|>", "<|python_tag|>"],
    "mistral": ["[TOOL_CALLS]", "[INST]", "[/INST]"],
    "named": ["[TOOL_CALLS]", "[ARGS]", "[INST]"],
    "deepseek": [
        "<｜tool▁calls▁begin｜>",
        "<｜tool▁call▁begin｜>",
        "<｜tool▁sep｜>",
        "<｜tool▁call▁end｜>",
        "<｜tool▁calls▁end｜>",
    ],
    "plain": [],
}
"""Tokens of their own in each vocabulary."""
VISIBLE = ("<tool_call>", "</tool_call>")
END = {"hermes": "<|im_end|>", "llama3": "<|eot_id|>", "plain": "<|im_end|>"}


def tokenizer(form: str) -> Any:
    """256 bytes, the form's marks as tokens of their own, and its template."""
    end = END.get(form, "</s>")
    pieces = [*sorted(pre_tokenizers.ByteLevel.alphabet()), "<s>", end]
    inner = Tokenizer(models.BPE(vocab={piece: at for at, piece in enumerate(pieces)}, merges=[], fuse_unk=False))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    inner.decoder = decoders.ByteLevel()
    inner.add_special_tokens([AddedToken(mark, normalized=False) for mark in ["<s>", end]])
    for mark in MARKS[form]:
        added = AddedToken(mark, normalized=False, special=mark not in VISIBLE)
        if mark in VISIBLE:
            inner.add_tokens([added])
        else:
            inner.add_special_tokens([added])
    made = PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="<s>", eos_token=end)
    made.chat_template = TEMPLATES[form]
    return made
