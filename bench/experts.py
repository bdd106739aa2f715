#!/usr/bin/env python3
"""A layer of experts in Plumb, dense in Plumb, and in transformers (Qwen3MoeSparseMoeBlock, each of its implementations), turn by turn.

  bench/experts.py [--bench build/bench/experts_bench] [--rounds 5] [--experts 16] [--per-token 2] [--hidden 512] [--width 512] [--tokens 2048] [--bits 32] [--gpus 0]

Needs torch and transformers in this Python, and experts_bench: cmake --preset release -DPLUMB_BENCH=ON && ninja -C build experts_bench.
Float32, or bfloat16 with --bits 16, one thread, forward alone and forward with backward; medians of tokens a processor second, which other users of the machine
move less than the clock. With --gpus 1 on the first GPU, both by the clock, from an idle device to an idle device, eight passes a measurement."""
import argparse
import json
import pathlib
import resource
import statistics
import subprocess
import time

import torch
from transformers import Qwen3MoeConfig
from transformers.models.qwen3_moe.modeling_qwen3_moe import Qwen3MoeSparseMoeBlock

ROOT = pathlib.Path(__file__).resolve().parent.parent
parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--bench", type=pathlib.Path, default=ROOT / "build/bench/experts_bench")
for name, value in dict(rounds=5, experts=16, per_token=2, hidden=512, width=512, tokens=2048, bits=32, gpus=0).items():
    parser.add_argument("--" + name.replace("_", "-"), type=int, default=value)
a = parser.parse_args()
torch.set_num_threads(1)
torch.manual_seed(1)
DTYPE = torch.bfloat16 if a.bits == 16 else torch.float32
DEVICE = "cuda" if a.gpus else "cpu"
PASSES = 8 if a.gpus else 1


def seconds_so_far():
    if a.gpus:
        torch.cuda.synchronize()
        return time.perf_counter()
    use = resource.getrusage(resource.RUSAGE_SELF)
    return use.ru_utime + use.ru_stime


def block(implementation):
    config = Qwen3MoeConfig(hidden_size=a.hidden, moe_intermediate_size=a.width, num_local_experts=a.experts,
                            num_experts_per_tok=a.per_token, norm_topk_prob=True)
    config._experts_implementation = implementation
    out = Qwen3MoeSparseMoeBlock(config)
    with torch.no_grad():
        for p in out.parameters():
            p.normal_(0, 0.02)
    return out.to(DEVICE, DTYPE)


def theirs(module, x, d, train):
    begin = seconds_so_far()
    for _ in range(PASSES):
        if train:
            y = x.clone().requires_grad_()
            module.zero_grad(set_to_none=False)
            module(y).backward(d)
        else:
            with torch.no_grad():
                module(x)
    return PASSES * a.tokens / (seconds_so_far() - begin)


def ours():
    command = [a.bench, "--rounds", "1", "--threads", "1"]
    for name in ("experts", "per_token", "hidden", "width", "tokens", "bits"):
        command += ["--" + name.replace("_", "-"), str(getattr(a, name))]
    if a.gpus:
        command += ["--gpus", "1"]
    found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return {name: rate for name, rate in found.items() if not name.startswith("share")}


x, d = (torch.randn(1, a.tokens, a.hidden).to(DEVICE, DTYPE) for _ in range(2))
blocks = {name: block(name) for name in ("eager", "grouped_mm")}
rates = {}
for round_ in range(a.rounds + 1):
    found = ours()
    for name, module in blocks.items():
        for train in (False, True):
            found[f"transformers_{name}_{'train' if train else 'forward'}"] = theirs(module, x, d, train)
    if round_ > 0:
        for name, rate in found.items():
            rates.setdefault(name, []).append(rate)
for name, values in rates.items():
    print(f"{name:32} {statistics.median(values):10.0f} tokens/s   (of {a.rounds} rounds: {min(values):.0f} to {max(values):.0f})")
for kind in ("forward", "train"):
    median = {name: statistics.median(values) for name, values in rates.items() if name.endswith(kind)}
    best = max(v for n, v in median.items() if n.startswith("transformers"))
    print(f"{kind}: {median[f'experts_{kind}'] / median[f'dense_{kind}']:.2f} of the dense layer, "
          f"{median[f'experts_{kind}'] / best:.2f} times transformers' best")
