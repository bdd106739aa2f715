#!/usr/bin/env python3
"""`plumb launch ray` on a real Ray: a cluster of this machine alone, which lives as long as this script.

    tests/reliability/launch_ray.py PLUMB [--python PYTHON] [--folder build/launch-ray]

PYTHON (default: the one that runs this) has Ray: pip install ray. The driver that launch writes is run as it is: with keys, a head, an actor
and a reward worker. Held to: the driver ends with exit code 0, and the run has all its steps and the weights of a run in one process; an actor's
process that is killed (kill -9) in the middle is started again by the driver, and the end is the same. Skipped, which is said, where Ray or
namespaces are missing."""
import argparse
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import machines as ns  # noqa: E402
from toy_recipe import TOY  # noqa: E402

STEPS, ADDRESS = 150, "127.0.0.1:6399"


def say(text):
    sys.stdout.write(f"launch_ray: {text}\n")
    sys.stdout.flush()


def role_process(kind):
    """The process of `plumb role KIND` in these namespaces; None: there is none."""
    for each in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            words = (each / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if words[1:3] == [b"role", kind.encode()]:
            return int(each.name)
    return None


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("plumb")
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--folder", default="build/launch-ray")
    args = parser.parse_args()
    args.plumb, args.folder = str(pathlib.Path(args.plumb).resolve()), pathlib.Path(args.folder).resolve()
    args.python = os.path.abspath(args.python)
    if subprocess.run([args.python, "-c", "import ray"], capture_output=True).returncode != 0:
        say("SKIPPED, plumb launch ray was not tried on Ray: no package ray in this Python; pip install ray, or --python VENV/bin/python")
        return
    why = ns.enter_own_namespaces()
    if why:
        say(f"SKIPPED, plumb launch ray was not tried on Ray: no namespaces for its daemons ({why})")
        return
    ns.lone_network()
    shutil.rmtree(args.folder, ignore_errors=True)
    args.folder.mkdir(parents=True)
    recipe, whole, out = args.folder / "recipe.toml", args.folder / "whole", args.folder / "run"
    recipe.write_text(TOY)
    subprocess.run([args.plumb, "keys", "generate", f"{args.folder}/keys/"], check=True, stdout=subprocess.DEVNULL)
    subprocess.run([args.plumb, "train", str(recipe), "--out", str(whole), "--steps", str(STEPS), "--quiet"], check=True, stdout=subprocess.DEVNULL)
    driver = args.folder / "driver.py"
    driver.write_text(subprocess.run(
        [args.plumb, "launch", "ray", str(recipe), "--actors", "1", "--cpus", "1", "--keys", str(args.folder / "keys"), "--plumb", args.plumb, "--out",
         str(out), "--set", f"run.steps={STEPS}"], check=True, stdout=subprocess.PIPE, text=True).stdout)

    ray = str(pathlib.Path(args.python).parent / "ray")
    environment = dict(os.environ, RAY_ADDRESS=ADDRESS, RAY_USAGE_STATS_ENABLED="0", PATH=f"{pathlib.Path(args.python).parent}:{os.environ['PATH']}")
    with open(args.folder / "ray.out", "a") as log:
        subprocess.run([ray, "start", "--head", "--node-ip-address=127.0.0.1", "--port=6399", "--num-cpus=3", "--include-dashboard=false",
                        "--object-store-memory=100000000", f"--temp-dir={args.folder}/t"], check=True, stdout=log, stderr=log, env=environment)
        driving = subprocess.Popen([args.python, str(driver)], stdout=log, stderr=log, env=environment)
    metrics, killed, end = out / "metrics.jsonl", None, time.monotonic() + 400
    while driving.poll() is None and time.monotonic() < end:
        time.sleep(0.2)
        if killed is None and metrics.exists() and metrics.read_text().count("\n") >= 20:
            killed = role_process("actor")
            os.kill(killed, signal.SIGKILL)
            say("kill -9 of the actor's process, behind 20 steps")
    code = driving.poll()
    summaries = [json.loads(path.read_text()) for path in (whole / "summary.json", out / "summary.json") if path.exists()]
    seen = [(s["steps"], s["weights_sha256"]) for s in summaries]
    for true, text in ((code == 0, f"the driver ends with exit code {code} (what it said: {args.folder}/ray.out)"),
                       (killed is not None, "the actor was there to be killed"),
                       (killed is not None and "starting it again" in (args.folder / "ray.out").read_text(), "the driver started it again"),
                       (len(seen) == 2 and seen[0] == seen[1], f"steps and weights are those of the run in one process: {seen}")):
        say(("ok: " if true else "NOT SO: ") + text)
        code = code if true else 1
    sys.exit(0 if code == 0 else 1)


if __name__ == "__main__":
    main()
