#!/usr/bin/env bash
# transformers 5.23.0: where a folder has both, special_tokens_map.json goes before tokenizer_config.json, and `tools=[]` is not
# "no tools" for the choice of a chat template.
#
# transformers 5 no longer writes special_tokens_map.json, but a folder that was saved by 4.x and whose tokenizer_config.json somebody
# then edited (another end token, say) loads with the old tokens. And among several templates the one named "tool_use" is taken as
# soon as `tools` is a list, also an empty one, as agents hand it over when nothing is enabled. Seen 2026-11-29 with PyPI
# transformers 5.23.0 and tokenizers 0.23.3:
#   end token: config says b, map says c -> c
#   template without tools: plain; with tools=[]: tool_use
# Fails when that changes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q --disable-pip-version-check transformers==5.23.0 tokenizers==0.23.3 jinja2
"$work/venv/bin/python" - "$work" 2>/dev/null <<'PY'
import json
import pathlib
import sys

from transformers import AutoTokenizer

folder = pathlib.Path(sys.argv[1]) / "model"
folder.mkdir()
(folder / "tokenizer.json").write_text(json.dumps(dict(
    version="1.0", truncation=None, padding=None, added_tokens=[], normalizer=None, pre_tokenizer=None, post_processor=None,
    decoder=None, model=dict(type="WordLevel", vocab=dict(a=0, b=1, c=2), unk_token="a"))))
templates = [dict(name="default", template="plain"), dict(name="tool_use", template="tool_use")]
(folder / "tokenizer_config.json").write_text(json.dumps(dict(
    tokenizer_class="PreTrainedTokenizerFast", eos_token="b", chat_template=templates)))
(folder / "special_tokens_map.json").write_text(json.dumps(dict(eos_token="c")))
tokenizer = AutoTokenizer.from_pretrained(folder)
print("end token: config says b, map says c ->", tokenizer.eos_token)
talk = [dict(role="user", content="x")]
plain = tokenizer.apply_chat_template(talk, tokenize=False)
empty = tokenizer.apply_chat_template(talk, tools=[], tokenize=False)
print(f"template without tools: {plain}; with tools=[]: {empty}")
assert (tokenizer.eos_token, plain, empty) == ("c", "plain", "tool_use"), "something else was seen before"
PY
