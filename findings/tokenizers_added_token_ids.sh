#!/usr/bin/env bash
# tokenizers 0.23.3 does not read the `id` of an entry in tokenizer.json's `added_tokens`.
#
# A content that the model's vocabulary has keeps the vocabulary's id; any other gets the next free id, in the order of the list. A
# file whose added tokens stand in another order than their ids, or leave a gap, loads without a word and gives other ids than it
# says: the embedding rows that a model was trained with are then those of other tokens. Writers sort by id, so it shows only in
# files that were edited or merged by hand. Seen 2026-11-29, PyPI tokenizers 0.23.3, Python 3.11:
#   in order       {'<x>': 3, '<y>': 4} -> {'<x>': 3, '<y>': 4}
#   other order    {'<y>': 4, '<x>': 3} -> {'<y>': 3, '<x>': 4}
#   a gap          {'<x>': 10, '<y>': 7} -> {'<x>': 3, '<y>': 4}
#   in vocabulary  {'b': 9, '<x>': 3} -> {'b': 1, '<x>': 3}
# Fails when that changes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q --disable-pip-version-check tokenizers==0.23.3
"$work/venv/bin/python" - <<'PY'
import json

from tokenizers import Tokenizer

VOCABULARY = {"a": 0, "b": 1, "c": 2}


def ids(said):
    added = [dict(id=i, content=t, single_word=False, lstrip=False, rstrip=False, normalized=False, special=True)
             for t, i in said.items()]
    tokenizer = Tokenizer.from_str(json.dumps(dict(
        version="1.0", truncation=None, padding=None, added_tokens=added, normalizer=None, pre_tokenizer=None,
        post_processor=None, decoder=None, model=dict(type="WordLevel", vocab=VOCABULARY, unk_token="a"))))
    return {t: tokenizer.token_to_id(t) for t in said}


cases = [
    ("in order", {"<x>": 3, "<y>": 4}, {"<x>": 3, "<y>": 4}),
    ("other order", {"<y>": 4, "<x>": 3}, {"<y>": 3, "<x>": 4}),
    ("a gap", {"<x>": 10, "<y>": 7}, {"<x>": 3, "<y>": 4}),
    ("in vocabulary", {"b": 9, "<x>": 3}, {"b": 1, "<x>": 3}),
]
for name, said, seen in cases:
    got = ids(said)
    print(f"{name:14} {said} -> {got}")
    assert got == seen, f"{name}: {seen} was seen before"
PY
