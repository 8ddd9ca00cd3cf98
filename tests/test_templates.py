"""Chat templates of the forms in use, written small, each with the prompt that is right; and those that lose words.

Covers how a conversation becomes the model's text. What a trace keeps of it is in ``test_prompts_kept``.
"""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

import toy_engine
from kvorum import Budget, Engine, programs
from kvorum.engine import text
from kvorum.errors import BadRequest
from kvorum.jsontypes import Json
from serving import served

NOON = datetime(2026, 2, 3, 12, 34, 56)
CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
LLAMA_2 = (
    "{% if messages[0]['role'] == 'system' %}{% set rest = messages[1:] %}{% set rules = messages[0]['content'] %}"
    "{% else %}{% set rest = messages %}{% set rules = false %}{% endif %}{% for m in rest %}"
    "{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
    "{% if loop.index0 == 0 and rules != false %}"
    "{% set content = '<<SYS>>\\n' + rules + '\\n<</SYS>>\\n\\n' + m['content'] %}"
    "{% else %}{% set content = m['content'] %}{% endif %}"
    "{% if m['role'] == 'user' %}{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}"
    "{% else %}{{ ' ' + content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}"
)
LLAMA_3 = (
    "{{- bos_token }}{%- if not date_string is defined %}{%- if strftime_now is defined %}"
    '{%- set date_string = strftime_now("%d %b %Y") %}{%- else %}{%- set date_string = "26 Jul 2024" %}{%- endif %}'
    "{%- endif %}{%- if messages[0]['role'] == 'system' %}{%- set rules = messages[0]['content']|trim %}"
    "{%- set messages = messages[1:] %}{%- else %}{%- set rules = '' %}{%- endif %}"
    '{{- "<|start_header_id|>system<|end_header_id|>\\n\\nToday Date: " + date_string + "\\n\\n" }}'
    '{{- rules + "<|eot_id|>" }}{%- for m in messages %}'
    "{{- '<|start_header_id|>' + m['role'] + '<|end_header_id|>\\n\\n' + m['content'] | trim + '<|eot_id|>' }}"
    "{%- endfor %}{%- if add_generation_prompt %}"
    "{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{%- endif %}"
)
MISTRAL = (
    "{{ bos_token }}{% for m in messages %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
    "{% if m['role'] == 'user' %}{{ '[INST] ' + m['content'] + ' [/INST]' }}"
    "{% else %}{{ m['content'] + eos_token }}{% endif %}{% endfor %}"
)
GEMMA = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}"
    "{% endif %}{% for m in messages %}{% set role = 'model' if m['role'] == 'assistant' else m['role'] %}"
    "{{ '<start_of_turn>' + role + '\\n' + m['content'] | trim + '<end_of_turn>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{'<start_of_turn>model\\n'}}{% endif %}"
)
PHI_3 = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}"
    "{{'<|user|>' + '\\n' + m['content'] + '<|end|>' + '\\n' + '<|assistant|>' + '\\n'}}"
    "{% elif m['role'] == 'assistant' %}{{m['content'] + '<|end|>' + '\\n'}}{% endif %}{% endfor %}"
)  # the rules are dropped without a word
QWEN_3 = (
    "{%- for m in messages %}{%- set content = m.content %}{%- if m.role == 'assistant' and '</think>' in content %}"
    "{%- set content = content.split('</think>')[-1].lstrip('\\n') %}{%- endif %}"
    "{{- '<|im_start|>' + m.role + '\\n' + content + '<|im_end|>' + '\\n' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}"
    "{%- if enable_thinking is defined and enable_thinking is false %}{{- '<think>\\n\\n</think>\\n\\n' }}{%- endif %}"
    "{%- endif %}"
)
GRANITE = (
    "{%- if messages[0]['role'] == 'system' %}{%- set rules = messages[0]['content'] %}"
    "{%- set rest = messages[1:] %}{%- else %}"
    '{%- set rules = "Today\'s Date: " + strftime_now(\'%B %d, %Y\') + "." %}{%- set rest = messages %}{%- endif %}'
    "{%- if thinking %}{%- set rules = rules + ' Think first.' %}{%- endif %}"
    "{{- '<|role|>system<|end|>' + rules + '<|stop|>\\n' }}{%- if documents %}{%- for d in documents %}"
    "{{- '<|role|>document ' + d['doc_id'] | string + '<|end|>' + d['text'] + '<|stop|>\\n' }}"
    "{%- endfor %}{%- endif %}{%- for m in rest %}"
    "{{- '<|role|>' + m['role'] + '<|end|>' + m['content'] + '<|stop|>\\n' }}{%- endfor %}"
    "{{- '<|role|>assistant<|end|>' if add_generation_prompt }}"
)
COMMAND_R = {
    "default": (
        "{{ bos_token }}{% for m in messages %}"
        "{{ '<|T|><|' + m['role'] | upper + '|>' + m['content'].strip() + '<|/T|>' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|T|><|CHATBOT|>' }}{% endif %}"
    ),
    "tool_use": "{{ bos_token }}TOOLS {% for t in tools %}{{ t['function']['name'] }} {% endfor %}"
    "{% for m in messages %}{{ m['content'] }}{% endfor %}",
    "rag": "RAG{% for m in messages %}{{ m['content'] }}{% endfor %}",
}
PARTS = (
    "{% for m in messages %}{{ m['role'] + '\n' }}{% for part in m['content'] %}{% if part['type'] == 'image' %}<image>"
    "{% elif part['type'] == 'text' %}{{ part['text'] }}{% endif %}{% endfor %}{{ '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant\n' }}{% endif %}"
)
STRICT_PARTS = PARTS.replace(
    "{% endif %}{% endfor %}{{", "{% else %}{{ raise_exception('No such part') }}{% endif %}{% endfor %}{{"
)
SMOLLM_3 = (
    "{%- set mode = '/think' if enable_thinking is not defined or enable_thinking else '/no_think' %}"
    "{%- set rules = messages[0].content if messages[0].role == 'system' else '' %}"
    "{%- if '/no_think' in rules %}{%- set mode = '/no_think' %}{%- endif %}"
    "{%- set rules = rules.replace('/no_think', '').replace('/think', '').rstrip() %}"
    "{{- '<|im_start|>system\\nReasoning Mode: ' + mode + '\\n\\n' + rules + '<|im_end|>\\n' }}"
    "{%- for m in messages %}{%- if m.role == 'user' %}{{ '<|im_start|>user\\n' + m.content + '<|im_end|>\\n' }}"
    "{%- elif m.role == 'assistant' %}{% generation %}"
    "{{ '<|im_start|>assistant\\n' + m.content + '<|im_end|>\\n' }}{% endgeneration %}{%- endif %}{%- endfor %}"
    "{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}"
    "{%- if mode == '/no_think' %}{{ '<think>\\n\\n</think>\\n' }}{%- endif %}{%- endif %}"
)
DEEPSEEK_R1 = (
    "{{ bos_token }}{% set ns = namespace(rules='') %}{% for m in messages %}{% if m['role'] == 'system' %}"
    "{% set ns.rules = m['content'] %}{% endif %}{% endfor %}{{ ns.rules }}{% for m in messages %}"
    "{% if m['role'] == 'user' %}{{ '<|User|>' + m['content'] }}{% elif m['role'] == 'assistant' %}"
    "{{ '<|Assistant|>' + m['content'].split('</think>')[-1] + eos_token }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|Assistant|><think>\\n' }}{% endif %}"
)
ZEPHYR = (
    "{% for m in messages %}\n{% if m['role'] == 'user' %}\n{{ '<|user|>\n' + m['content'] + eos_token }}\n"
    "{% elif m['role'] == 'system' %}\n{{ '<|system|>\n' + m['content'] + eos_token }}\n"
    "{% elif m['role'] == 'assistant' %}\n{{ '<|assistant|>\n'  + m['content'] + eos_token }}\n{% endif %}\n"
    "{% if loop.last and add_generation_prompt %}\n{{ '<|assistant|>' }}\n{% endif %}\n{% endfor %}"
)

RULES = [("system", "Be brief."), ("user", "Hi?")]
TALK = [("user", "One?"), ("assistant", "Two."), ("user", "Three?\n")]

RIGHT: dict[str, tuple[Any, str, str]] = {
    "ChatML": (
        CHATML,
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi?<|im_end|>\n<|im_start|>assistant\n",
        "<|im_start|>user\nOne?<|im_end|>\n<|im_start|>assistant\nTwo.<|im_end|>\n"
        "<|im_start|>user\nThree?\n<|im_end|>\n<|im_start|>assistant\n",
    ),
    "Llama 2": (
        LLAMA_2,
        "<s>[INST] <<SYS>>\nBe brief.\n<</SYS>>\n\nHi? [/INST]",
        "<s>[INST] One? [/INST] Two. <end><s>[INST] Three? [/INST]",
    ),
    "Llama 3": (
        LLAMA_3,
        "<s><|start_header_id|>system<|end_header_id|>\n\nToday Date: 03 Feb 2026\n\nBe brief.<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nHi?<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
        "<s><|start_header_id|>system<|end_header_id|>\n\nToday Date: 03 Feb 2026\n\n<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nOne?<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\nTwo.<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nThree?<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n",
    ),
    "Mistral": (
        MISTRAL,
        "<s>[INST] Be brief.\n\nHi? [/INST]",
        "<s>[INST] One? [/INST]Two.<end>[INST] Three?\n [/INST]",
    ),
    "Gemma": (
        GEMMA,
        "<s><start_of_turn>user\nBe brief.\n\nHi?<end_of_turn>\n<start_of_turn>model\n",
        "<s><start_of_turn>user\nOne?<end_of_turn>\n<start_of_turn>model\nTwo.<end_of_turn>\n"
        "<start_of_turn>user\nThree?<end_of_turn>\n<start_of_turn>model\n",
    ),
    "Phi-3": (
        PHI_3,
        "<s><|user|>\nBe brief.\n\nHi?<|end|>\n<|assistant|>\n",
        "<s><|user|>\nOne?<|end|>\n<|assistant|>\nTwo.<|end|>\n<|user|>\nThree?\n<|end|>\n<|assistant|>\n",
    ),
    "Qwen3": (
        QWEN_3,
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi?<|im_end|>\n<|im_start|>assistant\n",
        "<|im_start|>user\nOne?<|im_end|>\n<|im_start|>assistant\nTwo.<|im_end|>\n"
        "<|im_start|>user\nThree?\n<|im_end|>\n<|im_start|>assistant\n",
    ),
    "Granite": (
        GRANITE,
        "<|role|>system<|end|>Be brief.<|stop|>\n<|role|>user<|end|>Hi?<|stop|>\n<|role|>assistant<|end|>",
        "<|role|>system<|end|>Today's Date: February 03, 2026.<|stop|>\n<|role|>user<|end|>One?<|stop|>\n"
        "<|role|>assistant<|end|>Two.<|stop|>\n<|role|>user<|end|>Three?\n<|stop|>\n<|role|>assistant<|end|>",
    ),
    "Command R": (
        COMMAND_R,
        "<s><|T|><|SYSTEM|>Be brief.<|/T|><|T|><|USER|>Hi?<|/T|><|T|><|CHATBOT|>",
        "<s><|T|><|USER|>One?<|/T|><|T|><|ASSISTANT|>Two.<|/T|><|T|><|USER|>Three?<|/T|><|T|><|CHATBOT|>",
    ),
    "parts": (
        PARTS,
        "system\nBe brief.\nuser\nHi?\nassistant\n",
        "user\nOne?\nassistant\nTwo.\nuser\nThree?\n\nassistant\n",
    ),
    "strict parts": (
        STRICT_PARTS,
        "system\nBe brief.\nuser\nHi?\nassistant\n",
        "user\nOne?\nassistant\nTwo.\nuser\nThree?\n\nassistant\n",
    ),
    "SmolLM3": (
        SMOLLM_3,
        "<|im_start|>system\nReasoning Mode: /think\n\nBe brief.<|im_end|>\n<|im_start|>user\nHi?<|im_end|>\n"
        "<|im_start|>assistant\n",
        "<|im_start|>system\nReasoning Mode: /think\n\n<|im_end|>\n<|im_start|>user\nOne?<|im_end|>\n"
        "<|im_start|>assistant\nTwo.<|im_end|>\n<|im_start|>user\nThree?\n<|im_end|>\n<|im_start|>assistant\n",
    ),
    "DeepSeek R1": (
        DEEPSEEK_R1,
        "<s>Be brief.<|User|>Hi?<|Assistant|><think>\n",
        "<s><|User|>One?<|Assistant|>Two.<end><|User|>Three?\n<|Assistant|><think>\n",
    ),
    "Zephyr": (
        ZEPHYR,
        "<|system|>\nBe brief.<end>\n<|user|>\nHi?<end>\n<|assistant|>\n",
        "<|user|>\nOne?<end>\n<|assistant|>\nTwo.<end>\n<|user|>\nThree?\n<end>\n<|assistant|>\n",
    ),
}


def with_template(template: Any) -> Any:
    """The toy's tokenizer with a chat template, as one that was loaded."""
    made = toy_engine.tokenizer()
    made.add_special_tokens({"bos_token": "<s>"})
    made.chat_template = template
    return made


def messages(*talk: tuple[str, str]) -> list[dict[str, str]]:
    return [{"role": role, "content": content} for role, content in talk]


@pytest.mark.parametrize("name", RIGHT)
def test_each_form_of_template_gives_its_right_prompt(name: str) -> None:
    template, rules, talk = RIGHT[name]
    tokenizer = with_template(template)
    assert text.render(tokenizer, messages(*RULES), moment=NOON) == rules
    assert text.render(tokenizer, messages(*TALK), moment=NOON) == talk
    ids = text.chat(tokenizer, messages(*RULES), moment=NOON)
    assert tokenizer.decode(ids) == rules


@pytest.mark.parametrize("name", RIGHT)
def test_what_stands_around_a_users_words_is_the_templates(name: str) -> None:
    tokenizer = with_template(RIGHT[name][0])
    before, behind = text.turn(tokenizer, "Be brief.", moment=NOON)
    assert f"{before}Hi?{behind}" == RIGHT[name][1]
    between, behind = text.turn(tokenizer, None, moment=NOON)
    whole = RIGHT[name][2].replace("Three?\n", "Three?")
    assert whole.endswith(f"Two.{between}Three?{behind}")


def test_the_date_is_the_one_that_is_given_and_now_otherwise() -> None:
    tokenizer = with_template(LLAMA_3)
    assert "Today Date: 01 Jan 2020\n" in text.render(tokenizer, messages(*RULES), date_string="01 Jan 2020")
    today = datetime.now().strftime("%d %b %Y")
    assert f"Today Date: {today}\n" in text.render(tokenizer, messages(*RULES))


@pytest.mark.parametrize("start", ["", "  ", "\n", " \n"])
def test_a_given_moment_changes_nothing_else(start: str) -> None:
    """All codes of ``strftime``, within macros and loops, and blanks at the template's start."""
    codes = "%a %A %b %B %d %-d %e %H:%M:%S %I %p %j %m %y %Y %f %D %T %F"
    template = start + (
        "{% macro day(f) %}{{ strftime_now(f) }}{% endmacro %}{% for m in messages %}\n"
        "  {% if m.role == 'user' %}{{ day('" + codes + "') + '|' + strftime_now('%H') }} {{ m.content }}{% endif %}"
        "{% endfor %}"
    )
    tokenizer = with_template(template)
    plain = template.replace("{{ strftime_now(f) }}", NOON.strftime(codes)).replace("strftime_now('%H')", "'12'")
    want = with_template(plain).apply_chat_template(messages(("user", "Hi")), tokenize=False)
    assert text.render(tokenizer, messages(("user", "Hi")), moment=NOON) == want


def test_thinking_is_the_templates_own_unless_it_is_said() -> None:
    ask = messages(("user", "Hi?"))
    for template, off in ((QWEN_3, "<think>\n\n</think>\n\n"), (SMOLLM_3, "<think>\n\n</think>\n"), (GRANITE, "Think")):
        tokenizer = with_template(template)
        switched = [
            text.render(tokenizer, ask, moment=NOON, **text.thinking_switches(tokenizer, thinking))
            for thinking in (None, True, False)
        ]
        assert switched[1] != switched[2]
        assert [off in found for found in switched].count(True) == 1
        assert switched[0] in switched[1:]
    for tokenizer in (with_template(CHATML), with_template(None)):
        with pytest.raises(BadRequest, match="no switch for thinking"):
            text.thinking_switches(tokenizer, False)
    quiet = text.render(with_template(SMOLLM_3), messages(("system", "Be brief. /no_think"), ("user", "Hi?")))
    assert quiet.startswith("<|im_start|>system\nReasoning Mode: /no_think\n\nBe brief.<|im_end|>\n")


def test_of_named_templates_the_default_is_taken_and_tools_only_where_there_are_some() -> None:
    ask = messages(("user", "Hi?"))
    tools: Json = [{"type": "function", "function": {"name": "clock", "parameters": {}}}]
    as_list: Any = [{"name": name, "template": template} for name, template in COMMAND_R.items()]
    loaded: Any = PreTrainedTokenizerFast(
        tokenizer_object=toy_engine.tokenizer().backend_tokenizer, bos_token="<s>", chat_template=as_list
    )
    for tokenizer in (with_template(COMMAND_R), loaded):
        assert text.render(tokenizer, ask) == "<s><|T|><|USER|>Hi?<|/T|><|T|><|CHATBOT|>"
        assert text.render(tokenizer, ask, tools=tools) == "<s>TOOLS clock Hi?"
    nameless = with_template({"tool_use": COMMAND_R["tool_use"], "rag": COMMAND_R["rag"]})
    with pytest.raises(BadRequest, match=r"no default.*\['rag', 'tool_use'\]"):
        text.render(nameless, ask)


def test_documents_stand_in_the_prompt() -> None:
    found = text.render(with_template(GRANITE), messages(*RULES), documents=[{"doc_id": 7, "text": "Tides."}])
    assert "<|role|>document 7<|end|>Tides.<|stop|>\n<|role|>user<|end|>Hi?" in found


def test_a_template_that_refuses_is_named_in_its_own_words() -> None:
    twice = messages(("user", "One?"), ("user", "Two?"))
    for template in (MISTRAL, LLAMA_2):
        with pytest.raises(
            BadRequest, match="cannot be used: Conversation roles must alternate user/assistant"
        ) as found:
            text.render(with_template(template), twice)
        assert str(found.value).endswith(" Messages 1 and 2 are both the user's: put them into one.")
    with pytest.raises(BadRequest, match=r"chat template cannot be used: .*unexpected"):
        text.render(with_template("{{"), twice)


LOSING = {
    "nothing of the user": "{% for m in messages %}{{ m.role }}{% endfor %}",
    "the last message alone": "{{ messages[-1].content }}",
    "only a beginning": "{% for m in messages %}{{ m.content[:4] }}{% endfor %}",
    "pictures alone": "{% for m in messages %}{% for p in m.content %}{{ p.image }}{% endfor %}{% endfor %}",
}


@pytest.mark.parametrize("name", LOSING)
def test_a_prompt_without_the_users_words_is_an_error(name: str) -> None:
    with pytest.raises(BadRequest, match=r"leaves words of the prompt out \('.*' is not in what it makes of it\)"):
        text.render(with_template(LOSING[name]), messages(*TALK))
    tokenizer = with_template(LOSING[name])
    with pytest.raises(BadRequest, match="leaves words of the prompt out"):
        text.turn(tokenizer, None)


def test_a_conversation_that_loses_the_assistant_is_not_gone_on_with() -> None:
    users = "{% for m in messages %}{% if m.role == 'user' %}{{ m.content }}{% endif %}{% endfor %}"
    with pytest.raises(BadRequest, match="leaves out what the assistant said before"):
        text.turn(with_template(users), None)


@pytest.mark.parametrize(
    "template",
    [
        "{% for m in messages %}[{{ m.content | trim }}]{% endfor %}",
        "{% for m in messages %}{{ m.content | tojson }}{% endfor %}",
        "{% for m in messages %}{{ m.content.split('\n') | join('  ') }}{% endfor %}",
    ],
)
def test_blanks_and_escapes_are_no_loss(template: str) -> None:
    words = '  Say "hi"\n\nto \\ Zoë\t '
    assert "Zoë" in text.render(with_template(template), messages(("user", words)))


def test_a_run_and_a_request_say_so_alike() -> None:
    engine = Engine(toy_engine.model(), with_template(LOSING["nothing of the user"]), kv_tokens=4096, page_size=16)
    for program in (programs.solo, programs.hogwild, programs.tree, programs.network):
        with pytest.raises(BadRequest, match="leaves words of the prompt out"):
            engine.run(program, "What is 2 + 2?", budget=Budget(ticks=4))


def test_a_request_whose_words_would_be_lost_is_refused(tmp_path: Any) -> None:
    for template, sentence in (
        (LOSING["nothing of the user"], "leaves words of the prompt out ('Hi?' is not in what it makes of it)"),
        (MISTRAL, "cannot be used: Conversation roles must alternate user/assistant/user/assistant/..."),
    ):
        engine = Engine(toy_engine.model(), with_template(template), kv_tokens=4096, page_size=16)
        with served(engine, tmp_path) as server:
            asked = {"model": server.model, "messages": messages(("user", "Hi?"), ("user", "Hi?")), "max_tokens": 4}
            reply = server.post("/v1/chat/completions", asked)
            assert reply.status_code == 400
            assert sentence in reply.json()["error"]["message"], json.dumps(reply.json())
            assert reply.json()["error"]["param"] == "messages"
