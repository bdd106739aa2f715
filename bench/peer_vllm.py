#!/usr/bin/env python3
"""Plumb's and vLLM's generation of one model on one GPU, in one run: tokens a second of both, their ratio, and the floor that memory and
products of the device set.

    bench/peer_vllm.py MODEL --vllm-python PYTHON [--cells 1x1,16x1,64x1,256x1,64x8] [--prompt 256] [--new 256] [--rounds 3]
                       [--bandwidth 4800] [--tflops 989] [--out FILE.json]

MODEL is a model folder of one safetensors file (`bench/make_shape.py 1.5B FOLDER` makes one with drawn weights). A cell PxN is P prompts of
random tokens with N answers each, at temperature 1, every answer to its full length, the log-prob of each token returned; both sides
compute in bfloat16. PYTHON is an interpreter that has vLLM (`pip install vllm`; or the variable PLUMB_PEER_VLLM_PYTHON); without one
nothing is measured, which is said, and the exit code is 77. The GPU is used by one side after the other: Plumb, vLLM, Plumb again, and
Plumb's figure is the lower of its two; where they lie more than 5 % apart the cell is marked: something else used the machine. vLLM
gets fresh prompts in every round, so that its prefix cache helps no round; Plumb's bench shares no prefixes between groups.

The floor of a step is the time to read the weights and the keys and values once (--bandwidth, GB/s), or to do the products
(--tflops), whichever is longer; that of a prompt is its products'. `of floor` is the floor's time over Plumb's.

Needs build/bench/model_bench of a CUDA build. --device cpu tries the script out where neither is; its figures mean nothing."""
import argparse
import json
import os
import pathlib
import random
import struct
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
SKIPPED = 77  # as of tests that were not run


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=pathlib.Path)
    parser.add_argument("--vllm-python", default=os.environ.get("PLUMB_PEER_VLLM_PYTHON", ""), help="an interpreter that has vllm")
    parser.add_argument("--bench", type=pathlib.Path, default=ROOT / "build/bench/model_bench")
    parser.add_argument("--cells", default="1x1,16x1,64x1,256x1,64x8", help="prompts x answers of each")
    parser.add_argument("--prompt", type=int, default=256)
    parser.add_argument("--new", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--bandwidth", type=float, default=4800, help="GB/s of the device's memory (H200: 4800)")
    parser.add_argument("--tflops", type=float, default=989, help="dense bfloat16 operations of the device (H200: 989)")
    parser.add_argument("--memory", type=float, default=0.6, help="share of the GPU's memory that vLLM takes")
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--seconds", type=float, default=3600, help="a side that takes longer is ended")
    parser.add_argument("--out", type=pathlib.Path)
    parser.add_argument("--side", action="store_true", help=argparse.SUPPRESS)  # run by the interpreter that has vllm
    options = parser.parse_args()
    options.shapes = [tuple(int(n) for n in cell.split("x")) for cell in options.cells.split(",")]
    return options


def vllm_side(options):
    """One line of JSON a cell, on standard output behind whatever vLLM says there."""
    for name, value in (("VLLM_NO_USAGE_STATS", "1"), ("HF_HUB_OFFLINE", "1"), ("VLLM_ENABLE_V1_MULTIPROCESSING", "0")):
        os.environ.setdefault(name, value)
    import vllm
    vocabulary = json.loads((options.model / "config.json").read_text())["vocab_size"]
    engine = vllm.LLM(model=str(options.model), skip_tokenizer_init=True, dtype="bfloat16", seed=0,
                      max_model_len=options.prompt + options.new, gpu_memory_utilization=options.memory,
                      max_num_seqs=max(p * n for p, n in options.shapes))
    draw = random.Random(1)

    def once(prompts, answers, new):
        asked = [{"prompt_token_ids": [draw.randrange(vocabulary) for _ in range(options.prompt)]} for _ in range(prompts)]
        how = vllm.SamplingParams(n=answers, temperature=1.0, max_tokens=new, ignore_eos=True, logprobs=0, detokenize=False)
        begin = time.perf_counter()
        results = engine.generate(asked, how, use_tqdm=False)
        seconds = time.perf_counter() - begin
        drawn = [answer for result in results for answer in result.outputs]
        assert len(drawn) == prompts * answers and all(len(a.token_ids) == new == len(a.logprobs) for a in drawn)
        return seconds

    once(2, 1, 8)
    for prompts, answers in options.shapes:
        once(prompts, answers, options.new)
        seconds = sorted(once(prompts, answers, options.new) for _ in range(options.rounds))
        median = seconds[len(seconds) // 2]
        print("CELL " + json.dumps({"cell": f"{prompts}x{answers}", "tokens_per_s": prompts * answers * options.new / median,
                                    "seconds": seconds, "version": vllm.__version__}), flush=True)
    sys.stdout.flush()
    os._exit(0)  # what tears the engine down takes longer than it is worth


def run(command, seconds):
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=seconds)
    if done.returncode != 0:
        sys.exit(f"{command[0]} ended with {done.returncode}:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
    return done.stdout


def ours(options):
    figures = {}
    for prompts, answers in options.shapes:
        out = run([options.bench, "decode", options.model, "--device", options.device, "--batch", prompts, "--group", answers, "--prompt",
                   options.prompt, "--new", options.new, "--rounds", options.rounds, "--greedy", 0, "--dtype", "bfloat16"], options.seconds)
        figures[f"{prompts}x{answers}"] = json.loads([line for line in out.splitlines() if line.startswith("{")][-1])["tokens_per_s"]
    return figures


def theirs(options):
    out = run([options.vllm_python, pathlib.Path(__file__).resolve(), *sys.argv[1:], "--side"], options.seconds)
    cells = [json.loads(line[5:]) for line in out.splitlines() if line.startswith("CELL ")]
    if len(cells) != len(options.shapes):
        sys.exit(f"vLLM measured {len(cells)} of {len(options.shapes)} cells:\n{out[-4000:]}")
    return {cell["cell"]: cell["tokens_per_s"] for cell in cells}, cells[0]["version"]


def floors(options):
    """Tokens a second that the device could do at best, by cell."""
    config = json.loads((options.model / "config.json").read_text())
    with open(options.model / "model.safetensors", "rb") as file:
        header = json.loads(file.read(struct.unpack("<Q", file.read(8))[0]))
    sizes = {name: t["data_offsets"][1] - t["data_offsets"][0] for name, t in header.items() if name != "__metadata__"}
    read = sum(sizes.values())
    if not config.get("tie_word_embeddings", False):  # of the embedding only the rows of the tokens
        read -= sizes.get("model.embed_tokens.weight", 0)
    heads = config["num_attention_heads"]
    size = config.get("head_dim") or config["hidden_size"] // heads
    layers, kv_heads = config["num_hidden_layers"], config.get("num_key_value_heads", heads)
    kv_bytes = 2 * layers * kv_heads * size * 2  # of a token, in bfloat16
    operations = read  # two a parameter of two bytes
    context = options.prompt + options.new / 2
    out = {}
    for prompts, answers in options.shapes:
        rows = prompts * answers
        memory = (read + rows * context * kv_bytes) / (options.bandwidth * 1e9)
        products = rows * (operations + 4 * layers * heads * size * context) / (options.tflops * 1e12)
        prompt = prompts * options.prompt * (operations + 2 * layers * heads * size * options.prompt) / (options.tflops * 1e12)
        out[f"{prompts}x{answers}"] = rows * options.new / (options.new * max(memory, products) + prompt)
    return out


def main():
    options = arguments()
    if options.side:
        vllm_side(options)
    if not (options.model / "model.safetensors").exists():
        sys.exit(f"{options.model} has no model.safetensors: `bench/make_shape.py 1.5B {options.model}` makes such a folder")
    if not options.vllm_python:
        print("NOT MEASURED: no vLLM. Name an interpreter that has it: --vllm-python PYTHON, or PLUMB_PEER_VLLM_PYTHON.", file=sys.stderr)
        return SKIPPED
    if subprocess.run([options.vllm_python, "-c", "import vllm"], capture_output=True).returncode != 0:
        print(f"NOT MEASURED: {options.vllm_python} cannot import vllm.", file=sys.stderr)
        return SKIPPED
    if not options.bench.exists():
        sys.exit(f"{options.bench} is not there: build the target model_bench")
    before = ours(options)
    peer, version = theirs(options)
    after = ours(options)
    floor = floors(options)
    print(f"{options.model.name}, prompts of {options.prompt} tokens, {options.new} new ones, tokens/s; vLLM {version}; "
          f"load of the machine {os.getloadavg()[0]:.1f}")
    print(f"{'prompts x answers':>18} {'Plumb':>10} {'vLLM':>10} {'ratio':>7} {'floor':>10} {'of floor':>9}")
    rows = []
    for cell in before:
        plumb, apart = min(before[cell], after[cell]), abs(before[cell] / after[cell] - 1)
        rows.append({"cell": cell, "plumb": plumb, "plumb_both": [before[cell], after[cell]], "vllm": peer[cell],
                     "ratio": plumb / peer[cell], "floor": floor[cell], "of_floor": plumb / floor[cell]})
        print(f"{cell:>18} {plumb:>10.0f} {peer[cell]:>10.0f} {plumb / peer[cell]:>7.2f} {floor[cell]:>10.0f} {plumb / floor[cell]:>8.0%}"
              + (f"  its two turns lie {apart:.0%} apart" if apart > 0.05 else ""))
    if options.out:
        options.out.write_text(json.dumps({"model": options.model.name, "prompt": options.prompt, "new": options.new, "vllm": version,
                                           "cells": rows}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
