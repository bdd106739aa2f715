#!/usr/bin/env python3
"""Memory that was planned and memory that was taken, for each way of keeping it.

    bench/memory_plan.py build/plumb RECIPE [--steps 2] [--limit 0.15] [--set section.key=value]...

For each way (recompute, moments, masters) `plumb plan` says a sum and `plumb train` runs that many
steps into a folder of its own; printed are both, the largest RssAnon of the process (pages of files,
which the system takes back, do not count) less that of a program that only plans, their ratio, the
seconds of a step and the loss of the last. Fails when a plan is off by more than --limit.
"""
import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time

WAYS = [("exact", []),
        ("recompute", ["optimizer.recompute=layer"]),
        ("int8 moments", ["optimizer.moments=int8"]),
        ("bfloat16", ["model.dtype=bfloat16"]),
        ("bfloat16, no masters", ["model.dtype=bfloat16", "optimizer.masters=none"]),
        ("all of it", ["model.dtype=bfloat16", "optimizer.masters=none", "optimizer.moments=int8",
                       "optimizer.recompute=layer"])]


def peak_of(command):
    """Largest RssAnon in bytes, and what was printed."""
    with tempfile.TemporaryFile("w+") as out:
        child = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT)
        peak = 0
        while child.poll() is None:
            try:
                with open(f"/proc/{child.pid}/status") as status:
                    for line in status:
                        if line.startswith("RssAnon:"):
                            peak = max(peak, 1024 * int(line.split()[1]))
            except (FileNotFoundError, ProcessLookupError):
                break
            time.sleep(0.005)
        child.wait()
        out.seek(0)
        text = out.read()
    if child.returncode != 0:
        sys.exit(f"{' '.join(command)}: exit code {child.returncode}\n{text}")
    return peak, text


def bytes_of(text):
    number, unit = text.split()[:2]
    return float(number) * {"GB": 1e9, "MB": 1e6, "kB": 1e3}.get(unit, 1)


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("plumb")
    parser.add_argument("recipe")
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--limit", type=float, default=0.15)
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--only", action="append", default=[], help="names of ways")
    arguments = parser.parse_args()
    scratch = tempfile.mkdtemp(prefix="plumb_memory_plan_")
    off = []
    print(f"{'way':22}{'planned':>10}{'measured':>10}{'ratio':>8}{'s/step':>8}{'loss':>9}")
    for name, sets in WAYS:
        if arguments.only and name not in arguments.only:
            continue
        options = []
        for option in ["checkpoint.optimizer=never", "data.eval="] + arguments.set + sets:
            options += ["--set", option]
        base, plan = peak_of([arguments.plumb, "plan", arguments.recipe] + options)
        planned = next(bytes_of(line[len("in all"):].strip()) for line in plan.splitlines()
                       if line.startswith("in all"))
        out = os.path.join(scratch, "run")
        shutil.rmtree(out, ignore_errors=True)
        peak, _ = peak_of([arguments.plumb, "train", arguments.recipe, "--out", out, "--quiet",
                           "--steps", str(arguments.steps)] + options)
        with open(os.path.join(out, "metrics.jsonl")) as lines:
            last = [json.loads(line) for line in lines][-1]
        ratio = (peak - base) / planned
        loss = next((last[key] for key in ("sft/loss", "preference/loss", "policy/loss")
                     if key in last), float("nan"))
        print(f"{name:22}{planned / 1e6:>8.0f}MB{(peak - base) / 1e6:>8.0f}MB{ratio:>8.2f}"
              f"{last['time/step']:>8.2f}{loss:>9.4f}", flush=True)
        if abs(ratio - 1) > arguments.limit:
            off.append(name)
    shutil.rmtree(scratch, ignore_errors=True)
    if off:
        sys.exit("off by more than the limit: " + ", ".join(off))


if __name__ == "__main__":
    main()
