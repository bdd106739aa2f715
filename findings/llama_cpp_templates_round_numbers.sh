#!/usr/bin/env bash
# llama.cpp of October 2026 (xllamacpp 2026.10.11549) writes the numbers of tools and tool calls with six digits into a prompt: a call
# with 1234567.89 stands there as 1.23457e+06 on the next turn, the time 1764539911.25 as 1.76454e+09.
#
# It has a Jinja of its own, whose tojson prints a float as a C++ stream does, where that of transformers prints it so that it can be
# read back. An agent thus reads another call than it made, coordinates moved by metres and times by up to 83 minutes, and a model that
# was trained on prompts of transformers meets other tokens at every 1.0, which becomes 1. Integers are kept. Nor is it an
# error where the two differ in kind: a template that prints its tools, or any mapping, without tojson prints nothing, and length and
# slices count bytes, so that a slice may begin in the middle of a character. Seen 2026-11-30, PyPI xllamacpp 2026.10.11549 beside
# transformers 5.23.0, one template and one conversation, a tiny random model:
#                      transformers           llama.cpp
#   price              1234567.89             1.23457e+06
#   time               1764539911.25          1.76454e+09
#   lat                52.520008              52.52
#   rate               1.0                    1
#   id                 9007199254740993       9007199254740993
#   maximum of a tool  1234567.5              1.23457e+06
#   {{ tools }}        [{'type': 'function..  (nothing)
#   'été' | length     3                      5
#   'été'[1:]          té                     one byte of é, té
# Fails when that changes. Starts llama.cpp's server on this machine's loopback address, for the time of the script.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q --disable-pip-version-check xllamacpp==2026.10.11549 gguf==0.19.0 numpy==2.4.6 \
  transformers==5.23.0 jinja2
export HF_HUB_OFFLINE=1 TRANSFORMERS_VERBOSITY=error
cat >"$work/prompts.py" <<'PY'
import json
import re
import sys
import urllib.request

import gguf
import numpy as np
import xllamacpp
from transformers.utils.chat_template_utils import render_jinja_template

TEMPLATE = """
{%- for m in messages %}
{{- '<' + m.role + '>' + (m.content or '') }}
{%- for call in m.tool_calls or [] %}{{ call.function.name }} {{ call.function.arguments | tojson }}{% endfor %}
{%- endfor %}
{%- for tool in tools or [] %}|{{ tool | tojson }}{% endfor -%}
|printed: {{ tools }}|length: {{ messages[0].content | length }}|rest: {{ messages[0].content[1:] }}"""


def write_model(path, width=32, words=256):
    """A llama of one layer over single bytes: the server wants some model before it renders a template."""
    rng = np.random.default_rng(0)
    w = gguf.GGUFWriter(path, "llama")
    for add, value in ((w.add_context_length, 512), (w.add_embedding_length, width), (w.add_block_count, 1),
                       (w.add_feed_forward_length, width), (w.add_head_count, 2), (w.add_head_count_kv, 2),
                       (w.add_layer_norm_rms_eps, 1e-5), (w.add_rope_dimension_count, width // 2), (w.add_vocab_size, words)):
        add(value)
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]  # the letters that GPT-2 gives to bytes
    others = iter(range(256, 512))
    w.add_tokenizer_model("gpt2")
    w.add_tokenizer_pre("gpt-2")
    w.add_token_list([chr(b if b in printable else next(others)) for b in range(words)])
    w.add_token_types([gguf.TokenType.NORMAL] * words)
    w.add_token_merges(["a b"])
    w.add_eos_token_id(0)
    square, flat = (width, width), (width,)
    shapes = {"token_embd": (words, width), "output": (words, width), "output_norm": flat}
    shapes |= {f"blk.0.{n}": square for n in ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")}
    shapes |= {f"blk.0.{n}": flat for n in ("attn_norm", "ffn_norm")}
    for name, shape in shapes.items():
        w.add_tensor(name + ".weight", rng.normal(0, 0.1, shape).astype(np.float32))
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


write_model(sys.argv[1])
params = xllamacpp.CommonParams()
params.model.path, params.chat_template, params.use_jinja = sys.argv[1], TEMPLATE, True
params.n_ctx, params.n_parallel, params.warmup, params.cpuparams.n_threads = 512, 1, False, 1
server = xllamacpp.Server(params)


def conversation(arguments):
    call = {"id": "1", "type": "function", "function": {"name": "pay", "arguments": arguments}}
    return [{"role": "user", "content": "été"}, {"role": "assistant", "content": "", "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "1", "content": "done"}]


def both(arguments, tools):
    """The prompt of transformers, which wants the arguments parsed, and of llama.cpp, which wants them as the API sends them."""
    [theirs], _ = render_jinja_template([conversation(arguments)], chat_template=TEMPLATE, tools=tools)
    body = {"messages": conversation(json.dumps(arguments)), "tools": tools}
    request = urllib.request.Request(server.listening_address + "/apply-template", json.dumps(body).encode(),
                                     {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as reply:
        return theirs, json.loads(reply.read())["prompt"]


arguments = {"price": 1234567.89, "time": 1764539911.25, "lat": 52.520008, "rate": 1.0, "id": 9007199254740993}
tools = [{"type": "function", "function": {"name": "pay", "description": "", "parameters": {
    "type": "object", "properties": {"price": {"type": "number", "maximum": 1234567.5}}}}}]
prompts = both(arguments, tools)
calls = [re.search(r"pay (\{.*?\})<tool>", p)[1] for p in prompts]
limits = [re.search(r'"maximum": (.*?)\}', p)[1] for p in prompts]
tails = [p.split("|")[-3:] for p in prompts]
print("transformers:", calls[0], limits[0], tails[0])
print("llama.cpp:   ", calls[1], limits[1], tails[1])
ok = calls == [json.dumps(arguments),
               '{"price": 1.23457e+06, "time": 1.76454e+09, "lat": 52.52, "rate": 1, "id": 9007199254740993}']
ok &= limits == ["1234567.5", "1.23457e+06"]
ok &= tails[0] == [f"printed: {tools}", "length: 3", "rest: té"]
ok &= tails[1][:2] == ["printed: ", "length: 5"] and tails[1][2] != "rest: té" and tails[1][2].endswith("té")
sys.exit(0 if ok else "the behaviour changed")
PY
"$work/venv/bin/python" "$work/prompts.py" "$work/tiny.gguf" 2>"$work/log" || { tail -5 "$work/log" >&2; exit 1; }
