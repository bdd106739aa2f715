"""A GRPO run whose actor and learner are killed in the middle, asynchronous and on devices of their own, beside the same recipe unbroken on one.

    python3 bench/scale_run.py [--plumb build/plumb] [--device cuda|cpu] [--actors cuda] [--staleness 2] [--out DIR] [RECIPE [OPTIONS OF plumb train]...]

Without a recipe: configs/arithmetic_grpo.toml with a checkpoint every 40 steps. The first run has its roles in one process on --device, in step. The second has a
process for each role, generates on --actors (a word of rollout.device; empty: where the learner is) and trains on what is up to --staleness
versions old; its actor gets SIGKILL after a third of the steps, its learner after two thirds, both of pids.json, nothing is started by hand.
Prints the mean reward of each tenth of the steps of both, what was held out before and after, seconds, staleness, and how long after a
kill the next step came. Ends with 1 where a run does not end with its steps, or steps are missing or there twice."""
import argparse
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent


def lines(run):
    """The lines of metrics.jsonl that are whole, in order."""
    try:
        text = (run / "metrics.jsonl").read_text(errors="replace")
    except FileNotFoundError:
        return []
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


def train(plumb, run, options):
    with open(f"{run}.log", "w") as log:
        return subprocess.Popen([plumb, "train", *options, "--out", str(run)], stdout=log, stderr=subprocess.STDOUT)


def kill_at(child, run, role, step, within):
    """Kills `role` once `step` is there; seconds until the next step came, or None: the run ended before."""
    while child.poll() is None and not any(line["step"] >= step for line in lines(run)):
        time.sleep(0.05)
    if child.poll() is not None:
        return None
    last = lines(run)[-1]["step"]
    pid = json.loads((run / "pids.json").read_text())[role]
    os.kill(pid, signal.SIGKILL)
    killed = time.monotonic()
    while child.poll() is None and time.monotonic() < killed + within:
        # The learner takes its last checkpoint up: steps that it had done since come again.
        now = lines(run)
        if now and now[-1]["step"] > last:
            return time.monotonic() - killed
        time.sleep(0.02)
    return None


def tell(name, run, seconds):
    """Prints the curve of a run and says whether all its steps are there once."""
    summary = json.loads((run / "summary.json").read_text())
    rows = lines(run)
    numbers = [row["step"] for row in rows]
    rewards = [row["reward/mean"] for row in rows if "reward/mean" in row]
    tenth = max(1, len(rewards) // 10)
    means = [sum(rewards[i : i + tenth]) / len(rewards[i : i + tenth]) for i in range(0, len(rewards), tenth)][:10]
    stale = [row["offpolicy/staleness_mean"] for row in rows if "offpolicy/staleness_mean" in row]
    held = [f"{summary['eval'][when]['reward']:.3f}" for when in ("before", "after") if when in summary.get("eval", {})]
    print(f"{name:<8} {seconds:7.1f} s  reward by tenths: {' '.join(f'{m:.3f}' for m in means)}  held out: {' to '.join(held)}"
          f"  staleness {sum(stale) / max(1, len(stale)):.2f}", flush=True)
    if summary["steps"] != summary["wanted_steps"] or numbers != list(range(len(numbers))):
        print(f"{name}: {summary['steps']} of {summary['wanted_steps']} steps, lines {len(numbers)}, of which {len(set(numbers))} are different")
        return False
    return True


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--plumb", default=str(HERE.parent / "build" / "plumb"))
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--actors", default="cuda")
    parser.add_argument("--staleness", type=int, default=2)
    parser.add_argument("--within", type=float, default=120, help="seconds that a role has to come back in")
    parser.add_argument("--out")
    args, rest = parser.parse_known_args()
    recipe = rest or [str(HERE.parent / "configs" / "arithmetic_grpo.toml"), "--set", "run.checkpoint_every=40"]
    folder = tempfile.TemporaryDirectory()
    out = pathlib.Path(args.out or folder.name)
    out.mkdir(parents=True, exist_ok=True)
    recipe += ["--set", f"run.device={args.device}", "--quiet"]
    good = True
    begin = time.monotonic()
    alone = train(args.plumb, out / "alone", recipe)
    if alone.wait() != 0:
        sys.exit(f"the run without kills ended with {alone.returncode}: {out / 'alone'}.log\n" + (out / "alone.log").read_text()[-800:])
    good &= tell("alone", out / "alone", time.monotonic() - begin)
    wanted = json.loads((out / "alone" / "summary.json").read_text())["wanted_steps"]

    run = out / "killed"
    begin = time.monotonic()
    child = train(args.plumb, run, recipe + ["--roles", "processes", "--set", "run.schedule=async", "--set", f"run.max_staleness={args.staleness}",
                                             *(["--set", f"rollout.device={args.actors}"] if args.actors else [])])
    for role, at in (("actor-0", wanted // 3), ("learner", 2 * wanted // 3)):
        back = kill_at(child, run, role, at, args.within)
        print(f"         {role} killed at step {at}: " + ("no step since" if back is None else f"further steps after {back:.1f} s"), flush=True)
        good &= back is not None
    if child.wait() != 0:
        sys.exit(f"the run with kills ended with {child.returncode}: {run}.log\n" + (out / "killed.log").read_text()[-800:])
    good &= tell("killed", run, time.monotonic() - begin)
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
