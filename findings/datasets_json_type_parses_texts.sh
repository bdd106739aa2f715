#!/usr/bin/env bash
# datasets 5.2.0 takes a text in a column of mixed types for JSON: the answer "007" comes back as the number 7.
#
# Since version 5 a JSON Lines column that holds values of several types no longer fails: it gets the feature type Json, which
# keeps each value as JSON text and decodes it when a row is read. A string that happens to be JSON is kept as it is, only any
# other as a JSON string, so the former is decoded to what it spells. One integer among the ground truths of a verl file is enough: "0.50" loses its zero, "true" is a
# boolean, "[1, 2]" a list, while "1/2" stays a text. The same with messages of which some have a text and some a list of parts as
# content: an assistant's "42" is an integer then. Without a mixture every text stays as it is. Seen 2026-11-29, PyPI datasets 5.2.0
# with pyarrow 26.0.1, Python 3.11:
#   ground truths of one type   ['007', '0.50', 'true', '[1, 2]', '1/2'] -> the same
#   with an integer in front    [4, '007', '0.50', 'true', '[1, 2]', '1/2'] -> [4, 7, 0.5, True, [1, 2], '1/2']
#   contents of two forms       [[{'type': 'text', 'text': '6*7?'}], '42'] -> [[{'type': 'text', 'text': '6*7?'}], 42]
# Fails when that changes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q --disable-pip-version-check datasets==5.2.0 pyarrow==26.0.1
export HF_HUB_OFFLINE=1 HF_HOME=$work/home
"$work/venv/bin/python" - "$work" <<'PY'
import json
import pathlib
import sys

import datasets

datasets.disable_progress_bars()


def read(name, rows):
    file = pathlib.Path(sys.argv[1], name + ".jsonl")
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return list(datasets.load_dataset("json", data_files=str(file), split="train"))


def truths(name, values):
    rows = [{"prompt": "?", "reward_model": {"style": "rule", "ground_truth": v}} for v in values]
    return [row["reward_model"]["ground_truth"] for row in read(name, rows)]


def contents(name, values):
    return [row["messages"][0]["content"] for row in
            read(name, [{"messages": [{"role": "user", "content": v}]} for v in values])]


texts = ["007", "0.50", "true", "[1, 2]", "1/2"]
parts = [{"type": "text", "text": "6*7?"}]
cases = [
    ("one type", truths("same", texts), texts),
    ("an integer in front", truths("mixed", [4] + texts), [4, 7, 0.5, True, [1, 2], "1/2"]),
    ("contents of two forms", contents("contents", [parts, "42"]), [parts, 42]),
]
ok = True
for name, seen, expected in cases:
    same = seen == expected and [type(v) for v in seen] == [type(v) for v in expected]
    ok &= same
    print(f"{name:24} {seen}{'' if same else '   NOT ' + str(expected)}")
sys.exit(0 if ok else "the behaviour changed")
PY
