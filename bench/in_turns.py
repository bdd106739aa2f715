#!/usr/bin/env python3
"""Plumb and the programs that people would run instead, in turns on the same cores: a round runs every figure of both sides once, one
process after the other, so that what else the machine does falls on both. Ratios are of the medians over the rounds, of tokens a second
and of tokens a second of processor time; on a machine that others use the second says more, with one core (--cores 0), where no thread
waits for another, most.

  bench/in_turns.py [--cores 0,1] [--rounds 5] [--models smollm2 qwen3] [--figures decode1 decode32 train lora] [--brief] [--quick]
                    [--python INTERPRETER] [--old MODEL_BENCH] [--out FILE.json]

With --old the other program is an earlier build's model_bench, and there is no aim.

Figures: greedy decoding of 1 and of 32 sequences against llama.cpp in f16; the train step (forward, backward, clipping, AdamW with
float32 masters) against transformers with bfloat16 autocast; the same of a LoRA of rank 8 on all linear layers against PEFT on a
bfloat16 base, with the peak of each process' memory. Models: SmolLM2-135M-Instruct (`make model`) and drawn weights in the shape of
Qwen3-0.6B, made on the first call. The interpreter needs torch, transformers, peft, gguf and llama-cpp-python: the one of
bench/compare.py (build/bench-env) and `pip install peft`. --quick proves that everything runs; its figures mean nothing.
Needs build/bench/model_bench (`make bench` builds it).
"""
import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
FIGURES = {  # the aim: Plumb is so many times as fast
    "decode1": ("llama.cpp f16", 1.0), "decode32": ("llama.cpp f16", 1.5), "train": ("transformers bf16", 2.5), "lora": ("peft bf16", 2.5)}

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--cores", default="0,1", help="cores for every program, as taskset has them (default 0,1)")
parser.add_argument("--rounds", type=int, default=5)
parser.add_argument("--models", nargs="+", default=["smollm2", "qwen3"], choices=["smollm2", "qwen3"])
parser.add_argument("--figures", nargs="+", default=list(FIGURES), choices=list(FIGURES))
parser.add_argument("--brief", action="store_true", help="fewer tokens, for a machine that has little time")
parser.add_argument("--quick", action="store_true", help="a tiny model and one round")
parser.add_argument("--python", default=str(ROOT / "build/bench-env/bin/python"), help="an interpreter that has the other programs")
parser.add_argument("--old", type=pathlib.Path, help="model_bench of another build, to run in place of the other programs")
parser.add_argument("--out", type=pathlib.Path, default=ROOT / "build/in_turns.json", help="every run as JSON")
args = parser.parse_args()
spans = [[int(n) for n in part.split("-")] for part in args.cores.split(",")]
threads = sum(span[-1] - span[0] + 1 for span in spans)
rounds = 1 if args.quick else args.rounds


def prepare(model):
    """(folder, f16 GGUF)"""
    if model == "smollm2" and not args.quick:
        folder, gguf = ROOT / "models/SmolLM2-135M-Instruct", ROOT / "build/SmolLM2-135M-Instruct.f16.gguf"
        if not (folder / "config.json").exists():
            sys.exit("bench/in_turns.py: models/SmolLM2-135M-Instruct is missing: run `make model`")
        if not gguf.exists():
            subprocess.run([args.python, ROOT / "bench/make_f16_gguf.py", f"{folder}.Q4_1.gguf", gguf], check=True)
        return folder, gguf
    shape = "tiny" if args.quick else "qwen3-0.6b"
    folder = ROOT / "build" / f"bench-{shape}"
    if not (folder / "model.f16.gguf").exists():
        subprocess.run([args.python, ROOT / "bench/make_random_model.py", shape, folder], check=True)
    return folder, folder / "model.f16.gguf"


def run(*command):
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1",
                   "TRANSFORMERS_VERBOSITY": "error"}
    environment.setdefault("GOMP_SPINCOUNT", "1000")  # as bench/compare.py
    done = subprocess.run(["taskset", "-c", args.cores, *map(str, command)], env=environment, cwd=ROOT, capture_output=True, text=True)
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode != 0 or not lines:
        sys.exit(f"bench/in_turns.py: FAILED: {' '.join(map(str, command))}\n    " + "\n    ".join(done.stderr.splitlines()[-8:]))
    return json.loads(lines[-1])


def sides(figure, model, folder, gguf):
    """The command of Plumb and that of the other program."""
    large = model == "qwen3" and not args.quick
    common = ["--threads", threads, "--rounds", 1]
    if figure.startswith("decode"):
        batch = int(figure.removeprefix("decode"))
        new = 4 if args.quick or (args.brief and batch > 1) else 8 if args.brief else (16 if large else 32) if batch > 1 else 48
        sizes = [*common, "--batch", batch, "--prompt", 4 if args.brief else 16, "--new", new]
        return ["build/bench/model_bench", "decode", folder, *sizes], [args.python, "bench/peer_llama.py", gguf, *sizes]
    length = 32 if args.quick else 256
    sizes = [*common, "--sequences", 1 if large or args.quick or args.brief else 2, "--length", length, "--steps", 1]
    if figure == "lora":
        sizes += ["--adapter", 8]
    return ["build/bench/model_bench", "train", folder, *sizes], [args.python, "bench/peer_hf.py", "train", folder, *sizes]


def pair_of(figure, model, folder, gguf):
    ours, theirs = sides(figure, model, folder, gguf)
    return (ours, [args.old.resolve(), *ours[1:]]) if args.old else (ours, theirs)


plans = []
for model in args.models:
    folder, gguf = prepare(model)
    plans += [(model, figure, *pair_of(figure, model, folder, gguf)) for figure in args.figures]
print(f"cores {args.cores}, {threads} threads, {rounds} rounds" + (", a tiny model: the figures mean nothing" if args.quick else ", brief" if args.brief else ""),
      flush=True)
results = {}
for number in range(rounds):
    for model, figure, ours, theirs in plans:
        # Whoever comes first changes with the round.
        pair = [("plumb", ours), ("other", theirs)]
        for side, command in pair if number % 2 == 0 else reversed(pair):
            results.setdefault((model, figure), {}).setdefault(side, []).append(run(*command))
    print(f"round {number + 1} of {rounds}, load {os.getloadavg()[0]:.1f}", flush=True)
missed = 0


def of_processor(r):
    return r["tokens"] * r["rounds"] / (r["user_s"] + r["system_s"])


for (model, figure), both in results.items():
    ours, other = ([r["tokens_per_s"] for r in both[side]] for side in ("plumb", "other"))
    name, aim = ("the other build", 0.0) if args.old else FIGURES[figure]
    ratio = statistics.median(ours) / statistics.median(other)
    processor = [statistics.median(map(of_processor, both[side])) for side in ("plumb", "other")]
    missed += ratio < aim
    line = (f"{model:8} {figure:9} plumb {statistics.median(ours):8.1f} ({min(ours):.1f} to {max(ours):.1f}) tok/s   {name:17} "
            f"{statistics.median(other):8.1f} ({min(other):.1f} to {max(other):.1f})   ratio {ratio:5.2f}{'' if args.old else f' (aim {aim})'}, "
            f"{processor[0] / processor[1]:.2f} by processor time ({processor[0]:.1f} against {processor[1]:.1f})")
    if figure in ("train", "lora"):
        peaks = [max(r["peak_mb"] for r in both[side]) for side in ("plumb", "other")]
        line += f"   peak {peaks[0]:.0f} against {peaks[1]:.0f} MiB"
    print(line, flush=True)
args.out.write_text(json.dumps([{"model": m, "figure": f, **both} for (m, f), both in results.items()], indent=1))
if not args.old:
    print(f"{missed} of {len(results)} below their aim" if missed else "all aims are met")
