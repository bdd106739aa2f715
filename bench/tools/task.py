"""The task of bench/compare.py --only tools: sums that a tool adds up, the same files for Plumb and TRL.

A 135M model calls no tool unless it is shown how, so every prompt begins with three dialogues in which one is called; it copies them
often enough (the call frequency is printed of both sides). Writes FOLDER/model (the model's files with a chat template that writes tools and
keeps beginnings) and FOLDER/rows.jsonl."""
import json
import os
import pathlib
import random
import shutil

HERE = pathlib.Path(__file__).resolve().parent


def call(a, b):
    return '<tool_call>\n{"name": "calculate", "arguments": {"a": %d, "b": %d}}\n</tool_call>' % (a, b)


def dialogue(a, b):
    return [{"role": "user", "content": f"What is {a} + {b}?"}, {"role": "assistant", "content": call(a, b)},
            {"role": "tool", "content": str(a + b)}, {"role": "assistant", "content": f"{a} + {b} is {a + b}."}]


def rows(count):
    random.seed(7)
    out = []
    for _ in range(count):
        shown = [m for _ in range(3) for m in dialogue(random.randint(100, 999), random.randint(100, 999))]
        a, b = random.randint(100, 999), random.randint(100, 999)
        out.append({"prompt": [*shown, {"role": "user", "content": f"What is {a} + {b}?"}], "answer": str(a + b)})
    return out


def write(model, folder, count):
    folder = pathlib.Path(folder)
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "model").mkdir(parents=True)
    for file in pathlib.Path(model).resolve().iterdir():
        if file.name != "chat_template.jinja":
            os.symlink(file, folder / "model" / file.name)
    shutil.copy(HERE / "chat_template.jinja", folder / "model")
    with (folder / "rows.jsonl").open("w") as file:
        for row in rows(count):
            file.write(json.dumps(row) + "\n")
    return folder / "model", folder / "rows.jsonl"
