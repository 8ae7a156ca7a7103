#!/usr/bin/env python3
"""Golden conversations for tests/chat: chat/golden.json.

    python3 make_chat_golden.py [--smollm2 ../../build/models/smollm2]

Needs `transformers` (made with 5.23.0). The programs are written here after the public
chat_template of the family that each is named by, as its tokenizer_config.json and the pages about
chat templates in transformers' documentation show it; they are not copies of a checkpoint's files,
of which none was at hand. Ids are apply_chat_template's. Tokenizers: the small ones of tokenizers/,
with the control tokens of the family added where they lack them, and SmolLM2's own.
"""

import argparse
import json
import shutil
import tempfile
from pathlib import Path

from transformers import AutoTokenizer

HERE = Path(__file__).resolve().parent

CHATML = (
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n'}}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


def with_default(system):
    return CHATML.replace(
        "{% for message in messages %}",
        "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
        "{{ '<|im_start|>system\\n" + system + "<|im_end|>\\n' }}{% endif %}", 1)


QWEN25 = """{%- if tools %}
    {{- '<|im_start|>system\\n' }}
    {%- if messages[0]['role'] == 'system' %}
        {{- messages[0]['content'] }}
    {%- else %}
        {{- 'You are Qwen, created by Alibaba Cloud. You are a helpful assistant.' }}
    {%- endif %}
    {{- "\\n\\n# Tools\\n\\nYou may call one or more functions to assist with the user query." }}
    {{- "<|im_end|>\\n" }}
{%- else %}
    {%- if messages[0]['role'] == 'system' %}
        {{- '<|im_start|>system\\n' + messages[0]['content'] + '<|im_end|>\\n' }}
    {%- else %}
        {{- '<|im_start|>system\\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\\n' }}
    {%- endif %}
{%- endif %}
{%- for message in messages %}
    {%- if (message.role == "user") or (message.role == "system" and not loop.first) or (message.role == "assistant" and not message.tool_calls) %}
        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""

QWEN3 = """{%- if tools %}
    {{- '<|im_start|>system\\n' }}
    {%- if messages[0].role == 'system' %}
        {{- messages[0].content + '\\n\\n' }}
    {%- endif %}
    {{- "# Tools\\n\\nYou may call one or more functions to assist with the user query.<|im_end|>\\n" }}
{%- else %}
    {%- if messages[0].role == 'system' %}
        {{- '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}
    {%- endif %}
{%- endif %}
{%- set ns = namespace(multi_step_tool=true, last_query_index=messages|length - 1) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.multi_step_tool and message.role == "user" and message.content is string and not(message.content.startswith('<tool_response>') and message.content.endswith('</tool_response>')) %}
        {%- set ns.multi_step_tool = false %}
        {%- set ns.last_query_index = index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- if message.content is string %}
        {%- set content = message.content %}
    {%- else %}
        {%- set content = '' %}
    {%- endif %}
    {%- if (message.role == "user") or (message.role == "system" and not loop.first) %}
        {{- '<|im_start|>' + message.role + '\\n' + content + '<|im_end|>' + '\\n' }}
    {%- elif message.role == "assistant" %}
        {%- set reasoning_content = '' %}
        {%- if '</think>' in content %}
            {%- set reasoning_content = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}
            {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
        {%- endif %}
        {%- if loop.index0 > ns.last_query_index %}
            {{- '<|im_start|>' + message.role + '\\n<think>\\n' + reasoning_content.strip('\\n') + '\\n</think>\\n\\n' + content.lstrip('\\n') }}
        {%- else %}
            {{- '<|im_start|>' + message.role + '\\n' + content }}
        {%- endif %}
        {{- '<|im_end|>\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\\n\\n</think>\\n\\n' }}
    {%- endif %}
{%- endif %}"""

LLAMA2 = (
    "{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}{% set system_message = messages[0]['content'] %}"
    "{% else %}{% set loop_messages = messages %}{% set system_message = false %}{% endif %}"
    "{% for message in loop_messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
    "{% if loop.index0 == 0 and system_message != false %}"
    "{% set content = '<<SYS>>\\n' + system_message + '\\n<</SYS>>\\n\\n' + message['content'] %}"
    "{% else %}{% set content = message['content'] %}{% endif %}"
    "{% if message['role'] == 'user' %}{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}"
    "{% elif message['role'] == 'assistant' %}{{ ' '  + content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}"
)

LLAMA3 = (
    "{% set loop_messages = messages %}{% for message in loop_messages %}"
    "{% set content = '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n'+ message['content'] | trim + '<|eot_id|>' %}"
    "{% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}{{ content }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}"
)

LLAMA31 = """{{- bos_token }}
{%- if not date_string is defined %}
    {%- set date_string = "26 Jul 2024" %}
{%- endif %}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}
{{- "<|start_header_id|>system<|end_header_id|>\\n\\n" }}
{{- "Cutting Knowledge Date: December 2023\\n" }}
{{- "Today Date: " + date_string + "\\n\\n" }}
{{- system_message }}
{{- "<|eot_id|>" }}
{%- for message in messages %}
    {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n'+ message['content'] | trim + '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}
"""


def mistral_7b(behind):
    return (
        "{{ bos_token }}{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
        "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
        "{% if message['role'] == 'user' %}{{ '[INST] ' + message['content'] + ' [/INST]' }}"
        "{% elif message['role'] == 'assistant' %}{{ message['content'] + eos_token" + behind + " }}"
        "{% else %}{{ raise_exception('Only user and assistant roles are supported!') }}{% endif %}{% endfor %}")


def mistral(user, answer, where):
    return """{%- if messages[0]["role"] == "system" %}
    {%- set system_message = messages[0]["content"] %}
    {%- set loop_messages = messages[1:] %}
{%- else %}
    {%- set loop_messages = messages %}
{%- endif %}
{{- bos_token }}
{%- for message in loop_messages %}
    {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}
        {{- raise_exception('Roles must alternate user/assistant/user/assistant/...') }}
    {%- endif %}
    {%- if message["role"] == "user" %}
        {%- if loop.WHERE and system_message is defined %}
            {{- USER0 + system_message + "\\n\\n" + message["content"] + USER1 }}
        {%- else %}
            {{- USER0 + message["content"] + USER1 }}
        {%- endif %}
    {%- elif message["role"] == "assistant" %}
        {{- ANSWER + eos_token}}
    {%- endif %}
{%- endfor %}
""".replace("WHERE", where).replace("USER0", user[0]).replace("USER1", user[1]).replace("ANSWER", answer)


SYSTEM = "Answer like a pirate.\nBriefly."
CONVERSATIONS = [
    [("user", "Hello, how are you?")],
    [("system", SYSTEM), ("user", "Hello, how are you?")],
    [("user", "Hi"), ("assistant", "I'm fine. You?"), ("user", "Grüße, 世界! 🎉")],
    [("system", SYSTEM), ("user", "  Two  spaces\n"), ("assistant", "One.\n\nTwo."), ("user", "And 3?\n\n  x = 12345"),
     ("assistant", "Yes, 15 words [of] <text> & more"), ("user", "\u00a0Thanks\u2003")],
]


def config(bos, eos, extra=()):
    known = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": eos}
    if bos:
        known["bos_token"] = bos
    if extra:
        known["additional_special_tokens"] = list(extra)
    return known


QWEN = ("qwen-style/tokenizer.json", config(None, "<|im_end|>"))
BEGUN = ("qwen-style/tokenizer.json", config("<|endoftext|>", "<|im_end|>"))
HEADERS = ("llama3-style/tokenizer.json",
           config("<|begin_of_text|>", "<|eot_id|>", ["<|start_header_id|>", "<|end_header_id|>"]))
LLAMA = ("llama2-style/tokenizer.json", config("<s>", "</s>"))
INST = ("llama2-style/tokenizer.json", config("<s>", "</s>", ["[INST]", "[/INST]"]))
V1 = mistral(('" [INST] "', '" [/INST]"'), '" " + message["content"]', "first")
V3 = mistral(('"[INST] "', '"[/INST]"'), '" " + message["content"]|trim', "last")
TEKKEN = mistral(('"[INST]"', '"[/INST]"'), 'message["content"]', "last")

CASES = [
    ("chatml", "chatml", CHATML, QWEN),
    ("smollm2", "smollm2", with_default("You are a helpful AI assistant named SmolLM, trained by Hugging Face"), QWEN),
    ("qwen2", "qwen2", with_default("You are a helpful assistant."), QWEN),
    ("chatml, another system prompt", "chatml", with_default("Be brief.\\n\\nBe kind."), QWEN),
    ("chatml, quotes", "chatml",
     with_default("X").replace("'<|im_start|>system\\nX<|im_end|>\\n'",
                               '"<|im_start|>system\\nYou\'re \\"kvc\\".<|im_end|>\\n"'), QWEN),
    ("chatml, begun and trimmed", "chatml",
     "{{ bos_token }}" + CHATML.replace("message['content']", "message['content'] | trim"), BEGUN),
    ("qwen2.5", "qwen2.5", QWEN25, QWEN),
    ("qwen3", "qwen3", QWEN3, QWEN),
    ("qwen3, no thinking", "qwen3", QWEN3, QWEN, {"enable_thinking": False}),
    ("llama2", "llama2", LLAMA2, LLAMA),
    ("llama3", "llama3", LLAMA3, HEADERS),
    ("llama3.1", "llama3.1", LLAMA31, HEADERS),
    ("mistral-7b-v0.1", "mistral-7b-v0.1", mistral_7b(" + ' '"), LLAMA),
    ("mistral-7b-v0.2", "mistral-7b-v0.2", mistral_7b(""), LLAMA),
    ("mistral-v1", "mistral-v1", V1, LLAMA),
    ("mistral-v3", "mistral-v3", V3, INST),
    ("mistral-v3-tekken", "mistral-v3-tekken", TEKKEN, INST),
]


def ids_of(tokenizer, program, conversation, variables):
    messages = [{"role": role, "content": text} for role, text in conversation]
    ids = tokenizer.apply_chat_template(messages, chat_template=program, add_generation_prompt=True,
                                        tokenize=True, return_dict=False, **variables)
    return [int(i) for i in ids]


def conversations_of(name):
    without_system = name.startswith("mistral-7b")
    return [c for c in CONVERSATIONS if not (without_system and c[0][0] == "system")]


def case_of(title, name, program, tokenizer, files, variables=None):
    variables = variables or {}
    return {"title": title, "template": name, "program": program, **variables, **files,
            "conversations": [{"messages": c, "ids": ids_of(tokenizer, program, c, variables)}
                              for c in conversations_of(name)]}


def small_cases():
    for title, name, program, (source, settings), *variables in CASES:
        with tempfile.TemporaryDirectory() as folder:
            shutil.copy(HERE / "tokenizers" / source, Path(folder) / "tokenizer.json")
            (Path(folder) / "tokenizer_config.json").write_text(json.dumps(settings))
            tokenizer = AutoTokenizer.from_pretrained(folder)
            yield case_of(title, name, program, tokenizer,
                          {"files": {"tokenizer.json": source, "tokenizer_config.json": settings}}, *variables)


def smollm2_cases(folder):
    if folder.is_dir():
        tokenizer = AutoTokenizer.from_pretrained(folder)
        for title, name, program, *_ in CASES[1:2]:
            yield case_of(title, name, program, tokenizer, {})


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--smollm2", type=Path, default=HERE / "../../build/models/smollm2")
    arguments = parser.parse_args()
    lines = {"cases": list(small_cases()), "smollm2": list(smollm2_cases(arguments.smollm2))}
    text = '{"made_with": "transformers 5.23.0, programs written after the families\' public ones"'
    for name, cases in lines.items():
        text += f',\n"{name}": [\n' + ",\n".join(json.dumps(case) for case in cases) + "\n]"
    target = HERE / "chat"
    target.mkdir(exist_ok=True)
    (target / "golden.json").write_text(text + "}\n")


if __name__ == "__main__":
    main()
