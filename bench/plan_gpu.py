#!/usr/bin/env python3
"""What `plumb plan` says of a GPU's memory and time, beside what a run takes, for three recipes.

    bench/plan_gpu.py build/plumb [--folder DIR] [--device cuda] [--shapes 0.5B 0.5B 1.5B] [--steps 4] [--only sft grpo dpo] [--small]

SFT, GRPO (256 prompts of 256 tokens x 8 answers of 512) and DPO of drawn weights in published shapes (bench/make_shape.py), which never end
an answer early, so that the plan's lengths are the run's. Each plan is made on the machine itself (its speeds measured) right before the run.
Printed per recipe: GB in all, seconds to generate, to train and of a step, each planned, measured (memory: the most that the card held;
seconds: mean of the steps behind the first) and their ratio. --small proves that everything runs; its figures mean nothing.
"""
import argparse
import json
import pathlib
import random
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("plumb")
parser.add_argument("--folder", type=pathlib.Path)
parser.add_argument("--device", default="cuda")
parser.add_argument("--shapes", nargs=3, default=["0.5B", "0.5B", "1.5B"])
parser.add_argument("--steps", type=int, default=4)
parser.add_argument("--only", nargs="+", choices=["sft", "grpo", "dpo"], default=["sft", "grpo", "dpo"])
parser.add_argument("--small", action="store_true")
args = parser.parse_args()
folder = args.folder or pathlib.Path(tempfile.mkdtemp())
folder.mkdir(parents=True, exist_ok=True)
random.seed(1)


def letters(count):
    """Text of so many bytes: the models' tokens are bytes."""
    return "".join(random.choice("abcdefghij klmnop") for _ in range(count))


prompts, samples, prompt, answer, batch, length, micro = (8, 4, 16, 8, 4, 64, 256) if args.small else (256, 8, 256, 512, 32, 1024, 8192)
rows = {
    "sft": [{"prompt": letters(8), "completion": letters(length - 16)} for _ in range(4 * batch)],
    "grpo": [{"prompt": letters(prompt), "answer": "1"} for _ in range(prompts)],
    "dpo": [{"prompt": letters(length // 4), "chosen": letters(length // 4), "rejected": letters(length // 4)} for _ in range(8 * batch)],
}
# Of a prompt and an answer, with the end token of demonstrations.
lengths = {"sft": (8, length - 15), "grpo": (prompt, answer), "dpo": (length // 4, length // 4 + 1)}
recipes = {
    "sft": f"""[algorithm]
name = "sft"
[sft]
batch = {batch}
max_tokens = {length}
heldout = 0
""",
    "grpo": f"""[rollout]
prompts_per_step = {prompts}
samples_per_prompt = {samples}
max_new_tokens = {answer}
max_batch = {min(512, prompts * samples)}
[[reward.parts]]
name = "correct"
kind = "answer"
weight = 1.0
[algorithm]
name = "grpo"
skip_equal_groups = false
""",
    "dpo": f"""[algorithm]
name = "dpo"
[preference]
batch = {batch}
max_tokens = {length}
""",
}


def write_recipe(name, shape):
    model = folder / shape
    if not (model / "model.safetensors").exists():
        subprocess.run([sys.executable, ROOT / "bench/make_shape.py", shape, model], check=True)
    data = folder / f"{name}.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows[name]))
    recipe = folder / f"{name}.toml"
    recipe.write_text(f"""[run]
device = "{args.device}"
steps = {args.steps}
checkpoint_every = 0
[checkpoint]
optimizer = "never"
[model]
path = "{model}"
dtype = "bfloat16"
[data]
train = "{data}"
{f'max_prompt_tokens = {prompt + 8}' if name == 'grpo' else ''}
[eval]
every = 0
[optimizer]
learning_rate = 1e-6
micro_batch_tokens = {micro}
{recipes[name]}""")
    return recipe


def call(*line):
    done = subprocess.run([str(part) for part in line], capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"plan_gpu.py: {' '.join(map(str, line))} ended with {done.returncode}:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done.stdout


def row(name, what, planned, measured, unit):
    print(f"{name:5} {what:9} {planned:10.3f} {measured:10.3f} {unit:2} {planned / measured if measured else 0:6.2f}", flush=True)


print(f"{'':5} {'':9} {'planned':>10} {'measured':>10}    {'ratio':>6}")
for (name, _), shape in zip(rows.items(), args.shapes):
    if name not in args.only:
        continue
    recipe = write_recipe(name, shape)
    mean = lengths[name]
    plan = json.loads(call(args.plumb, "plan", recipe, "--json", "--prompt-tokens", mean[0], "--answer-tokens", mean[1]))
    run = folder / f"run-{name}"
    call(args.plumb, "train", recipe, "--out", run, "--overwrite", "--quiet")
    steps = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    later = [step for step in steps if "time/step" in step][1:]

    def mean(key):
        return sum(step.get(key, 0.0) for step in later) / len(later)

    row(name, "memory", plan["total"] / 1e9, max(step.get("perf/peak_memory_gb", 0) for step in steps), "GB")
    if plan["time"]:
        for what in ("generate", "train", "step"):
            if plan["time"][f"{what}_s"] or mean(f"time/{what}"):
                row(name, what, plan["time"][f"{what}_s"], mean(f"time/{what}"), "s")
        print(f"{name:5} {plan['time']['speeds']}")
