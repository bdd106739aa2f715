"""Writes tests/golden/jinja.json: what jinja2, set up as transformers sets it up, makes of templates and messages.

    pip install transformers==5.23.* jinja2==3.1.*
    python tests/golden/make_jinja_golden.py

The templates are written for this test in the manner of well-known model families (ChatML, Llama 2 and 3, Mistral, Gemma,
Zephyr, Phi, Qwen); the snippets go through the language feature by feature. A case whose rendering raises keeps "error".
"""
import json
import pathlib

from transformers.utils.chat_template_utils import _compile_jinja_template

TALKS = {
    "system": [
        {"role": "system", "content": "  You are brief.\n"},
        {"role": "user", "content": " What is 2 + 3? "},
        {"role": "assistant", "content": "It is 5.\n"},
        {"role": "user", "content": "And \"twice\" that, <b>é漢</b>?"},
    ],
    "plain": [{"role": "user", "content": "Hello"}],
    "odd": [{"role": "assistant", "content": "I begin."}, {"role": "user", "content": "Why?"}],
    "tool": [
        {"role": "user", "content": "Weather?"},
        {"role": "assistant", "content": "<think>\nlook it up\n</think>\n\nI ask."},
        {"role": "tool", "content": "{\"sky\": \"blue\"}"},
        {"role": "tool", "content": "again"},
        {"role": "assistant", "content": "Blue."},
        {"role": "user", "content": "Thanks"},
    ],
    "empty": [],
}

FAMILIES = {
    "chatml_default_system": """{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system
Be helpful.<|im_end|>
' }}{% endif %}{{'<|im_start|>' + message['role'] + '
' + message['content'] + '<|im_end|>' + '
'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant
' }}{% endif %}""",
    "qwen_like": """{%- if tools %}
    {{- '<|im_start|>system\\n# Tools\\n' }}
    {%- for tool in tools %}{{- "\\n" }}{{- tool | tojson }}{%- endfor %}
    {{- "<|im_end|>\\n" }}
{%- else %}
    {%- if messages[0]['role'] == 'system' %}
        {{- '<|im_start|>system\\n' + messages[0]['content'] + '<|im_end|>\\n' }}
    {%- else %}
        {{- '<|im_start|>system\\nYou are a test.<|im_end|>\\n' }}
    {%- endif %}
{%- endif %}
{%- for message in messages %}
    {%- if (message.role == "user") or (message.role == "system" and not loop.first) or (message.role == "assistant" and not message.tool_calls) %}
        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}
    {%- elif message.role == "assistant" %}
        {{- '<|im_start|>' + message.role }}
        {%- for tool_call in message.tool_calls %}
            {%- if tool_call.function is defined %}{%- set tool_call = tool_call.function %}{%- endif %}
            {{- '\\n<tool_call>' }}{{- tool_call.arguments | tojson }}
        {%- endfor %}
    {%- elif message.role == "tool" %}
        {%- if (loop.index0 == 0) or (messages[loop.index0 - 1].role != "tool") %}
            {{- '<|im_start|>user' }}
        {%- endif %}
        {{- '\\n<tool_response>\\n' }}
        {{- message.content }}
        {{- '\\n</tool_response>' }}
        {%- if loop.last or (messages[loop.index0 + 1].role != "tool") %}
            {{- '<|im_end|>\\n' }}
        {%- endif %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
""",
    "qwen3_like": """{%- set ns = namespace(multi_step=true, last=messages|length - 1) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.multi_step and message.role == "user" and not(message.content.startswith('<tool') and message.content.endswith('>')) %}
        {%- set ns.multi_step = false %}
        {%- set ns.last = index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- set content = message.content if message.content is string else '' %}
    {%- if message.role == "assistant" %}
        {%- set thought = '' %}
        {%- if '</think>' in content %}
            {%- set thought = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}
            {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
        {%- endif %}
        {%- if loop.index0 > ns.last and (loop.last or thought) %}
            {{- '<a>' ~ thought.strip('\\n') ~ '|' ~ content }}
        {%- else %}
            {{- '<a>' + content }}
        {%- endif %}
    {%- else %}
        {{- '<' ~ message.role ~ '>' ~ content }}
    {%- endif %}
{%- endfor %}
{{- ns.last }}
{%- if add_generation_prompt %}{{- '<a>' }}{%- if enable_thinking is defined and enable_thinking is false %}{{- 'no' }}{%- endif %}{%- endif %}
""",
    "llama2_like": """{% if messages[0]['role'] == 'system' %}{% set rest = messages[1:] %}{% set system = messages[0]['content'] %}{% else %}{% set rest = messages %}{% set system = false %}{% endif %}{% for message in rest %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Roles must alternate user/assistant/user/assistant/...') }}{% endif %}{% if loop.index0 == 0 and system != false %}{% set content = '<<SYS>>\\n' + system + '\\n<</SYS>>\\n\\n' + message['content'] %}{% else %}{% set content = message['content'] %}{% endif %}{% if message['role'] == 'user' %}{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}{% elif message['role'] == 'assistant' %}{{ ' ' + content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}""",
    "llama3_like": """{{- bos_token }}
{%- if custom_tools is defined %}{%- set tools = custom_tools %}{%- endif %}
{%- if not date is defined %}{%- set date = "26 Jul 2024" %}{%- endif %}
{%- if not tools is defined %}{%- set tools = none %}{%- endif %}
{#- the system message goes first #}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}
{{- "<|start_header_id|>system<|end_header_id|>\\n\\n" }}
{%- if tools is not none %}{{- "Environment: ipython\\n" }}{%- endif %}
{{- "Today Date: " + date + "\\n\\n" }}
{{- system_message }}
{{- "<|eot_id|>" }}
{%- for message in messages %}
    {%- if not (message.role == 'ipython' or message.role == 'tool' or 'tool_calls' in message) %}
        {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n'+ message['content'] | trim + '<|eot_id|>' }}
    {%- elif 'tool_calls' in message %}
        {%- if not message.tool_calls|length == 1 %}{{- raise_exception("one call at a time") }}{%- endif %}
    {%- elif message.role == "tool" or message.role == "ipython" %}
        {{- "<|start_header_id|>ipython<|end_header_id|>\\n\\n" }}
        {%- if message.content is mapping or message.content is iterable %}{{- message.content | tojson }}{%- else %}{{- message.content }}{%- endif %}
        {{- "<|eot_id|>" }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}
""",
    "mistral_like": """{%- if messages[0]["role"] == "system" %}
    {%- set system_message = messages[0]["content"] %}
    {%- set loop_messages = messages[1:] %}
{%- else %}
    {%- set loop_messages = messages %}
{%- endif %}
{%- set user_messages = loop_messages | selectattr("role", "equalto", "user") | list %}
{%- set ns = namespace() %}
{%- set ns.index = 0 %}
{%- for message in loop_messages %}
    {%- if not (message.role == "tool" or (message.tool_calls is defined and message.tool_calls is not none)) %}
        {%- if (message["role"] == "user") != (ns.index % 2 == 0) %}
            {{- raise_exception("roles must alternate") }}
        {%- endif %}
        {%- set ns.index = ns.index + 1 %}
    {%- endif %}
{%- endfor %}
{{- bos_token }}
{%- for message in loop_messages %}
    {%- if message["role"] == "user" %}
        {%- if loop.last and system_message is defined %}
            {{- "[INST] " + system_message + "\\n\\n" + message["content"] + "[/INST]" }}
        {%- else %}
            {{- "[INST] " + message["content"] + "[/INST]" }}
        {%- endif %}
        {%- if message == user_messages[-1] %}{{- "!" }}{%- endif %}
    {%- elif message["role"] == "assistant" %}
        {{- " " + message["content"]|trim + eos_token}}
    {%- endif %}
{%- endfor %}
""",
    "gemma_like": """{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}{% for message in messages %}{% if (message['role'] == 'assistant') %}{% set role = 'model' %}{% else %}{% set role = message['role'] %}{% endif %}{{ '<start_of_turn>' + role + '\\n' + message['content'] | trim + '<end_of_turn>\\n' }}{% endfor %}{% if add_generation_prompt %}{{'<start_of_turn>model\\n'}}{% endif %}""",
    "zephyr_like": """{% for message in messages %}
{% if message['role'] == 'user' %}
{{ '<|user|>\\n' + message['content'] + eos_token }}
{% elif message['role'] == 'system' %}
{{ '<|system|>\\n' + message['content'] + eos_token }}
{% elif message['role'] == 'assistant' %}
{{ '<|assistant|>\\n'  + message['content'] + eos_token }}
{% endif %}
{% if loop.last and add_generation_prompt %}
{{ '<|assistant|>' }}
{% endif %}
{% endfor %}""",
    "phi_like": """{% for message in messages %}{% if message['role'] in ['system', 'user'] and message['content'] %}{{'<|' ~ message['role'] ~ '|>\\n' ~ message['content'] ~ '<|end|>\\n'}}{% elif message['role'] == 'assistant' %}{% generation %}{{'<|assistant|>\\n' + message['content'] + '<|end|>\\n'}}{% endgeneration %}{% endif %}{% endfor %}{{ '<|assistant|>\\n' if add_generation_prompt else eos_token }}""",
    "macro_style": """{%- macro turn(role, text, end='<end>') -%}
    <{{ role }}>{{ text | trim }}{{ end }}
{%- endmacro -%}
{%- for m in messages -%}
    {{ turn(m.role, m.content) if not loop.last else turn(m.role, text=m.content, end='<last>') }}
{%- else -%}
    nothing
{%- endfor -%}""",
}

SNIPPETS = [
    # white space
    "a\n  {% if true %}\n  b\n  {% endif %}\nc\n", "a\n  {%+ if true %} b {%+ endif %}\n c\n\n", "a \n {%- if true -%} \n b \n {%- endif -%} \n c",
    "  {# note #}  x\n{# note #}\ny {#- z -#} w", "{{ 1 }}\n{{ 2 }}\n", "  {{ 1 }}  \n  {{- 2 -}}  \n 3", "x{% raw %} {{ a }} {% endraw %}y", " {% raw -%} {{ b }} {%- endraw %}\nz",
    "a\r\nb\rc\n", "{% set x = 1 %}   \n  {% set y = 2 %}\n{{ x + y }}", "{{ '}}' }}{{ {'a': {'b': 1}}.a.b }}", "\n\n", "", "{", "{%- if false %}{% else %}{%+ endif +%}\nk",
    # values as text
    "{{ none }} {{ true }} {{ 1.0 }} {{ 1e20 }} {{ 0.1 + 0.2 }} {{ 1e-5 }} {{ 7 // 2 }} {{ -7 // 2 }} {{ -7 % 3 }} {{ 7 / 2 }} {{ 2 ** 10 }} {{ 2 ** -1 }}",
    "{{ [1, 'a', \"it's\", none, 1.5, true] }} {{ (1,) }} {{ (1, 2) }} {{ {'a': [1], 'b': {'c': '\\n'}} }} {{ [] }} {{ {} }} {{ () }}",
    "{{ 'a' 'b' \"c\" }} {{ 'tab\\tnl\\n\\x41\\u00e9 \\' \\\\' }} {{ 1_000 }}", "{{ missing }}|{{ missing is defined }}|{{ messages.nope is undefined }}",
    "{{ [1,2]+[3] }} {{ 'ab' * 3 }} {{ [0] * 2 }} {{ true + 1 }} {{ 1 ~ 2 ~ none }}",
    # conditions
    "{{ 1 if true }} {{ 1 if false }} {{ 'a' if 0 else 'b' if none else 'c' }}", "{{ 1 < 2 < 3 }} {{ 1 < 3 < 2 }} {{ 1 == 1.0 }} {{ '1' == 1 }} {{ true == 1 }} {{ 'a' < 'b' }} {{ [1,2] < [1,3] }}",
    "{{ not 1 == 2 }} {{ not true or true }} {{ 1 and 'x' }} {{ '' or 'y' }} {{ 0 or none }}", "{{ 'a' in 'cat' }} {{ 'a' not in ['b'] }} {{ 'role' in messages[0] }} {{ 2 in [1, 2.0] }}",
    "{{ 1 is number }} {{ 1 is string }} {{ 'a' is string }} {{ {} is mapping }} {{ [] is iterable }} {{ 'a' is iterable }} {{ none is none }} {{ 1 is not none }} {{ [] is sequence }} {{ true is boolean }} {{ 1 is integer }} {{ 1.0 is float }} {{ false is false }} {{ 1 is true }}",
    "{{ 4 is even }} {{ 3 is odd }} {{ 9 is divisibleby 3 }} {{ 9 is divisibleby(2) }} {{ 1 is eq 1 }} {{ 2 is gt 1 }} {{ 2 is in [2] }} {{ 'A' is upper }} {{ 'a' is lower }}",
    # loops
    "{% for i in range(3) %}{{ loop.index }}{{ loop.index0 }}{{ loop.revindex }}{{ loop.first }}{{ loop.last }}{{ loop.length }};{% endfor %}",
    "{% for a, b in [(1, 2), [3, 4]] %}{{ a }}{{ b }}{% endfor %}", "{% for k, v in {'x': 1, 'y': 2}.items() %}{{ k }}={{ v }}{{ ',' if not loop.last }}{% endfor %}",
    "{% for i in range(10) if i is odd %}{{ i }}{{ loop.index }}{% else %}none{% endfor %}", "{% for i in [] %}x{% else %}empty{% endfor %}", "{% for c in 'héy' %}{{ c }}-{% endfor %}",
    "{% for i in range(5) %}{% if i == 1 %}{% continue %}{% endif %}{% if i == 3 %}{% break %}{% endif %}{{ i }}{% endfor %}",
    "{% set x = 0 %}{% for i in range(3) %}{% set x = x + i %}{{ x }}{% endfor %}{{ x }}", "{% set ns = namespace(x=0) %}{% for i in range(4) %}{% set ns.x = ns.x + i %}{% endfor %}{{ ns.x }}",
    "{% for i in [1,2,3] %}{{ loop.previtem is defined }}{{ loop.nextitem if loop.nextitem is defined }}{{ loop.cycle('a', 'b') }}{% endfor %}",
    "{% for i in range(2) %}{% for j in range(2) %}{{ loop.index }}{% endfor %}{{ loop.index }}{% endfor %}", "{% for k in {'b': 1, 'a': 2} %}{{ k }}{% endfor %}", "{% for x in missing %}a{% endfor %}b",
    "{% if true %}{% set y = 5 %}{% endif %}{{ y }}", "{% set a, b = 1, 2 %}{{ b }}{{ a }}", "{% set t %}in {{ 1 + 1 }}{% endset %}[{{ t }}]", "{% set t | upper %}abc{% endset %}{{ t }}",
    "{% with a = 1, b = 2 %}{{ a + b }}{% endwith %}{{ a is defined }}", "{% filter upper %}ab{{ 'c' }}{% endfilter %}",
    "{% macro f(a, b=2) %}{{ a }}-{{ b }}{% endmacro %}{{ f(1) }} {{ f(1, 3) }} {{ f(b=1, a=0) }} {{ f() }}", "{% macro r(n) %}{{ n }}{% if n > 0 %}{{ r(n - 1) }}{% endif %}{% endmacro %}{{ r(3) }}",
    "{% macro g() %}{{ later }}{% endmacro %}{% set later = 4 %}{{ g() }}",
    # filters
    "{{ '  a b ' | trim }}| {{ 'aXb' | upper }} {{ 'ÀÉ' | lower }} {{ 'hello wORLD' | capitalize }} {{ 'hello-world it\\'s' | title }}", "{{ 'xxaxx' | trim('x') }}",
    "{{ [1, 'a', {'k': none}, 1.5, 'é\"<>&'] | tojson }} {{ {'b': 1, 'a': [1, 2]} | tojson }}", "{{ {'b': {'c': []}, 'a': [1, {}]} | tojson(indent=2) }}", "{{ 'a\\u0001\\n/' | tojson }}",
    "{{ 'héy' | length }} {{ [1,2] | count }} {{ {'a': 1} | length }}", "{{ [1, 'b'] | join(', ') }} {{ ['a', 'b'] | join }} {{ messages | map(attribute='role') | join('|') }} {{ messages | join(',', attribute='role') }}",
    "{{ missing | default('d') }} {{ '' | default('e') }} {{ '' | default('e', true) }} {{ none | d('f') }} {{ none | default('g', boolean=true) }}", "{{ [3,1,2] | first }} {{ [3,1,2] | last }} {{ 'abc' | first }} {{ [] | first is defined }}",
    "{{ 'aaa' | replace('a', 'b') }} {{ 'aaa' | replace('a', 'b', 2) }}", "{{ [0, 1, 2, none] | select | list }} {{ [1,2,3] | select('odd') | list }} {{ [1,2,3] | reject('equalto', 2) | list }}",
    "{{ messages | selectattr('role', 'equalto', 'user') | list | length }} {{ messages | rejectattr('role', 'in', ['user', 'system']) | map(attribute='role') | list }} {{ messages | selectattr('nope') | list }} {{ messages | selectattr('nope', 'undefined') | list | length }}",
    "{{ ['a', 'b'] | map('upper') | list }} {{ [' a '] | map('trim') | join }} {{ [{'a': {'b': 1}}, {'a': {'b': 2}}] | map(attribute='a.b') | list }} {{ [{}, {'x': 1}] | map(attribute='x', default=7) | list }}",
    "{{ '42' | int + 1 }} {{ 'x' | int }} {{ 'x' | int(5) }} {{ 3.9 | int }} {{ '2.5' | int }} {{ '1.5' | float }} {{ 2 | float }} {{ 2.567 | round(2) }} {{ 2.5 | round }} {{ 2.1 | round(0, 'ceil') }} {{ -3 | abs }}",
    "{{ [3, 1, 2] | sort }} {{ ['b', 'A', 'c'] | sort }} {{ [1, 3] | sort(reverse=true) }} {{ {'b': 1, 'a': 2} | dictsort }} {{ [1, 2, 1] | unique | list }} {{ [1, 2] | sum }} {{ [2, 1] | min }} {{ [2, 3] | max }} {{ 'abc' | reverse }} {{ [1, 2] | reverse | list }}",
    "{{ 'a\\nb\\n\\nc' | indent }}|{{ 'a\\nb' | indent(2, true) }}|{{ 'a\\n\\nb' | indent(2, blank=true) }}", "{{ '<a>&\"\\'' | e }} {{ '<b>' | safe }} {{ 12 | string + 'x' }} {{ {'a': 1} | items | list }}",
    # methods, subscripts, slices
    "{{ ' a '.strip() }}|{{ 'xay'.strip('xy') }}|{{ ' a '.lstrip() }}|{{ ' a '.rstrip() }}|{{ 'é a é'.strip('é') }}", "{{ 'a,b,,c'.split(',') }} {{ ' a  b '.split() }} {{ 'a b c'.split(' ', 1) }} {{ 'a b c'.rsplit(' ', 1) }} {{ ' a  b c '.split(none, 1) }}",
    "{{ 'abc'.startswith('ab') }} {{ 'abc'.endswith(('x', 'c')) }} {{ 'abc'.upper() }} {{ 'ABC'.lower() }} {{ 'they\\'re x'.title() }} {{ 'aBC'.capitalize() }} {{ 'aaa'.replace('a', 'b', 1) }} {{ 'abc'.find('c') }} {{ 'aéc'.find('c') }} {{ 'abab'.count('ab') }} {{ '-'.join(['a', 'b']) }}",
    "{{ 'a\\nb\\r\\nc\\n'.splitlines() }} {{ '12'.isdigit() }} {{ ''.isdigit() }} {{ 'prefix-x'.removeprefix('prefix-') }} {{ 'x.py'.removesuffix('.py') }} {{ ' '.isspace() }}",
    "{{ {'a': 1}.get('a') }} {{ {'a': 1}.get('b') }} {{ {'a': 1}.get('b', 2) }} {{ {'a': 1}.keys() | list }} {{ {'a': 1}.values() | list }} {{ {'items': 3}['items'] }}",
    "{{ [1,2,3,4][1:] }} {{ [1,2,3,4][::-1] }} {{ [1,2,3,4][-2:] }} {{ [1,2,3,4][:-1] }} {{ [1,2,3,4][::2] }} {{ [1,2,3,4][3:0:-2] }} {{ [1,2][5:] }} {{ [1,2][-9:9] }} {{ 'héllo'[1:3] }} {{ 'abc'[::-1] }} {{ 'abc'[-1] }} {{ (1,2,3)[1:] }} {{ [1,2,3][-9::-1] }}",
    "{{ [1,2][0] }} {{ [1,2].0 }} {{ [[1]][0][0] }} {{ [1][7] is defined }} {{ messages[-1].role }} {{ messages[0]['content'] }}", "{{ 'abc'['upper']() }}", "{{ range(5) | list }} {{ range(1, 4) | list }} {{ range(5, 0, -2) | list }} {{ dict(a=1).a }} {{ [1,2].index(2) }}",
    # arguments of filters, tests, methods and globals
    "{{ {'b': 'é', 'a': [1, {}]} | tojson(separators=(',', ':')) }} {{ {'b': 1, 'a': {'d': 1, 'c': 2}} | tojson(sort_keys=true) }} {{ 'é漢🙂' | tojson(ensure_ascii=true) }} {{ 'é' | tojson(true) }}",
    "{{ {'b': 1, 'a': [1, [], {'c': 2}]} | tojson(indent=4, sort_keys=true, separators=(', ', ' = ')) }}", "{{ [1, [2]] | tojson(indent='\\t') }} {{ [1] | tojson(indent=0) }} {{ [1] | tojson(false, 1) }}",
    "{{ {1: 'a', none: 'b', true: 'c', 1.5: 'd', 'e': 'f'} }} {{ {1: 'a'}[1] }} {{ {1: 'a'}['1'] is defined }} {{ {1: 'a'}[1.0] }} {{ {2: 'b'} | tojson }} {{ {none: 1, false: 2, 2.5: 3} | tojson }}",
    "{{ 1 in {1: 2} }} {{ '1' in {1: 2} }} {{ {1: 2}.get(1) }} {{ {1: 2}.get(true) }} {{ {1: 2, 3: 4} | dictsort(reverse=true) }} {% for k in {3: 1, 1: 2} %}{{ k + 1 }}{% endfor %} {{ {1: 2}.items() | list }} {{ {1: 2} == {1.0: 2} }}",
    "{{ {'a': 1, 2: 3} | tojson(sort_keys=true) }}", "{{ {[1]: 2} }}", "{{ [1] | tojson(skipkeys=true) }}", "{{ [1] | tojson(separators=',') }}",
    "{{ {'B': 1, 'a': 3, 'c': 2} | dictsort }} {{ {'B': 1, 'a': 3} | dictsort(true) }} {{ {'B': 1, 'a': 3, 'c': 2} | dictsort(by='value') }} {{ {'b': 'x', 'a': 'Y'} | dictsort(false, 'value', true) }}", "{{ {'a': 1} | dictsort(by='nope') }}",
    "{{ 42 | round }} {{ 42 | round(1) }} {{ 42.55 | round }} {{ 2.675 | round(2) }} {{ 1.115 | round(2) }} {{ 2.5 | round }} {{ 3.5 | round }} {{ -2.5 | round }} {{ 0.5 | round }} {{ 1234.5 | round(-2) }} {{ 1250 | round(-2) }} {{ 1350 | round(-2) }} {{ -1250 | round(-2) }} {{ true | round }}",
    "{{ 42.1 | round(method='ceil') }} {{ 42.55 | round(1, 'floor') }} {{ 42 | round(0, 'floor') }} {{ 1234 | round(-2, 'ceil') }} {{ 2.345 | round(precision=2) }}", "{{ 1 | round(0, 'up') }}", "{{ 'a' | round }}",
    "{{ '0x1F' | int(base=16) }} {{ 'ff' | int(0, 16) }} {{ 'z' | int(7, 36) }} {{ '0b101' | int(0, 2) }} {{ '101' | int(base=2) }} {{ '12' | int(9, 2) }} {{ '0o17' | int(0, 8) }} {{ '0x1f' | int(0, 0) }} {{ '017' | int(5, 0) }} {{ ' 1_000 ' | int }} {{ '1__0' | int(3) }} {{ '-0x10' | int(0, 16) }} {{ '+5' | int }} {{ '+-5' | int(1) }} {{ '1e3' | int }} {{ '0x1F' | int(4) }} {{ none | int(6) }} {{ [] | int(2) }}",
    "{{ 'x' | float(1.5) }} {{ '1e3' | float }} {{ ' -2.5 ' | float }} {{ none | float(3) }} {{ true | float }}",
    "{% for i in [1] %}{{ loop.depth }}{{ loop.depth0 }}{% for j in [1] %}{{ loop.depth }}{% endfor %}{% endfor %}", "{% for x in [1, 1, 2, 2, 1] %}{{ loop.changed(x) }} {% endfor %}{% for x in [1, 1] %}{{ loop.changed() }} {% endfor %}",
    "{{ [1, 2, 3, 4, 5] | batch(2) | list }} {{ [1, 2, 3] | batch(2, 'x') | list }} {{ [] | batch(2) | list }} {{ [1, 2, 3, 4, 5, 6, 7] | slice(3) | list }} {{ [1, 2, 3, 4] | slice(3, fill_with=0) | list }} {{ 'abc' | batch(linecount=2) | list }}",
    "{{ [{'a': 2, 'b': 'y'}, {'a': 1, 'b': 'x'}, {'a': 2, 'b': 'X'}] | sort(attribute='a,b') | map(attribute='b') | join }} {{ [[1, 'b'], [0, 'c']] | sort(attribute=1) }} {{ [[1, 'b'], [0, 'c']] | map(attribute=0) | list }} {{ ['b', 'A', 'a', 'B'] | sort(case_sensitive=true) }} {{ ['b', 'A', 'a'] | sort(true) }}",
    "{{ ['a', 'A', 'b'] | unique | list }} {{ ['a', 'A'] | unique(true) | list }} {{ [{'x': 1}, {'x': 1}] | unique(attribute='x') | list }} {{ ['b', 'A'] | min }} {{ ['b', 'A'] | max(true) }} {{ [{'x': 3}, {'x': 1}] | min(attribute='x') }} {{ [{'x': 3}, {'x': 1}] | sum(attribute='x') }} {{ [1, 2] | sum(start=10) }}",
    "{{ [{'a': {'b': 1}}, {'a': {}}, {}] | map(attribute='a.b', default='-') | list }} {{ [{}] | map(attribute='a.b', default={'b': 7}) | list }} {{ [1.55] | map('round', 1) | list }} {{ ['x'] | map('replace', 'x', 'y') | list }} {{ ['3'] | map('int', base=4) | list }}",
    "{{ [{'a': 1}, {'a': 2}] | selectattr('a', 'gt', 1) | list }} {{ [{'a': {'b': none}}] | selectattr('a.b', 'none') | list | length }} {{ [1, 2, 3, 4] | select('divisibleby', 2) | list }} {{ [1, 2, 3, 4] | reject('divisibleby', num=2) | list }} {{ [1, 2] | select('in', [2]) | list }}",
    "{{ 'a\\nb' | indent(width='--') }}|{{ 'a\\n\\nb' | indent(2, true, true) }}|{{ '' | indent(2, true) }}|{{ 'a\\r\\nb\\x0bc' | indent(1) }}|{{ 'a\\n' | indent(2) }}|{{ '\\na' | indent(2, first=true) }}|{{ 'a' | indent(first=true) }}",
    "{{ 'xaxbx' | trim(chars='x') }} {{ ' a ' | trim(none) }}| {{ 'aaa' | replace(old='a', new='b', count=1) }} {{ 'aaa' | replace('a', 'b', count=2) }} {{ '' | default(default_value='x', boolean=true) }} {{ missing | default(boolean=true) }}|",
    "{{ 'a b  c d'.split(maxsplit=1) }} {{ 'a,b,c'.split(sep=',', maxsplit=1) }} {{ 'a,b,c'.rsplit(',', maxsplit=1) }} {{ 'a\\nb\\r\\n'.splitlines(true) }} {{ 'a\\x0cb\\x1cc'.splitlines() }} {{ 'aaa'.replace('a', 'b', 2) }}",
    "{{ 'abcabc'.find('c', 3) }} {{ 'abcabc'.find('a', 1, 3) }} {{ 'abcabc'.rfind('a', 0, -3) }} {{ 'éab'.find('b', 1) }} {{ 'aaaa'.count('a', 1, -1) }} {{ 'abc'.startswith('b', 1) }} {{ 'abc'.endswith('b', 0, 2) }} {{ 'abc'.startswith(('x', 'b'), 1) }} {{ 'abc'.index('c') }} {{ 'abcb'.rindex('b') }} {{ 'abc'.find('', 5) }} {{ 'abc'.count('') }}",
    "{{ 'a=b=c'.partition('=') }} {{ 'a=b=c'.rpartition('=') }} {{ 'abc'.partition('x') }} {{ 'abc'.rpartition('x') }} {{ {'a': 1}.copy() }}", "{{ 'abc'.index('x') }}", "{{ {'a': 1}.get('b', default=2) }}",
    "{{ true is sameas true }} {{ 1 is sameas true }} {{ none is sameas none }} {{ 'upper' is filter }} {{ 'nope' is filter }} {{ 'odd' is test }}",
    "{{ 'a' | upper(1) }}", "{{ 'a' | trim(foo=1) }}", "{{ [1] | first(2) }}", "{{ [1] | join(',', sep=';') }}", "{{ 'a' | tojson(indent=1, nope=2) }}", "{{ 'a'.upper(1) }}", "{{ 'a'.strip('a', 'b') }}", "{{ 1 is odd(2) }}", "{{ 'a'.split(',', nope=1) }}", "{{ range(3, step=2) }}", "{{ {'a': 1}.items(1) }}", "{{ [] | batch }}", "{{ {}.copy(1) }}", "{{ raise_exception(message='x') }}", "{{ 'a' | default('x', 'y', 'z') }}",
    # errors
    "{{ missing.x }}", "{{ missing + 'a' }}", "{{ 1 + 'a' }}", "{{ raise_exception('no') }}", "{{ missing() }}", "{{ [1] < 'a' }}", "{{ 1 // 0 }}", "{% set x.y = 1 %}", "{{ 'a'.nope() }}", "{{ missing | tojson }}",
    "{% for a, b in [1] %}{% endfor %}", "{% if %}", "{{ }}", "{% endfor %}", "{% for x in y %}", "{{ 1", "{% unknown %}", "{{ 'a }}", "{{ a b }}", "{{ 1 | nope }}", "{{ 1 is nope }}", "{% break %}", "{{ (1 }}", "{{ ] }}", "{# never ends",
]


def render(template, messages, add, tokens):
    try:
        text = _compile_jinja_template(template).render(messages=messages, tools=None, documents=None, add_generation_prompt=add, **tokens)
        return {"text": text}
    except Exception as error:  # noqa: BLE001: every failure of the template is the answer
        return {"error": type(error).__name__}


tokens = {"bos_token": "<s>", "eos_token": "</s>"}
cases = []
for name, template in FAMILIES.items():
    for talk in TALKS:
        for add in (False, True):
            cases.append({"name": f"{name}/{talk}/{int(add)}", "template": name, "talk": talk, "add": add, **render(template, TALKS[talk], add, tokens)})
snippets = [{"template": s, **render(s, TALKS["system"], False, tokens)} for s in SNIPPETS]
out = {"tokens": tokens, "talks": TALKS, "families": FAMILIES, "cases": cases, "snippets": snippets}
path = pathlib.Path(__file__).with_name("jinja.json")
path.write_text(json.dumps(out, ensure_ascii=False, indent=1) + "\n")
print(len(cases), "cases,", len(snippets), "snippets,", sum("error" in c for c in cases + snippets), "of them errors:", path)
