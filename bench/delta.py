#!/usr/bin/env python3
"""The gated delta rule in Plumb and in other people's programs, turn by turn: without a GPU transformers' torch_chunk_gated_delta_rule; on one
flash-linear-attention's chunk_gated_delta_rule, or transformers' where that is not installed.

  bench/delta.py [--bench build/bench/delta_bench] [--rounds 5] [--tokens 2048] [--sequences 1] [--k-heads 4] [--v-heads 8] [--k-dim 128] [--v-dim 128]
                 [--bits 32] [--gpus 0]

Needs torch, transformers or flash-linear-attention in this Python, and delta_bench: cmake --preset release -DPLUMB_BENCH=ON && ninja -C build delta_bench.
One thread, sequences of one length, the same inputs, normed to length 1 on both sides; forward alone and forward with backward; medians of
tokens a processor second, which other users of the machine move less than the clock. With --gpus 1 on the first GPU, both by the clock, from an idle device to an
idle device, eight passes a measurement. --bits 16: queries, keys, values, outputs and their gradients in bfloat16. Outputs and gradients are compared first: a
wrong result is not timed. flash-linear-attention tries variants of its kernels out in the first round, which takes minutes."""
import argparse
import json
import pathlib
import resource
import statistics
import subprocess
import tempfile
import time

import torch

ROOT = pathlib.Path(__file__).resolve().parent.parent
parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--bench", type=pathlib.Path, default=ROOT / "build/bench/delta_bench")
SIZES = dict(tokens=2048, sequences=1, k_heads=4, v_heads=8, k_dim=128, v_dim=128, bits=32, gpus=0)
for name, value in dict(rounds=5, **SIZES).items():
    parser.add_argument("--" + name.replace("_", "-"), type=int, default=value)
a = parser.parse_args()
torch.set_num_threads(1)
torch.manual_seed(1)
DTYPE = torch.bfloat16 if a.bits == 16 else torch.float32
DEVICE = "cuda" if a.gpus else "cpu"
PASSES = 8 if a.gpus else 1
# What sums of rounded numbers in another order, or of TF32, may differ by.
GAP = 3e-2 if a.bits == 16 else 1e-2 if a.gpus else 1e-4


def peer():
    if a.gpus:
        try:
            from fla.ops.gated_delta_rule import chunk_gated_delta_rule
            return "flash_linear_attention", chunk_gated_delta_rule
        except ImportError as why:
            print(f"flash-linear-attention cannot be imported ({why}): beside transformers instead")
    from transformers.models.qwen3_5.modeling_qwen3_5 import torch_chunk_gated_delta_rule
    return "transformers", torch_chunk_gated_delta_rule


PEER, chunk_rule = peer()
ALL = a.sequences * a.tokens
keys, values = a.k_heads * a.k_dim, a.v_heads * a.v_dim
qkv = torch.randn(ALL, 2 * keys + values).to(DTYPE)
g = -0.05 * torch.exp(2 * torch.randn(ALL, a.v_heads))
beta = torch.sigmoid(torch.randn(ALL, a.v_heads))
dout = torch.randn(ALL, values).to(DTYPE)


def seconds_so_far():
    if a.gpus:
        torch.cuda.synchronize()
        return time.perf_counter()
    use = resource.getrusage(resource.RUSAGE_SELF)
    return use.ru_utime + use.ru_stime


def rule(qkv, g, beta):
    q, k, v = qkv.split([keys, keys, values], -1)
    heads = lambda x, n: x.reshape(a.sequences, a.tokens, n, -1)
    one = lambda x: x.view(a.sequences, a.tokens, -1)
    return chunk_rule(heads(q, a.k_heads), heads(k, a.k_heads), heads(v, a.v_heads), g=one(g), beta=one(beta),
                      use_qk_l2norm_in_kernel=True)[0].reshape(ALL, values)


there = [x.to(DEVICE) for x in (qkv, g, beta, dout)]


def theirs(train):
    begin = seconds_so_far()
    results = None
    for _ in range(PASSES):
        if not train:
            with torch.no_grad():
                rule(*there[:3])
            continue
        leaves = [x.clone().requires_grad_() for x in there[:3]]
        out = rule(*leaves)
        out.backward(there[3])
        results = [out.detach()] + [x.grad for x in leaves]
    return PASSES * ALL / (seconds_so_far() - begin), results


def ours(folder):
    command = [a.bench, "--in", folder / "in", "--out", folder / "out", "--rounds", "1", "--threads", "1"]
    for name in SIZES:
        command += ["--" + name.replace("_", "-"), str(getattr(a, name))]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


rates = {}
with tempfile.TemporaryDirectory() as folder:
    folder = pathlib.Path(folder)
    (folder / "in").write_bytes(b"".join(x.float().numpy().tobytes() for x in (qkv, g, beta, dout)))
    for round_ in range(a.rounds + 1):
        found = {f"plumb_{kind}": rate for kind, rate in ours(folder).items()}
        for kind, train in (("forward", False), ("train", True)):
            found[f"{PEER}_{kind}"], results = theirs(train)
        if round_ == 0:
            got = torch.frombuffer(bytearray((folder / "out").read_bytes()), dtype=torch.float32)
            for name, want, x in zip(("output", "dqkv", "dg", "dbeta"), results, got.split([r.numel() for r in results])):
                want = want.float().cpu().flatten()
                gap = ((x - want).norm() / want.norm()).item()
                print(f"{name:8} differs by {gap:.1e} of its norm")
                if not gap < GAP:
                    raise SystemExit(f"{name} is another")
            continue
        for name, rate in found.items():
            rates.setdefault(name, []).append(rate)
for name, found in rates.items():
    print(f"{name:30} {statistics.median(found):10.0f} tokens/s   (of {a.rounds} rounds: {min(found):.0f} to {max(found):.0f})")
for kind in ("forward", "train"):
    print(f"{kind}: {statistics.median(rates[f'plumb_{kind}']) / statistics.median(rates[f'{PEER}_{kind}']):.2f} times {PEER}")
