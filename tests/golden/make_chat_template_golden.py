"""What Hugging Face's rendering makes of templates, as tests/golden/chat_template.json: python3 make_chat_template_golden.py"""
import json
import os

from transformers.utils.chat_template_utils import render_jinja_template

QWEN = r'''{%- if tools %}
    {{- '<|im_start|>system\n' }}
    {%- if messages[0]['role'] == 'system' %}
        {{- messages[0]['content'] }}
    {%- else %}
        {{- 'You are Qwen, created by Alibaba Cloud. You are a helpful assistant.' }}
    {%- endif %}
    {{- "\n\n# Tools\n\n" }}
    {%- for tool in tools %}
        {{- "\n" }}
        {{- tool | tojson }}
    {%- endfor %}
{%- else %}
    {%- if messages[0]['role'] == 'system' %}
        {{- '<|im_start|>system\n' + messages[0]['content'] + '<|im_end|>\n' }}
    {%- else %}
        {{- '<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\n' }}
    {%- endif %}
{%- endif %}
{%- for message in messages %}
    {%- if (message.role == "user") or (message.role == "system" and not loop.first) or (message.role == "assistant" and not message.tool_calls) %}
        {{- '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>' + '\n' }}
    {%- elif message.role == "assistant" %}
        {{- '<|im_start|>' + message.role }}
        {%- for tool_call in message.tool_calls %}
            {{- tool_call.name }}{{- tool_call.arguments | tojson }}
        {%- endfor %}
        {{- '<|im_end|>\n' }}
    {%- elif message.role == "tool" %}
        {%- if (loop.index0 == 0) or (messages[loop.index0 - 1].role != "tool") %}
            {{- '<|im_start|>user' }}
        {%- endif %}
        {{- '\n<tool_response>\n' }}
        {{- message.content }}
        {{- '\n</tool_response>' }}
        {%- if loop.last or (messages[loop.index0 + 1].role != "tool") %}
            {{- '<|im_end|>\n' }}
        {%- endif %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\n' }}
{%- endif %}
'''
PIECES = [
    "{{ bos_token }}{% for m in messages %}{% if loop.index0 % 2 == 0 %}\n  [{{ m.content | trim }}]\n{% else %}({{ m['content'].strip().upper() }}){% endif %}{% endfor %}",
    "{% set ns = namespace(n=0, last='') %}\n{% for m in messages %}\n  {% set ns.n = ns.n + m.content|length %}\n  {% set ns.last = m.role %}\n{% endfor %}\n{{ ns.n }} {{ ns.last }}\n",
    "{%- for m in messages[::-1] -%} {{ loop.index }}/{{ loop.length }}:{{ m.content[1:4] }}|{{ m.content[-2:] }}|{{ m.content.split(' ')[-1] }} {%- endfor -%}",
    "{# note #}\n  {# other -#}  x\n    {% if messages[0].role == 'system' %}S{% elif messages|length > 2 %}L{% else %}s{% endif %}\ny",
    "{% macro show(m, open='<', close='>') %}{{ open ~ m.role ~ close }}{% endmacro %}{% for m in messages if m.role != 'user' %}{{ show(m, close=']') }}{% else %}none{% endfor %}",
    "{{ messages | map(attribute='role') | join(', ') }};{{ messages | selectattr('role', 'equalto', 'user') | list | length }};{{ (messages | last).content | tojson }}",
    "{{ 'a' if missing is defined else 'b' }}{{ missing | default('d') }}{{ none is none }}{{ 1 in [1, 2] }}{{ 'x' not in 'abc' }}{{ not true }}{{ 7 // 2 }}{{ 7 % 4 }}{{ -7 // 2 }}{{ 2 ** 5 }}{{ 7 / 2 }}",
    "{{ [1, 'two', none, true, {'k': [1.5]}] | tojson }} {{ {'b': 1, 'a': \"q'\\u00e9\"} }} {{ [1, 'it\\'s'] }} {{ messages[0] | tojson(indent=2) }}",
    "{% set a %}block {{ messages|length }}{% endset %}{{ a|upper }}{% for i in range(10) %}{% if i == 3 %}{% continue %}{% endif %}{% if i > 5 %}{% break %}{% endif %}{{ i }}{% endfor %}",
    "{% for k, v in messages[0].items() %}{{ k }}={{ v }};{% endfor %}{{ messages[0].get('none', 'z') }}{{ 'a,b'.split(',') }}{{ 'Hello World'.replace('o', '0') | lower }}{{ 'x'.startswith('x') }}{{ ' y '.lstrip() }}|",
    "{% if messages[0].content is string and messages[0].content is not mapping and messages is iterable and messages is sequence %}ok{% endif %}{{ '%d' | length }}{{ ['b', 'a'] | first }}{{ 'abc' | last }}{{ 3 | string + '!' }}{{ '12' | int + 1 }}",
    "   {%+ if true %}kept{% endif %}   \n\t{% if true -%}  \n eaten{%- endif %}\n\n  {{- 'v' -}}  \n end\n\n",
    "{{ messages[-1].content.rstrip() + '\\n' if add_generation_prompt else '' }}{{ loop is defined }}{{ tools is none }}{{ eos_token }}{{ 'a' 'b' }}{{ (1, 2)[1] }}{{ 1 < 2 <= 2 }}",
    "{%- for m in messages %}{%- set content = m.content %}{%- if '</think>' in content %}{%- set content = content.split('</think>')[-1].lstrip('\\n') %}{%- endif %}{{- m.role ~ ':' ~ content }}{%- if not loop.last %}{{ ' | ' }}{% endif %}{%- endfor %}",
    "{{ 'größe 東京 😀'[2:7] }}{{ '東京' | length }}{{ 'éa' | capitalize }}{{ 'x y'.title() }}{{ '  ' | trim | length }}{{ 'a\\tb' | tojson }}",
    "{{ raise_exception('roles must alternate') }}", "{{ missing.attribute }}", "{{ 'a' + 1 }}", "{{ messages | nosuch }}", "{% for x in %}", "{{ 'abc }}", "{% if true %}",
    "{% set x = 1 %}{% for i in [1] %}{% set x = 2 %}{% endfor %}{{ x }}{% if true %}{% set x = 3 %}{% endif %}{{ x }}",
    "{% generation %}{{ messages[0].content }}{% endgeneration %}{% raw %}{{ raw }}{% endraw %}",
]
CHATS = [
    [{"role": "user", "content": "What is 12 + 30?"}],
    [{"role": "system", "content": "Answer  briefly. "}, {"role": "user", "content": "Why?\n"},
     {"role": "assistant", "content": "<think>hm</think>\n\n  Because \"<|im_end|>\".\\"}, {"role": "user", "content": "größer 東京 😀"}],
    [{"role": "user", "content": "a"}, {"role": "tool", "content": "1"}, {"role": "tool", "content": "2"}, {"role": "assistant", "content": "b"}],
]


def main():
    out = []
    for template in [QWEN] + PIECES:
        cases = []
        for chat in CHATS:
            for prompt in (False, True):
                try:
                    rendered = render_jinja_template([chat], chat_template=template, add_generation_prompt=prompt,
                                                     bos_token="<s>", eos_token="</s>")[0][0]
                except Exception:  # any refusal of jinja2's has to be one of ours
                    rendered = None
                cases.append({"messages": chat, "add_generation_prompt": prompt, "text": rendered})
        out.append({"template": template, "cases": cases})
    with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "chat_template.json"), "w", encoding="ascii") as f:
        json.dump(out, f, indent=0)
        f.write("\n")


if __name__ == "__main__":
    main()
