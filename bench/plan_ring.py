#!/usr/bin/env python3
"""What `plumb plan --from RUN` predicts of a run with two actors, against that run.

  bench/plan_ring.py [--recipe configs/arithmetic_grpo.toml] [--steps 40] [--schedule sync] [--out FILE.json] [--set option=value]

A run with one actor (one process a role, --threads cores each) is what is measured; a run of the same recipe with two actors is what is
predicted. Both are said in mean seconds a step behind the first two, the prediction by its stages, with the goal (within 20 %), and then the
first bottleneck of 8, 64 and 1,024 machines. Run it where as many cores are free as both actors have: two that share one are one. Exit code 1:
the prediction is further off. --quick proves that everything runs; its figures mean nothing."""
import argparse
import json
import pathlib
import shutil
import statistics
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--recipe", type=pathlib.Path, default=ROOT / "configs/arithmetic_grpo.toml")
parser.add_argument("--steps", type=int, default=40)
parser.add_argument("--schedule", choices=["sync", "async"], default="sync")
parser.add_argument("--threads", type=int, default=1, help="of each role (default 1)")
parser.add_argument("--set", action="append", default=[], metavar="option=value", help="of both runs")
parser.add_argument("--plumb", default=str(ROOT / "build/plumb"))
parser.add_argument("--work", type=pathlib.Path, default=ROOT / "build/bench-plan-ring", help="emptied first")
parser.add_argument("--out", type=pathlib.Path, default=ROOT / "build/bench-plan-ring.json")
parser.add_argument("--quick", action="store_true", help="tiny sizes")
args = parser.parse_args()


def options():
    values = [*args.set, f"run.threads={args.threads}", f"run.schedule={args.schedule}", "run.checkpoint_every=0"]
    values += ["run.max_staleness=2"] if args.schedule == "async" else []
    if args.quick:
        values += ["rollout.prompts_per_step=8", "rollout.samples_per_prompt=4", "sft.steps=5", "data.eval_prompts=10", "model.layers=1"]
    return [word for value in values for word in ("--set", value)]


def plumb(*words, fine=(0,)):
    done = subprocess.run([args.plumb, *map(str, words)], capture_output=True, text=True, cwd=ROOT)
    if done.returncode not in fine:
        sys.exit(f"bench/plan_ring.py: plumb {' '.join(map(str, words[:3]))} ended with {done.returncode}:\n{(done.stdout + done.stderr)[-2000:]}")
    return done.stdout


def train(actors):
    run = args.work / f"actors-{actors}"
    # 7 is a run below its bar
    plumb("train", args.recipe, "--out", run, "--steps", args.steps, "--roles", "processes", "--quiet", *options(), "--set", f"run.actors={actors}",
          fine=(0, 7))
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    # between two lines, so that what lies between two steps counts too
    return run, statistics.mean(b["wall_s"] - a["wall_s"] for a, b in zip(lines[1:], lines[2:]))


def main():
    if args.quick:
        args.steps = min(args.steps, 8)
    shutil.rmtree(args.work, ignore_errors=True)
    args.work.mkdir(parents=True)
    run, one = train(1)
    _, two = train(2)
    # weights go through memory here, not through a network
    plan = json.loads(plumb("plan", args.recipe, "--from", run, "--actors", 2, "--network", 100, "--json", *options()))
    again = json.loads(plumb("plan", args.recipe, "--from", run, "--actors", 1, "--network", 100, "--json", *options()))
    ring = plan["rings"][0]
    off = ring["step_s"] / two - 1
    stages = ", ".join(f"{name} {1000 * seconds:.1f}" for name, seconds in ring["stages_s"].items())
    print(f"one actor, measured: {1000 * one:.1f} ms a step; as the model has it: {1000 * again['rings'][0]['step_s']:.1f}")
    print(f"two actors, measured: {1000 * two:.1f} ms a step; predicted: {1000 * ring['step_s']:.1f} ({100 * off:+.0f} %, goal within 20 %); stages in ms: {stages}")
    for each in plan["rings"][1:]:
        print(f"{each['learners'] + each['actors']} machines: {1000 * each['step_s']:.1f} ms a step, first bottleneck {each['bottleneck']}"
              + (f", {each['idle_actors']} actors get no group" if each["idle_actors"] else ""))
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps({"one_s": one, "two_s": two, "predicted_s": ring["step_s"], "off": off, "plan": plan}, indent=1) + "\n")
    print(f"results: {args.out}")
    sys.exit(0 if abs(off) <= 0.2 or args.quick else 1)


if __name__ == "__main__":
    main()
