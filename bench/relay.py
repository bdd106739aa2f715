#!/usr/bin/env python3
"""Seconds a step of a cluster whose links are slow, with the ways that weights have to its actors: sent by the head to each, handed on from
actor to actor (run.relay), as what has changed (run.weight_deltas), and both.

  bench/relay.py [--actors 4] [--steps 6] [--kbit 100000] [--out FILE.json] [--set option=value]

Head and actors are network namespaces of this machine (tests/reliability/machines.py), each with a link of --kbit both ways (tc's tbf); it needs
root or user namespaces. The recipe is the demo's with a part for short answers, in bfloat16 at a rate of 1e-5, tiny batches and no warm start
to speak of: what takes time are the weights. Said are mean seconds between the metrics' lines behind the second, what the head sent of weights
a version, and what actors sent; all ways have to end with the same weights. --quick proves that everything runs; its figures mean nothing."""
import argparse
import json
import pathlib
import shutil
import statistics
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests/reliability"))
import machines as ns  # noqa: E402

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--actors", type=int, default=4)
parser.add_argument("--steps", type=int, default=6)
parser.add_argument("--kbit", type=int, default=100_000, help="of each link, both ways (default 100,000: 100 Mbit/s)")
parser.add_argument("--set", action="append", default=[], metavar="option=value", help="of all ways")
parser.add_argument("--plumb", default=str(ROOT / "build/plumb"))
parser.add_argument("--work", type=pathlib.Path, default=ROOT / "build/bench-relay", help="emptied first")
parser.add_argument("--out", type=pathlib.Path, default=ROOT / "build/bench-relay.json")
parser.add_argument("--quick", action="store_true", help="few steps")
args = parser.parse_args()

PART = '\n[[reward.parts]]\nname = "short"\nkind = "length"\ntarget_tokens = 1\nmax_tokens = 12\n'
OPTIONS = ["model.dtype=bfloat16", "optimizer.learning_rate=1e-5", "run.threads=1", "run.checkpoint_every=0", "sft.steps=3", "data.eval_prompts=10",
           "rollout.prompts_per_step=4", "rollout.samples_per_prompt=4", "rollout.max_new_tokens=8"]
WAYS = {"each from the head": [], "handed on, 1 each": ["run.relay=1"], "handed on, 2 each": ["run.relay=2"],
        "what has changed": ["run.weight_deltas=true"], "both, 1 each": ["run.relay=1", "run.weight_deltas=true"]}


def train(name, options, places, recipe):
    folder = args.work / name.replace(" ", "-").replace(",", "")
    run, listen = folder / "run", f"tcp://{places.address('head')}:17880"
    folder.mkdir(parents=True)
    values = [*OPTIONS, *args.set, *options, "run.roles=cluster", f"run.listen={listen}"]
    line = [args.plumb, "train", recipe, "--out", run, "--steps", args.steps, "--quiet", "--insecure"]
    line += [word for value in values for word in ("--set", value)]
    lines = {"head": line}
    for i in range(args.actors):
        lines[f"actor{i}"] = [args.plumb, "role", "actor", "--join", listen, "--insecure", "--name", f"actor-{i}", "--set", "run.threads=1",
                              "--work", folder / "work"]
    processes = []
    for machine, words in lines.items():
        with open(folder / f"{machine}.log", "w") as log:
            processes.append(subprocess.Popen(places.line(machine, list(map(str, words))), stdout=log, stderr=log))
        while machine == "head" and not (run / "cluster.json").exists():
            if processes[0].poll() is not None:
                sys.exit(f"bench/relay.py: the head ended: {folder / 'head.log'}")
            time.sleep(0.1)
    codes = [process.wait() for process in processes]
    if codes[0] not in (0, 7) or any(codes[1:]):
        sys.exit(f"bench/relay.py: {name} ended with {codes}: {folder}")
    metrics = [json.loads(each) for each in (run / "metrics.jsonl").read_text().splitlines()]
    end = json.loads((run / "summary.json").read_text())
    seconds = statistics.mean(b["wall_s"] - a["wall_s"] for a, b in zip(metrics[1:], metrics[2:]))
    counters = end["counters"]
    return {"step_s": seconds, "head_mb": counters["cluster/weight_bytes"] / 1e6, "handed_on_mb": counters.get("actor/weight_bytes_handed_on", 0) / 1e6,
            "digest": end["policy_digest"]}


def main():
    why = ns.enter_own_namespaces()
    if why:
        sys.exit(f"bench/relay.py: needs network namespaces: {why}")
    if args.quick:
        args.steps = min(args.steps, 4)
    shutil.rmtree(args.work, ignore_errors=True)
    args.work.mkdir(parents=True)
    recipe = args.work / "recipe.toml"
    text = (ROOT / "configs/arithmetic_grpo.toml").read_text()
    recipe.write_text(text.replace('kind = "answer"\n', 'kind = "answer"\n' + PART, 1))
    names = ["head", *(f"actor{i}" for i in range(args.actors))]
    places = ns.Machines(names, links=True)
    for name in names:
        places.rate(name, args.kbit)
    found = {}
    for name, options in WAYS.items():
        found[name] = train(name, options, places, recipe)
        print(f"{name:20} {found[name]['step_s']:7.2f} s a step; all versions: {found[name]['head_mb']:8.1f} MB from the head, "
              f"{found[name]['handed_on_mb']:8.1f} MB from actors", flush=True)
    same = len({each["digest"] for each in found.values()}) == 1
    print("the weights at the end are the same" if same else "NOT SO: the weights at the end are the same")
    args.out.write_text(json.dumps(found, indent=1) + "\n")
    sys.exit(0 if same else 1)


if __name__ == "__main__":
    main()
