#!/usr/bin/env python3
"""Seconds to the same reward: run.schedule = "async" against "sync", on the demo's sums.

  bench/async.py [--seeds 1 2 3] [--reward 0.7] [--steps 380] [--staleness 2] [--out FILE.json] [--set option=value]

Both sides have the same recipe (configs/arithmetic_grpo.toml), seed and warm start, and one process a role: a learner and an actor with
--threads cores each, so that async is not given more of the machine than sync. Under async the learner's log-probs are computed again and the
objective is the decoupled one, which is its default. Both sides of a seed run one after the other. Seconds are from the warm start's end to the
step at which the mean of the last 10 steps' reward/mean reaches --reward, from the lines' own clock; a side that never does has none.
Said besides, from metrics.jsonl: how many groups of those steps were how many versions old, and which share of the time each role waited:
the learner for batches (time/wait), actors and reward workers whatever they were not inside engine (time/generate) and scorer (time/reward).
--local adds sync in one process, whose phases have all cores in turn. --quick proves that everything runs; its figures mean nothing."""
import argparse
import json
import pathlib
import shutil
import statistics
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
LAST = 10  # steps whose mean reward has to be there

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
parser.add_argument("--reward", type=float, default=0.7, help="of the rollouts (default 0.7)")
parser.add_argument("--steps", type=int, default=380, help="at most (default 380)")
parser.add_argument("--staleness", type=int, default=2, help="run.max_staleness of async (default 2)")
parser.add_argument("--threads", type=int, default=1, help="of each role (default 1)")
parser.add_argument("--recipe", type=pathlib.Path, default=ROOT / "configs/arithmetic_grpo.toml")
parser.add_argument("--set", action="append", default=[], metavar="option=value", help="of all sides")
parser.add_argument("--local", action="store_true", help="sync in one process with all cores, too")
parser.add_argument("--plumb", default=str(ROOT / "build/plumb"))
parser.add_argument("--work", type=pathlib.Path, default=ROOT / "build/bench-async", help="emptied first")
parser.add_argument("--out", type=pathlib.Path, default=ROOT / "build/bench-async.json")
parser.add_argument("--quick", action="store_true", help="tiny sizes")
args = parser.parse_args()


def sides():
    own = ["--roles", "processes", "--set", f"run.threads={args.threads}"]
    found = {"sync": own + ["--set", "run.schedule=sync"],
             "async": own + ["--set", "run.schedule=async", "--set", f"run.max_staleness={args.staleness}"]}
    if args.local:
        found["sync in one process"] = ["--roles", "local", "--set", f"run.threads={2 * args.threads}", "--set", "run.schedule=sync"]
    return found


def train(side, options, seed):
    """The lines of a run's metrics, up to the step that reached the reward, and the seconds until then; None: it did not."""
    run = args.work / f"{side.replace(' ', '-')}-{seed}"
    line = [args.plumb, "train", str(args.recipe), "--out", str(run), "--steps", str(args.steps), "--quiet", "--set", f"run.seed={seed}", "--set",
            "run.checkpoint_every=0", "--set", "optimizer.lr_schedule=constant", *options]
    values = list(args.set)
    if args.quick:
        values += ["rollout.prompts_per_step=8", "rollout.samples_per_prompt=4", "sft.steps=5", "data.eval_prompts=10", "model.layers=1"]
    done = subprocess.run(line + [word for value in values for word in ("--set", value)], capture_output=True, text=True, cwd=ROOT)
    # 7 is a run below its bar: it has its figures all the same
    if done.returncode not in (0, 7):
        sys.exit(f"bench/async.py: {side}, seed {seed} ended with {done.returncode}:\n{(done.stdout + done.stderr)[-2000:]}")
    lines = [json.loads(each) for each in (run / "metrics.jsonl").read_text().splitlines()]
    begin, reward = lines[0]["wall_s"] - lines[0]["time/step"], 0.0
    for last in range(LAST - 1, len(lines)):
        reward = statistics.mean(each["reward/mean"] for each in lines[last - LAST + 1:last + 1])
        if reward >= args.reward:
            return lines[:last + 1], lines[last]["wall_s"] - begin, reward
    return lines, None, reward


def shares(lines):
    """By role, the share of the time between the first line and the last that it waited."""
    wall = lines[-1]["wall_s"] - lines[0]["wall_s"]
    total = lambda name: sum(each.get(name, 0) for each in lines[1:])
    return {"learner": total("time/wait") / wall, "actor": max(0.0, 1 - total("time/generate") / wall),
            "reward": max(0.0, 1 - total("time/reward") / wall)}


def histogram(lines):
    """Groups by age in versions."""
    ages = {}
    for each in lines:
        for name, count in each.items():
            age = name.removeprefix("offpolicy/staleness_")
            if name != age and age.isdigit():
                ages[int(age)] = ages.get(int(age), 0) + int(count)
    return dict(sorted(ages.items()))


def main():
    if args.quick:
        args.steps, args.reward = min(args.steps, 15), 0.0
    shutil.rmtree(args.work, ignore_errors=True)
    args.work.mkdir(parents=True)
    results = []
    for seed in args.seeds:
        for side, options in sides().items():
            lines, seconds, reward = train(side, options, seed)
            result = {"side": side, "seed": seed, "seconds": seconds, "steps": len(lines), "reward": reward, "staleness": histogram(lines),
                      "waiting": shares(lines), "step_s": statistics.median(each["time/step"] for each in lines[1:])}
            results.append(result)
            reached = f"{seconds:7.1f} s" if seconds is not None else "  never "
            waits = ", ".join(f"{role} {100 * share:.0f} %" for role, share in result["waiting"].items())
            print(f"seed {seed}  {side:20s} {reached} to {args.reward:g} ({len(lines)} steps of {1000 * result['step_s']:.0f} ms, reward {reward:.3f}); "
                  f"waiting: {waits}" + (f"; groups by age {result['staleness']}" if result["staleness"] else ""), flush=True)
    seconds = {(r["side"], r["seed"]): r["seconds"] for r in results}
    ratios = {}
    for base in (side for side in sides() if side != "async"):
        both = [(seconds["async", seed], seconds[base, seed]) for seed in args.seeds]
        if all(a is not None and b is not None for a, b in both):
            ratios[base] = statistics.median(a / b for a, b in both)
            print(f"async / {base}: {ratios[base]:.2f}, the median of {len(both)} seeds (goal: at most 0.7)")
        else:
            print(f"async / {base}: none, for not every run reached the reward")
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps({"reward": args.reward, "results": results, "ratios": ratios}, indent=1) + "\n")
    print(f"results: {args.out}")


if __name__ == "__main__":
    main()
