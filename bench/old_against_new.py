#!/usr/bin/env python3
"""One build against another on the same machine: same weights, and what they cost.

    bench/old_against_new.py OLD_PLUMB NEW_PLUMB [--rounds 3] [--steps 6]

Both train the toy recipes and the demo's first steps in turns. Prints a table; fails where a run's
final weights differ between the builds, or between one process and one a role. Times are medians
over the rounds, processor time of the whole command and seconds a step by the run's own metrics.
"""
import argparse
import json
import os
import pathlib
import resource
import statistics
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent


def run(program, recipe, folder, more):
    """A run's digest, its metrics by name over the steps, its processor seconds, its store's bytes."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [program, "train", str(ROOT / "configs" / recipe), "--out", folder, "--set", "eval.bar=0", *more]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if ended.returncode != 0:
        sys.exit(f"{' '.join(command)}\n{ended.stderr}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    summary = json.loads(pathlib.Path(folder, "summary.json").read_text())
    lines = [json.loads(line) for line in pathlib.Path(folder, "metrics.jsonl").read_text().splitlines()]
    store = sum(f.stat().st_size for f in pathlib.Path(folder, "store").rglob("*") if f.is_file())
    return {
        "digest": summary["weights_sha256"],
        "cpu": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
        "store": store,
        **{name: statistics.median(line[name] for line in lines)
           for name in ("time/generate", "time/train", "time/step") if all(name in line for line in lines)},
    }


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("old")
    options.add_argument("new")
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--steps", type=int, default=6)
    a = options.parse_args()
    builds = {"old": os.path.abspath(a.old), "new": os.path.abspath(a.new)}
    same = True
    with tempfile.TemporaryDirectory() as temp:
        for recipe in ("toy_grpo.toml", "toy_ppo.toml", "toy_dapo.toml"):
            digests = {name: run(program, recipe, f"{temp}/{name}-{recipe}", [])["digest"] for name, program in builds.items()}
            digests["new, a process a role"] = run(builds["new"], recipe, f"{temp}/p-{recipe}", ["--roles", "processes"])["digest"]
            equal = len(set(digests.values())) == 1
            same &= equal
            print(f"{recipe:20} weights {'EQUAL' if equal else 'DIFFER: ' + str(digests)}  {digests['new'][:16]}")
        for roles in ("local", "processes"):
            results = {name: [] for name in builds}
            for r in range(a.rounds):
                for name, program in builds.items():
                    more = ["--steps", str(a.steps), "--set", "sft.steps=40", "--roles", roles]
                    results[name].append(run(program, "arithmetic_grpo.toml", f"{temp}/{name}-{roles}-{r}", more))
            same &= len({one["digest"] for some in results.values() for one in some}) == 1
            print(f"demo, {a.steps} steps, roles {roles}: {'old':>12} {'new':>12} {'new/old':>8}")
            for what in ("cpu", "time/generate", "time/train", "time/step", "store"):
                old, new = (statistics.median(one[what] for one in results[name]) for name in builds)
                print(f"  {what:24} {old:14.4g} {new:12.4g} {new / old:8.2f}")
    sys.exit(0 if same else 1)


if __name__ == "__main__":
    main()
