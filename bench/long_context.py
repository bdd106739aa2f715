#!/usr/bin/env python3
"""Long contexts under a window: processor time and memory of a train step and of decoding at 64K, 128K and 200K tokens.

  bench/long_context.py [--bench build/bench/long_context_bench] [--tokens 65536 131072 204800] [--window 512] [--gate-top-k 16] [--slack 1.25]

Each figure is a process of its own, one thread, float32, rotary base 50,000: with a window, and with a window and as many tokens as
--gate-top-k says that a learned gate chooses. Ends with an error where time or memory of a row grows faster than its tokens by more
than --slack. Needs long_context_bench: cmake --preset release -DPLUMB_BENCH=ON && ninja -C build long_context_bench."""
import argparse
import json
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--bench", type=pathlib.Path, default=ROOT / "build/bench/long_context_bench")
parser.add_argument("--tokens", type=int, nargs="+", default=[65536, 131072, 204800])
parser.add_argument("--window", type=int, default=512)
parser.add_argument("--gate-top-k", type=int, default=16)
parser.add_argument("--slack", type=float, default=1.25)
a = parser.parse_args()

PER_TOKEN = {"train": ["user_s", "peak_mb"], "decode": ["prompt_user_s", "peak_mb"]}
steeper = []
print("| | tokens | train step, s | its memory, MB | prompt, s | a new token, ms | memory of both, MB |\n|---|---|---|---|---|---|---|")
for name, gate in (("window", 0), (f"window and {a.gate_top_k} chosen", a.gate_top_k)):
    first = None
    for tokens in a.tokens:
        found = {}
        for mode in ("train", "decode"):
            command = [a.bench, mode, "--tokens", str(tokens), "--window", str(a.window), "--gate-top-k", str(gate)]
            found[mode] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        t, d = found["train"], found["decode"]
        print(f"| {name} | {tokens:,} | {t['user_s']:.1f} | {t['peak_mb']:.0f} | {d['prompt_user_s']:.1f} | {d['token_user_ms']:.2f} | "
              f"{d['peak_mb']:.0f} |", flush=True)
        first = first or found
        for mode, keys in PER_TOKEN.items():
            for key in keys:
                if found[mode][key] > a.slack * first[mode][key] * tokens / a.tokens[0]:
                    steeper.append(f"{name}, {mode}, {key}: {found[mode][key]} at {tokens}, {first[mode][key]} at {a.tokens[0]}")
if steeper:
    sys.exit("steeper than linear: " + "; ".join(steeper))
print("all of it grows at most as the tokens do")
