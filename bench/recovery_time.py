"""What a killed run loses: it is killed with SIGKILL in the middle of its steps and taken up, several times in a row.

    python3 bench/recovery_time.py [--plumb build/plumb] [--kills 5] [--out DIR] [RECIPE [OPTIONS OF plumb train]...]

Without a recipe: configs/toy_grpo.toml, 200 steps with a checkpoint every 10. Prints a line a kill: where it was, seconds from the start of the
next life to its first step, and seconds until it stood where the one before was killed, what was done twice included. Ends with 1 where a life
does not come back within --within seconds (120)."""
import argparse
import json
import pathlib
import signal
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent


def steps(run):
    """Numbers of the steps that have a whole line, in order."""
    try:
        text = (run / "metrics.jsonl").read_text(errors="replace")
    except FileNotFoundError:
        return []
    return [json.loads(line)["step"] for line in text.splitlines(keepends=True) if line.endswith("\n")]


def written(run):
    """When a line was written last; None: never."""
    try:
        return (run / "metrics.jsonl").stat().st_mtime_ns
    except FileNotFoundError:
        return None


def wait_for(child, run, wanted, seconds):
    """When `wanted(steps)` held first; None: the program ended or time was up before."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        done = steps(run)
        if wanted(done):
            return time.monotonic()
        if child.poll() is not None:
            return None
        time.sleep(0.02)
    return None


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--plumb", default=str(HERE.parent / "build" / "plumb"))
    parser.add_argument("--out")
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--apart", type=int, default=17, help="steps from one kill to the next")
    parser.add_argument("--within", type=float, default=120)
    args, rest = parser.parse_known_args()
    recipe = rest or [str(HERE.parent / "configs" / "toy_grpo.toml"), "--steps", "200", "--set", "run.checkpoint_every=10"]
    folder = tempfile.TemporaryDirectory()
    run = pathlib.Path(args.out or folder.name) / "run"
    command = [args.plumb, "train", *recipe, "--out", str(run), "--quiet"]
    child = subprocess.Popen(command)
    killed_at, recovered = None, []
    for kill in range(args.kills + 1):
        begin, before = time.monotonic(), written(run)
        if kill > 0:
            child = subprocess.Popen([*command, "--resume"])
            first = wait_for(child, run, lambda done: written(run) != before, args.within)
            back = wait_for(child, run, lambda done: done and done[-1] >= killed_at, args.within)
            if first is None or back is None:
                print(f"kill {kill}: the next life did not come back within {args.within:g} s", file=sys.stderr)
                return 1
            recovered.append(back - begin)
            print(f"kill {kill}: at step {killed_at + 1}; first step after {first - begin:.2f} s, where it was after {back - begin:.2f} s", flush=True)
        if kill == args.kills:
            break
        target = (killed_at or 0) + args.apart
        if wait_for(child, run, lambda done: done and done[-1] >= target, 100 * args.within) is None:
            print("the run ended before it could be killed: give it more steps", file=sys.stderr)
            return 1
        child.send_signal(signal.SIGKILL)
        child.wait()
        killed_at = steps(run)[-1]
    child.send_signal(signal.SIGKILL)
    child.wait()
    recovered.sort()
    print(f"recovery of {len(recovered)} kills: median {recovered[len(recovered) // 2]:.2f} s, most {recovered[-1]:.2f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
