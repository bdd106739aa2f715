#!/usr/bin/env python3
"""The gated delta rule in Plumb and in transformers (torch_chunk_gated_delta_rule, what it takes without a GPU), turn by turn.

  bench/delta.py [--bench build/bench/delta_bench] [--rounds 5] [--tokens 2048] [--k-heads 4] [--v-heads 8] [--k-dim 128] [--v-dim 128]

Needs torch and transformers in this Python, and delta_bench: cmake --preset release -DPLUMB_BENCH=ON && ninja -C build delta_bench.
Float32, one thread, one sequence, the same inputs, normed to length 1 on both sides; forward alone and forward with backward; medians of
tokens a processor second. Outputs and gradients are compared first: a wrong result is not timed."""
import argparse
import json
import pathlib
import resource
import statistics
import subprocess
import tempfile

import torch
from transformers.models.qwen3_5.modeling_qwen3_5 import torch_chunk_gated_delta_rule

ROOT = pathlib.Path(__file__).resolve().parent.parent
parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--bench", type=pathlib.Path, default=ROOT / "build/bench/delta_bench")
for name, value in dict(rounds=5, tokens=2048, k_heads=4, v_heads=8, k_dim=128, v_dim=128).items():
    parser.add_argument("--" + name.replace("_", "-"), type=int, default=value)
a = parser.parse_args()
torch.set_num_threads(1)
torch.manual_seed(1)

keys, values = a.k_heads * a.k_dim, a.v_heads * a.v_dim
qkv = torch.randn(a.tokens, 2 * keys + values)
g = -0.05 * torch.exp(2 * torch.randn(a.tokens, a.v_heads))
beta = torch.sigmoid(torch.randn(a.tokens, a.v_heads))
dout = torch.randn(a.tokens, values)


def processor_seconds():
    use = resource.getrusage(resource.RUSAGE_SELF)
    return use.ru_utime + use.ru_stime


def rule(qkv, g, beta):
    q, k, v = qkv.split([keys, keys, values], -1)
    heads = lambda x, n: x.view(1, a.tokens, n, -1)
    return torch_chunk_gated_delta_rule(heads(q, a.k_heads), heads(k, a.k_heads), heads(v, a.v_heads), g=g[None], beta=beta[None],
                                        use_qk_l2norm_in_kernel=True)[0].reshape(a.tokens, values)


def theirs(train):
    begin = processor_seconds()
    if not train:
        with torch.no_grad():
            rule(qkv, g, beta)
        return a.tokens / (processor_seconds() - begin), None
    leaves = [x.clone().requires_grad_() for x in (qkv, g, beta)]
    out = rule(*leaves)
    out.backward(dout)
    return a.tokens / (processor_seconds() - begin), [out.detach()] + [x.grad for x in leaves]


def ours(folder):
    command = [a.bench, "--in", folder / "in", "--out", folder / "out", "--rounds", "1", "--threads", "1"]
    for name in ("tokens", "k_heads", "v_heads", "k_dim", "v_dim"):
        command += ["--" + name.replace("_", "-"), str(getattr(a, name))]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


rates = {}
with tempfile.TemporaryDirectory() as folder:
    folder = pathlib.Path(folder)
    (folder / "in").write_bytes(b"".join(x.numpy().tobytes() for x in (qkv, g, beta, dout)))
    for round_ in range(a.rounds + 1):
        found = {f"plumb_{kind}": rate for kind, rate in ours(folder).items()}
        for kind, train in (("forward", False), ("train", True)):
            found[f"transformers_{kind}"], results = theirs(train)
        if round_ == 0:
            got = torch.frombuffer(bytearray((folder / "out").read_bytes()), dtype=torch.float32)
            for name, want, x in zip(("output", "dqkv", "dg", "dbeta"), results, got.split([r.numel() for r in results])):
                gap = ((x - want.flatten()).norm() / want.norm()).item()
                print(f"{name:8} differs by {gap:.1e} of its norm")
                if not gap < 1e-4:
                    raise SystemExit(f"{name} is another")
            continue
        for name, rate in found.items():
            rates.setdefault(name, []).append(rate)
for name, found in rates.items():
    print(f"{name:22} {statistics.median(found):10.0f} tokens/s   (of {a.rounds} rounds: {min(found):.0f} to {max(found):.0f})")
for kind in ("forward", "train"):
    print(f"{kind}: {statistics.median(rates[f'plumb_{kind}']) / statistics.median(rates[f'transformers_{kind}']):.2f} times transformers")
