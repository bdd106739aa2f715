#!/usr/bin/env python3
"""Plumb's and TRL's GRPO and PPO on the arithmetic model: the same sums, start model, hyper-parameters and seeds.

  bench/compare_arithmetic.py [--algorithms grpo ppo] [--seeds 1 2 3] [--steps 150] [--only plumb|trl] [--out FILE.json]
  bench/compare_arithmetic.py --merge A.json B.json

For each algorithm and seed Plumb makes the start: the warm start of the recipe, saved as a model folder, and the sums written out.
Both sides train from there in float32; TRL checks first that transformers gives the folder's texts Plumb's log-probs. `plumb eval`
judges the start and both results on the same 200 held-out sums, greedily. Seconds a step are medians of the steps after the first.
Jobs of --threads cores run side by side, each on cores of its own; with --device cuda both sides share the GPU (--plumb names the
program of a CUDA build). TRL 1.16 has no PPO: its side of PPO is TRL 1.12, the last release that has it. Without --python the
peers are installed from PyPI into build/bench-env (shared with bench/compare.py) and build/bench-trl-ppo. --quick proves that everything runs; its figures mean nothing.
"""
import argparse
import concurrent.futures
import json
import os
import pathlib
import queue
import shutil
import statistics
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
ENV = ROOT / "build/bench-env"
PPO_PACKAGES = ROOT / "build/bench-trl-ppo"
PPO_TRL = "trl==1.12.0"
LAST = 10  # steps whose mean reward is the final reward

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--algorithms", nargs="+", default=["grpo", "ppo"], choices=["grpo", "ppo"])
parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
parser.add_argument("--steps", type=int, default=150)
parser.add_argument("--only", choices=["plumb", "trl"], help="one side; the other's results come by --merge")
parser.add_argument("--threads", type=int, default=2, help="of each job")
parser.add_argument("--jobs", type=int, help="at once (default: cores / threads)")
parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu", help="of both sides")
parser.add_argument("--plumb", default=str(ROOT / "build/plumb"))
parser.add_argument("--python", help="an interpreter that has torch, transformers and accelerate, instead of build/bench-env")
parser.add_argument("--grpo-path", default="", help="PYTHONPATH of GRPO's side (trl 1.16, datasets)")
parser.add_argument("--ppo-path", default=str(PPO_PACKAGES), help="PYTHONPATH of PPO's side (trl 1.12, datasets)")
parser.add_argument("--work", type=pathlib.Path, default=ROOT / "build/bench-arithmetic", help="emptied first")
parser.add_argument("--out", type=pathlib.Path, default=ROOT / "build/bench-arithmetic.json")
parser.add_argument("--merge", nargs="+", type=pathlib.Path, help="only print what these files hold together")
parser.add_argument("--quick", action="store_true", help="tiny sizes")
args = parser.parse_args()

SHARED = dict(learning_rate=4e-4, warmup_fraction=0.05, min_lr_fraction=0.1, beta1=0.9, beta2=0.95, clip_low=0.2, gamma=1.0, lam=0.95,
              value_clip=0.2, new=40)
# PPO: TRL has one optimizer and no clipping of gradients, always keeps a reference, and asks every prompt once.
OWN = {"grpo": dict(prompts=64, samples=8, grad_clip=1.0, clip_high=0.28, kl_coef=0.0),
       "ppo": dict(prompts=512, samples=1, grad_clip=0.0, clip_high=0.2, kl_coef=0.01)}


def sizes(algorithm):
    s = {**SHARED, **OWN[algorithm]}
    return {**s, "prompts": 8, "samples": min(2, s["samples"])} if args.quick else s


def overrides(algorithm, seed):
    s = sizes(algorithm)
    values = {"run.seed": seed, "run.threads": args.threads, "run.device": args.device, "run.checkpoint_every": 0,
              "metrics.tensorboard": "false", "rollout.prompts_per_step": s["prompts"], "rollout.samples_per_prompt": s["samples"],
              "rollout.max_new_tokens": s["new"], "optimizer.grad_clip": s["grad_clip"], "algorithm.kl_coef": s["kl_coef"]}
    values |= {f"optimizer.{name}": s[name] for name in ("learning_rate", "warmup_fraction", "min_lr_fraction", "beta1", "beta2")}
    values |= {f"algorithm.{name}": s[name] for name in ("clip_low", "clip_high")}
    if algorithm == "grpo":
        values["algorithm.skip_equal_groups"] = "false"  # TRL computes them too
    else:
        values |= {"critic.learning_rate": s["learning_rate"], "critic.value_clip": s["value_clip"], "algorithm.gamma": s["gamma"],
                   "algorithm.lam": s["lam"]}
    if args.quick:
        values |= {"sft.steps": 5, "data.eval_prompts": 20}
    return [x for name, value in values.items() for x in ("--set", f"{name}={value}")]


def run(command, cores, path=None, output=None):
    """Standard output of a program that ended well; it runs on `cores` only."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(args.threads), "GOMP_SPINCOUNT": os.environ.get("GOMP_SPINCOUNT", "1000"),
                   "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error",
                   "TRL_EXPERIMENTAL_SILENCE": "1"}
    if path:
        environment["PYTHONPATH"] = path
    done = subprocess.run(list(map(str, command)), env=environment, cwd=ROOT, capture_output=True, text=True,
                          preexec_fn=lambda: os.sched_setaffinity(0, cores))
    if done.returncode != 0:
        tail = "\n    ".join((done.stdout + done.stderr).splitlines()[-12:])
        raise RuntimeError(f"{' '.join(map(str, command[:3]))} ... ended with {done.returncode}:\n    {tail}")
    if output:
        output.write_text(done.stdout)
    return done.stdout


def recipe(algorithm):
    return ROOT / f"configs/arithmetic_{algorithm}.toml"


def files(algorithm, seed):
    folder = args.work / f"{algorithm}-{seed}"
    return folder / "run", folder / "start", folder / "train.jsonl", folder / "heldout.jsonl", folder / "scores.jsonl", folder / "trl"


def judge(model, heldout, cores):
    return json.loads(run([args.plumb, "eval", model, heldout, "--json", "--threads", args.threads, "--max-new-tokens", SHARED["new"]],
                          cores))["pass_at_1"]


def prepare(algorithm, seed, cores):
    folder, start, train, heldout, scores, _ = files(algorithm, seed)
    folder.parent.mkdir(parents=True)
    run([args.plumb, "train", recipe(algorithm), "--steps", 0, "--out", folder, "--quiet", *overrides(algorithm, seed)], cores)
    shutil.copytree(folder / "checkpoints/step-00000000/model", start)
    for name, dataset in ((train, "train"), (heldout, "eval")):
        run([args.plumb, "data", "export", name, "--store", folder / "store", "--dataset", dataset, "--rows", "prompts", "--quiet"],
            cores)
    texts = heldout.with_name("texts.jsonl")
    with open(heldout) as lines:
        texts.write_text("".join(json.dumps({"text": json.loads(line)["prompt"]}) + "\n" for line in lines))
    run([args.plumb, "score", start, texts, "--threads", args.threads], cores, output=scores)


def plumb(algorithm, seed, cores):
    folder, start, _, heldout, _, _ = files(algorithm, seed)
    run([args.plumb, "train", recipe(algorithm), "--steps", args.steps, "--out", folder, "--resume", "--quiet",
         *overrides(algorithm, seed)], cores)
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert len(rows) == args.steps, f"{len(rows)} of {args.steps} steps"
    return {"device": args.device, "threads": args.threads, "rewards": [row["reward/mean"] for row in rows],
            "seconds": [row["time/step"] for row in rows], "before": judge(start, heldout, cores),
            "after": judge(folder / f"checkpoints/step-{args.steps:08d}/model", heldout, cores)}


def trl(algorithm, seed, cores):
    _, start, train, heldout, scores, save = files(algorithm, seed)
    s = sizes(algorithm)
    options = [x for name, value in s.items() for x in (f"--{name.replace('_', '-')}", value)]
    out = run([args.python or ENV / "bin/python", "bench/peer_trl_arithmetic.py", algorithm, start, train, heldout, "--scores", scores,
               "--save", save, "--device", args.device, "--steps", args.steps, "--seed", seed, "--threads", args.threads, *options],
              cores, path=args.ppo_path if algorithm == "ppo" else args.grpo_path)
    result = json.loads(out.splitlines()[-1])
    own = result.pop("before"), result.pop("after")
    return {**result, "before": judge(start, heldout, cores), "after": judge(save, heldout, cores), "own_judgement": own}


def install():
    base = ROOT / ".env/bin/python3"
    if not (ENV / "bin/python").exists():
        subprocess.run([base, "-m", "venv", ENV], check=True)
    site = subprocess.run([base, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], check=True, capture_output=True,
                          text=True).stdout
    [packages] = ENV.glob("lib/python*/site-packages")
    (packages / "plumb-env.pth").write_text(site)
    pip = [ENV / "bin/pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "numpy", "typing_extensions", "sympy", "networkx", "jinja2", "fsspec", "filelock", "transformers==5.23.0",
                    "trl==1.16.0", "accelerate", "datasets"], check=True)
    if not (PPO_PACKAGES / "trl").exists():
        subprocess.run([*pip, "--no-deps", "--target", PPO_PACKAGES, PPO_TRL], check=True)


def spread(values):
    return statistics.stdev(values) if len(values) > 1 else 0.0


def summary(results):
    """The table; true when Plumb's final reward is nowhere below TRL's by more than the larger spread over the seeds."""
    holds = True
    for algorithm in ("grpo", "ppo"):
        sides = {}
        for side in ("plumb", "trl"):
            rows = [r for r in results if (r["algorithm"], r["side"]) == (algorithm, side)]
            if not rows:
                continue
            last = [statistics.mean(r["rewards"][-LAST:]) for r in rows]
            seconds = statistics.median(s for r in rows for s in (r["seconds"][1:] or r["seconds"]))
            sides[side] = statistics.mean(last), spread(last), seconds
            name = "Plumb" if side == "plumb" else "TRL " + rows[0]["trl"]
            print(f"{algorithm:4} {name:10} {len(rows)} seeds, {len(rows[0]['rewards'])} steps, {rows[0]['device']}, {rows[0]['threads']} "
                  f"threads: final reward {sides[side][0]:.3f} +- {sides[side][1]:.3f} ({' '.join(f'{x:.3f}' for x in last)}); held-out "
                  f"pass@1 {statistics.mean(r['before'] for r in rows):.3f} -> {statistics.mean(r['after'] for r in rows):.3f} "
                  f"({' '.join(format(r['after'], '.3f') for r in rows)}); {seconds:.3f} s a step")
        if len(sides) == 2:
            (ours, our_spread, our_seconds), (theirs, their_spread, their_seconds) = sides["plumb"], sides["trl"]
            within = ours >= theirs - max(our_spread, their_spread)
            holds = holds and within
            print(f"{algorithm:4} Plumb's final reward is {'within the spread or better' if within else 'BELOW'} "
                  f"({ours - theirs:+.3f}), its step {their_seconds / our_seconds:.2f} times as fast")
    return holds


if args.merge:
    sys.exit(0 if summary([r for path in args.merge for r in json.loads(path.read_text())["results"]]) else 1)
if args.quick:
    args.steps = min(args.steps, 3)
sides = [args.only] if args.only else ["trl", "plumb"]  # the longer jobs first
if "trl" in sides and not args.python:
    install()
shutil.rmtree(args.work, ignore_errors=True)
cores = sorted(os.sched_getaffinity(0))
jobs = args.jobs or max(1, len(cores) // args.threads)
slots = queue.Queue()
for i in range(jobs):
    at = i * args.threads % len(cores)
    slots.put({(cores + cores)[k] for k in range(at, at + args.threads)})


def on_a_slot(work, *what):
    mine = slots.get()
    try:
        return work(*what, mine)
    finally:
        slots.put(mine)


results, failures = [], []
pairs = [(algorithm, seed) for algorithm in args.algorithms for seed in args.seeds]
with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
    list(pool.map(lambda pair: on_a_slot(prepare, *pair), pairs))
    print(f"{len(pairs)} starts made; {jobs} jobs of {args.threads} threads at once" +
          (", tiny sizes: the figures mean nothing" if args.quick else ""), flush=True)
    work = {pool.submit(on_a_slot, {"plumb": plumb, "trl": trl}[side], *pair): (side, *pair) for side in sides for pair in pairs}
    for done in concurrent.futures.as_completed(work):
        side, algorithm, seed = work[done]
        try:
            results.append({"algorithm": algorithm, "side": side, "seed": seed, **done.result()})
            print(f"  {algorithm} seed {seed}, {side}: final reward {statistics.mean(results[-1]['rewards'][-LAST:]):.3f}", flush=True)
        except RuntimeError as error:
            failures.append(f"{algorithm} seed {seed}, {side}: {error}")
            print(f"  FAILED {failures[-1]}", flush=True)
results.sort(key=lambda r: (r["algorithm"], r["side"], r["seed"]))
args.out.write_text(json.dumps({"settings": {a: sizes(a) for a in args.algorithms}, "results": results}, indent=1))
holds = summary(results)
if failures:
    sys.exit(f"bench/compare_arithmetic.py: {len(failures)} of {len(work)} jobs failed")
sys.exit(0 if holds or args.quick else 1)
