"""What Hugging Face's rendering makes of conversations with tools, as tests/golden/tool_messages.json.

    pip install transformers==5.23.* jinja2==3.1.*
    python tests/golden/make_tool_messages_golden.py

Rows are written as dataset files have them; the templates are written for this test in the manner of families that call tools.
A case whose rendering raises has "text": null.
"""
import json
import pathlib

from transformers.utils.chat_template_utils import render_jinja_template

WEATHER = {"type": "function", "function": {"name": "weather", "description": "Sky over a place: \"é\"", "parameters": {
    "type": "object", "properties": {"place": {"type": "string"}, "days": {"type": "integer", "minimum": 1}}, "required": ["place"]}}}
ADD = {"type": "function", "function": {"parameters": {"type": "object", "properties": {}}, "name": "add"}}


def call(name, arguments, id="c1"):
    return {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}


ROWS = {
    "plain": {"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": " Hello.\n"}]},
    "call": {"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Sky?"},
                          {"role": "assistant", "content": "", "tool_calls": [call("weather", {"place": "Bonn", "days": 2, "exact": True, "x": None, "z": 0.5})]},
                          {"role": "tool", "content": "{\"sky\": \"blue\"}", "name": "weather", "tool_call_id": "c1"},
                          {"role": "assistant", "content": "Blue."}], "tools": [WEATHER, ADD]},
    "null": {"messages": [{"role": "user", "content": "w?"},
                          {"role": "assistant", "content": None, "tool_calls": [call("get", "{\"a\":1}"), call("get", "{\"b\": 2}", "c2")]},
                          {"role": "ipython", "content": "5"}, {"role": "function", "content": "6", "name": "get"}]},
    "thought": {"messages": [{"role": "developer", "content": "think"}, {"role": "user", "content": "2+2?", "name": "ann"},
                             {"role": "assistant", "content": "4", "reasoning_content": "two and two", "thinking": "hm", "weight": 1}]},
    "parts": {"messages": [{"role": "user", "content": [{"type": "text", "text": "What is "}, {"type": "text", "text": "2+2?"}]},
                           {"role": "assistant", "content": [{"type": "text", "text": "4"}]}]},
    "tools_text": {"messages": [{"role": "user", "content": "q"}], "tools": json.dumps([ADD])},
    "no_tools": {"messages": [{"role": "user", "content": "q"}], "tools": []},
    "kwargs": {"messages": [{"role": "user", "content": "q"}], "chat_template_kwargs": {"enable_thinking": False, "style": {"b": 1, "a": [2]}}},
}

TEMPLATES = {
    "qwen_like": """{%- if tools %}
    {{- '<|im_start|>system\\n' }}
    {%- if messages[0].role == 'system' %}{{- messages[0].content + '\\n\\n' }}{%- endif %}
    {{- "# Tools\\n<tools>" }}
    {%- for tool in tools %}{{- "\\n" }}{{- tool | tojson }}{%- endfor %}
    {{- "\\n</tools><|im_end|>\\n" }}
{%- elif messages[0].role == 'system' %}
    {{- '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
    {%- if message.content is string %}{%- set content = message.content %}{%- else %}{%- set content = '' %}{%- endif %}
    {%- if (message.role == "user") or (message.role == "system" and not loop.first) %}
        {{- '<|im_start|>' + message.role + '\\n' + content + '<|im_end|>' + '\\n' }}
    {%- elif message.role == "assistant" %}
        {%- set reasoning_content = '' %}
        {%- if message.reasoning_content is string %}{%- set reasoning_content = message.reasoning_content %}{%- endif %}
        {{- '<|im_start|>assistant\\n<think>\\n' + reasoning_content.strip('\\n') + '\\n</think>\\n\\n' + content.lstrip('\\n') }}
        {%- if message.tool_calls %}
            {%- for tool_call in message.tool_calls %}
                {%- if (loop.first and content) or (not loop.first) %}{{- '\\n' }}{%- endif %}
                {%- if tool_call.function %}{%- set tool_call = tool_call.function %}{%- endif %}
                {{- '<tool_call>\\n{"name": "' }}{{- tool_call.name }}{{- '", "arguments": ' }}
                {%- if tool_call.arguments is string %}{{- tool_call.arguments }}{%- else %}{{- tool_call.arguments | tojson }}{%- endif %}
                {{- '}\\n</tool_call>' }}
            {%- endfor %}
        {%- endif %}
        {{- '<|im_end|>\\n' }}
    {%- elif message.role == "tool" %}
        {{- '<|im_start|>user\\n<tool_response>\\n' + content + '\\n</tool_response><|im_end|>\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}{{- '<think>\\n\\n</think>\\n\\n' }}{%- endif %}
{%- endif %}
""",
    "llama_like": """{{- bos_token }}
{%- if not tools is defined %}{%- set tools = none %}{%- endif %}
{%- if tools is not none %}{{- "Environment: ipython\\n" }}{%- for t in tools %}{{- t | tojson(indent=4) }}{{- "\\n\\n" }}{%- endfor %}{%- endif %}
{%- for message in messages %}
    {%- if not (message.role == 'ipython' or message.role == 'tool' or 'tool_calls' in message) %}
        {{- '<|h|>' + message['role'] + '<|/h|>\\n\\n' + message['content'] | trim + '<|eot_id|>' }}
    {%- elif 'tool_calls' in message %}
        {%- if not message.tool_calls|length == 1 %}{{- raise_exception("This model only supports single tool-calls at once!") }}{%- endif %}
        {%- set tool_call = message.tool_calls[0].function %}
        {{- '<|h|>assistant<|/h|>\\n\\n{"name": "' + tool_call.name + '", "parameters": ' }}{{- tool_call.arguments | tojson }}{{- "}<|eot_id|>" }}
    {%- else %}
        {{- "<|h|>ipython<|/h|>\\n\\n" }}
        {%- if message.content is mapping or message.content is iterable %}{{- message.content | tojson }}{%- else %}{{- message.content }}{%- endif %}
        {{- "<|eot_id|>" }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|h|>assistant<|/h|>\\n\\n' }}{%- endif %}
""",
    "everything": """{{ tools | tojson }}{% for m in messages %}
{{ m.role }}:{% if m.content is none %}NONE{% elif m.content is string %}{{ m.content }}{% else %}{% for p in m.content %}{{ p.type }}={{ p.text }};{% endfor %}{% endif %}
|{{ m.name is defined }}|{{ m.thinking }}|{{ m.get('weight') }}|{% for c in m.tool_calls or [] %}{{ c.id }}{% for k, v in c.function.items() %} {{ k }}={{ v if v is string else v | tojson(separators=(',', ':')) }}{% endfor %}{% endfor %}
{% endfor %}{{ style | tojson if style is defined }}{{ enable_thinking }}""",
    "old": """{% for m in messages %}{{ '<' + m['role'] + '>' + m['content'] + '</s>' }}{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}""",
}

out = {"tokens": {"bos_token": "<s>", "eos_token": "</s>"}, "rows": ROWS, "templates": TEMPLATES, "cases": []}
for template, source in TEMPLATES.items():
    for row, columns in ROWS.items():
        for add in (False, True):
            tools = columns.get("tools")
            tools = json.loads(tools) if isinstance(tools, str) else tools
            try:
                text = render_jinja_template(conversations=[columns["messages"]], tools=tools, chat_template=source, add_generation_prompt=add,
                                             **out["tokens"], **columns.get("chat_template_kwargs", {}))[0][0]
            except Exception:  # noqa: BLE001: every failure of the template is the answer
                text = None
            out["cases"].append({"template": template, "row": row, "add": add, "text": text})
path = pathlib.Path(__file__).with_name("tool_messages.json")
path.write_text(json.dumps(out, ensure_ascii=False, indent=1) + "\n")
print(len(out["cases"]), "cases,", sum(c["text"] is None for c in out["cases"]), "of them refused")
