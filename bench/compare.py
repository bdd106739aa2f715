#!/usr/bin/env python3
"""Plumb against what people would run instead, on the CPU: same model, same cores, one after the other, ratios printed.

  bench/compare.py [--cores 0,1] [--only decode train grpo] [--quick] [--brief] [--out FILE.json]

What is compared (docs/benchmarks.md): greedy decoding of 1 and 32 sequences with llama.cpp in f16 and transformers' generate
in bfloat16; the train step with transformers' bfloat16 autocast and AdamW; a GRPO step with TRL; on request (--only tools) a GRPO step
of conversations with a tool, TRL's `tools` (bench/tools/task.py); (--only dpo) ten DPO
steps in float32 with TRL on the same pairs in the same order, losses compared, and (--only ppo) a PPO step, policy, critic, reference
and reward model, with TRL 1.12, the last release that has PPO. SmolLM2-135M-Instruct from
`make model`. The peers live in build/bench-env, made on the first call from PyPI (llama.cpp is compiled there: about ten
minutes on two cores); torch is the one of .env. --quick proves that everything runs; its figures mean nothing.
Needs build/plumb and build/bench/model_bench: `make bench` builds both.
"""
import argparse
import json
import os
import pathlib
import resource
import shutil
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
ENV = ROOT / "build/bench-env"
MODEL = ROOT / "models/SmolLM2-135M-Instruct"
GGUF = ROOT / "models/SmolLM2-135M-Instruct.Q4_1.gguf"
F16 = ROOT / "build/SmolLM2-135M-Instruct.f16.gguf"
HH = ROOT.parent / "shared/data/hh-rlhf/harmless-base-test-1800.jsonl.gz"
GSM8K = ROOT.parent / "shared/data/gsm8k/train.jsonl.gz"
PACKAGES = ["numpy", "typing_extensions", "sympy", "networkx", "jinja2", "fsspec", "filelock", "transformers==5.23.0",
            "trl==1.16.0", "accelerate", "datasets", "gguf==0.19.0"]
PPO_PACKAGES = ROOT / "build/bench-trl-ppo"
PPO_TRL = "trl==1.12.0"
LLAMA = "llama-cpp-python"

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--cores", default="0,1", help="cores for every program, as taskset has them (default 0,1)")
parser.add_argument("--only", nargs="+", default=["decode", "train", "grpo"],
                    choices=["decode", "train", "grpo", "tools", "dpo", "ppo"])
parser.add_argument("--quick", action="store_true", help="tiny sizes")
parser.add_argument("--brief", action="store_true", help="tools: fewer conversations and tokens, for a machine that has little time")
parser.add_argument("--python", help="an interpreter that has the peers already, instead of build/bench-env")
parser.add_argument("--ppo-path", default=str(PPO_PACKAGES), help="PYTHONPATH of PPO's side: where trl 1.12 lies")
parser.add_argument("--out", type=pathlib.Path, default=ROOT / "build/bench.json", help="all results as JSON")
args = parser.parse_args()
# Cores are lists and ranges: 0,2-3.
spans = [[int(n) for n in part.split("-")] for part in args.cores.split(",")]
threads = sum(span[-1] - span[0] + 1 for span in spans)
python = args.python or str(ENV / "bin/python")


def prepare():
    bench = {"decode", "train"} & set(args.only)
    for needed, how in ((MODEL / "config.json", "make model"), (ROOT / "build/plumb", "make build"),
                        (ROOT / "build/bench/model_bench", "make bench")):
        if not needed.exists() and (bench or needed.name != "model_bench"):
            sys.exit(f"bench/compare.py: {needed} is missing: run `{how}`")
    if not args.python:
        base = ROOT / ".env/bin/python3"
        if not (ENV / "bin/python").exists():
            subprocess.run([base, "-m", "venv", ENV], check=True)
        pip = [ENV / "bin/pip", "install", "--quiet", "--disable-pip-version-check"]
        [packages] = ENV.glob("lib/python*/site-packages")
        site = subprocess.run([base, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], check=True,
                              capture_output=True, text=True).stdout
        (packages / "plumb-env.pth").write_text(site)
        subprocess.run([*pip, *PACKAGES], check=True)
        if "ppo" in args.only and not (PPO_PACKAGES / "trl").exists():
            subprocess.run([*pip, "--no-deps", "--target", PPO_PACKAGES, PPO_TRL], check=True)
        if "decode" in args.only and not list(packages.glob("llama_cpp_python-*")):
            print("compiling llama.cpp (once) ...", flush=True)
            tools = "-DGGML_NATIVE=ON -DLLAMA_BUILD_TOOLS=OFF -DLLAVA_BUILD=OFF"
            path = f"{ROOT / '.env/bin'}:{os.environ['PATH']}"
            subprocess.run([*pip, LLAMA], check=True, env={**os.environ, "CMAKE_ARGS": tools, "PATH": path})
    if "decode" in args.only and not F16.exists():
        subprocess.run([python, ROOT / "bench/make_f16_gguf.py", GGUF, F16], check=True)


def run(*command, path=None):
    """The JSON object in the last line of a program's output; None with the reason printed when it failed."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "TOKENIZERS_PARALLELISM": "false",
                   "HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"}
    if path:
        environment["PYTHONPATH"] = path
    # Spinning threads starve each other as soon as anything else runs; Plumb sets this for itself (run/main.cc).
    environment.setdefault("GOMP_SPINCOUNT", "1000")
    done = subprocess.run(["taskset", "-c", args.cores, *map(str, command)], env=environment, cwd=ROOT, capture_output=True,
                          text=True)
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode != 0 or not lines:
        print(f"  FAILED: {' '.join(map(str, command))}\n    " + "\n    ".join(done.stderr.splitlines()[-5:]), flush=True)
        return None
    return json.loads(lines[-1])


def processor_seconds():
    """Of the programs that have ended, and of what they started."""
    use = resource.getrusage(resource.RUSAGE_CHILDREN)
    return use.ru_utime + use.ru_stime


results = []


def compare(what, ours, peers, unit="tokens_per_s", better="higher"):
    """peers: (name, result, target ratio)."""
    results.append({"what": what, "plumb": ours, "peers": {name: peer for name, peer, _ in peers}})
    if ours is None:
        return
    print(f"{what}: plumb {ours[unit]:.1f} {'tok/s' if unit == 'tokens_per_s' else 's'}", flush=True)
    for name, peer, target in peers:
        if peer is None:
            continue
        ratio = ours[unit] / peer[unit] if better == "higher" else peer[unit] / ours[unit]
        print(f"  {name:24} {peer[unit]:9.1f}   plumb is {ratio:5.2f} times as fast (target {target})", flush=True)


def decode():
    for batch in (1, 32):
        new = 4 if args.quick else (128 if batch == 1 else 48)
        sizes = ["--batch", batch, "--prompt", 16, "--new", new, "--rounds", 1 if args.quick else 3, "--threads", threads]
        ours = run("build/bench/model_bench", "decode", MODEL, *sizes)
        llama = run(python, "bench/peer_llama.py", F16, *sizes)
        hf = run(python, "bench/peer_hf.py", "decode", MODEL, *sizes)
        compare(f"decode, {batch} sequences", ours,
                [("llama.cpp f16", llama, 1.0 if batch == 1 else 1.3), ("transformers bf16", hf, 1.0 if batch == 1 else 2.5)])


def train():
    sizes = ["--sequences", 1 if args.quick else 4, "--length", 64 if args.quick else 512, "--steps", 1, "--rounds",
             1 if args.quick else 2, "--threads", threads]
    ours = run("build/bench/model_bench", "train", MODEL, *sizes)
    compare("train step", ours, [("transformers bf16", run(python, "bench/peer_hf.py", "train", MODEL, *sizes), 2.0)])


def plumb(*commands):
    """Runs them one after the other; False with the reason printed when one failed."""
    for command in commands:
        done = subprocess.run(["taskset", "-c", args.cores, "build/plumb", *map(str, command)], cwd=ROOT, capture_output=True, text=True)
        if done.returncode != 0:
            print(f"  FAILED: plumb {command[0]}\n    " + "\n    ".join((done.stdout + done.stderr).splitlines()[-5:]), flush=True)
            return False
    return True


def sets(settings):
    return [x for name, value in settings.items() for x in ("--set", f"{name}={value}")]


def metric_rows(folder):
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [row for row in rows if "time/step" in row]


def hh_pairs(pairs):
    """HH-RLHF as both sides read it."""
    shutil.rmtree(ROOT / "build/bench-store", ignore_errors=True)
    return plumb(["data", "import", HH, "--store", ROOT / "build/bench-store", "--dataset", "hh", "--quiet"],
                 ["data", "export", pairs, "--store", ROOT / "build/bench-store", "--dataset", "hh", "--quiet"])


def grpo():
    prompts, samples, new, steps = (1, 2, 8, 1) if args.quick else (4, 4, 128, 2)
    folder = ROOT / "build/bench-run"
    settings = {"rollout.prompts_per_step": prompts, "rollout.samples_per_prompt": samples, "rollout.max_new_tokens": new,
                "run.threads": threads, "run.checkpoint_every": 0}
    if args.quick:
        settings["algorithm.logprob_gate"] = 1.0  # a mean over 16 tokens is too few for the recipe's gate in bfloat16
    ours = None
    if plumb(["train", "configs/gsm8k_smollm2.toml", "--steps", steps + 1, "--out", folder, "--overwrite", *sets(settings)]):
        rows = metric_rows(folder)[1:]
        seconds = sorted(row["time/step"] for row in rows)
        ours = {"seconds": seconds[len(seconds) // 2],
                "tokens": sum(row["perf/tokens_per_s"] * row["time/step"] for row in rows) / len(rows)}
    trl = run(python, "bench/peer_trl.py", MODEL, GSM8K, "--prompts", prompts, "--samples", samples, "--new", new, "--steps",
              steps, "--threads", threads)
    compare(f"GRPO step, {prompts} x {samples} answers of up to {new} tokens", ours, [("TRL 1.16 bf16", trl, 3.0)],
            unit="seconds", better="lower")
    if ours and trl:
        print(f"  tokens generated a step: plumb {ours['tokens']:.0f}, TRL {trl['tokens']:.0f}")


def tools():
    """Both from the same rows, template and Python function; only a part of the answers has a call, and how many is printed."""
    sys.path.insert(0, str(ROOT / "bench/tools"))
    import task

    prompts, samples, new, steps, turns = (1, 2, 24, 1, 2) if args.quick else (2, 4, 64, 1, 3) if args.brief else (4, 4, 96, 3, 3)
    model, rows = task.write(MODEL, ROOT / "build/bench-tools", prompts * (steps + 1))
    folder = ROOT / "build/bench-run"
    settings = {"model.path": model, "data.train": rows, "data.map.ground_truth": "answer", "data.system_prompt": "''",
                "rollout.prompts_per_step": prompts, "rollout.samples_per_prompt": samples, "rollout.max_new_tokens": new,
                "rollout.max_batch": prompts * samples, "environment.kind": "python", "environment.path": ROOT / "bench/tools/calculator.py",
                "environment.tool_form": "hermes", "environment.max_turns": turns, "environment.reply_tokens": 12, "run.threads": threads,
                "run.checkpoint_every": 0, "algorithm.skip_equal_groups": "false"}  # TRL trains them, too
    if args.quick:
        settings["algorithm.logprob_gate"] = 1.0  # a mean over 48 tokens is too few for the recipe's gate in bfloat16
    ours = None
    before = processor_seconds()
    if plumb(["train", "configs/gsm8k_smollm2.toml", "--steps", steps + 1, "--out", folder, "--overwrite", *sets(settings)]):
        processor = (processor_seconds() - before) / (steps + 1)
        after = metric_rows(folder)[1:]
        seconds = sorted(row["time/step"] for row in after)
        ours = {"seconds": seconds[len(seconds) // 2], "processor": processor,
                "tokens": sum(row["perf/generated_tokens"] for row in after) / len(after),
                "calls": sum(row["tools/call_frequency"] for row in after) / len(after)}
    trl = run(python, "bench/peer_trl_tools.py", model, rows, "--prompts", prompts, "--samples", samples, "--new", new, "--steps", steps,
              "--turns", turns, "--threads", threads)
    compare(f"GRPO step with a tool, {prompts} x {samples} conversations of up to {new} tokens", ours, [("TRL 1.16 bf16", trl, 3.0)],
            unit="seconds", better="lower")
    if ours and trl:
        print(f"  tokens a step: plumb {ours['tokens']:.0f} drawn, TRL {trl['tokens']:.0f} with what the tool said; "
              f"calls an answer: plumb {ours['calls']:.2f}, TRL {trl['calls']:.2f}")
        print(f"  processor seconds a step: plumb {ours['processor']:.1f} with its start and the first step in it, TRL {trl['processor']:.1f} "
              f"without: at least {trl['processor'] / ours['processor']:.2f} times as fast")


def ppo():
    """One update a step on new prompts; the reward model is SmolLM2 with a head that one step has trained: only its time counts."""
    steps, prompts, new = (1, 2, 8) if args.quick else (2, 16, 64)
    folder, reward_model, pairs = ROOT / "build/bench-run", ROOT / "build/bench-rm", ROOT / "build/bench-pairs.jsonl"
    settings = {"run.threads": threads, "run.checkpoint_every": 0, "rollout.prompts_per_step": prompts, "rollout.max_new_tokens": new,
                "data.limit": prompts * (steps + 1), "data.eval": '""', "data.shuffle": "false", "algorithm.epochs": 1,
                "algorithm.minibatches": 1, "algorithm.kl_controller": "fixed", "algorithm.kl_target": 0, "algorithm.dual_clip": 0,
                "algorithm.reward_normalize": "off", "critic.warmup_steps": 0, "reward.parts.0.path": reward_model / "model"}
    if args.quick:
        settings["algorithm.logprob_gate"] = 1.0  # a mean over 16 tokens is too few for the recipe's gate in bfloat16
    ours = None
    if hh_pairs(pairs) and plumb(
            ["train", "configs/rm_hh.toml", "--steps", 1, "--out", reward_model, "--overwrite", "--quiet",
             *sets({"run.threads": threads, "preference.heldout": 8, "preference.batch": 2})],
            ["train", "configs/ppo_hh.toml", "--steps", steps + 1, "--out", folder, "--overwrite", "--quiet", *sets(settings)]):
        rows = metric_rows(folder)[1:]
        seconds = sorted(row["time/step"] for row in rows)
        ours = {"seconds": seconds[len(seconds) // 2], "tokens": sum(row["perf/generated_tokens"] for row in rows) / len(rows)}
    trl = run(python, "bench/peer_trl_ppo.py", MODEL, reward_model / "model", pairs, "--prompts", prompts, "--new", new, "--steps", steps,
              "--threads", threads, path=args.ppo_path)
    compare(f"PPO step, {prompts} answers of up to {new} tokens, four models", ours, [("TRL 1.12 bf16", trl, 3.0)], unit="seconds",
            better="lower")
    if ours and trl:
        print(f"  tokens generated a step: plumb {ours['tokens']:.0f}, TRL {trl['tokens']:.0f}")


def dpo():
    steps, batch = (2, 1) if args.quick else (10, 8)
    rate, beta = 5e-6, 0.1
    folder, pairs = ROOT / "build/bench-run", ROOT / "build/bench-pairs.jsonl"
    settings = {"run.threads": threads, "run.checkpoint_every": 0, "model.dtype": "float32", "data.shuffle": "false",
                "optimizer.learning_rate": rate, "preference.beta": beta,
                "preference.batch": batch, "preference.heldout": batch, "optimizer.lr_schedule": "constant",
                "optimizer.warmup_fraction": 0, "optimizer.weight_decay": 0.01}
    ours = None
    if hh_pairs(pairs) and plumb(["train", "configs/dpo_hh.toml", "--steps", steps, "--out", folder, "--overwrite", "--quiet",
                                  *sets(settings)]):
        rows = metric_rows(folder)
        seconds = sorted(row["time/step"] for row in rows[1:])
        ours = {"seconds": seconds[len(seconds) // 2], "losses": [row["dpo/loss"] for row in rows]}
    trl = run(python, "bench/peer_trl_dpo.py", MODEL, pairs, "--batch", batch, "--steps", steps, "--threads", threads,
              "--learning-rate", rate, "--beta", beta)
    compare(f"DPO step, {batch} pairs, float32", ours, [("TRL 1.16 float32", trl, 3.0)], unit="seconds", better="lower")
    if ours and trl:
        apart = max(abs(a - b) for a, b in zip(ours["losses"], trl["losses"], strict=True))
        print(f"  losses of {steps} steps: first {ours['losses'][0]:.4f}, last {ours['losses'][-1]:.4f} and {trl['losses'][-1]:.4f}; "
              f"largest difference {apart:.2e} (bound 1e-3)")


prepare()
print(f"cores {args.cores}, {threads} threads" + (", tiny sizes: the figures mean nothing" if args.quick else ""), flush=True)
for name in args.only:
    {"decode": decode, "train": train, "grpo": grpo, "tools": tools, "dpo": dpo, "ppo": ppo}[name]()
args.out.write_text(json.dumps(results, indent=1))
failed = [r["what"] for r in results if r["plumb"] is None or None in r["peers"].values()]
if failed:
    sys.exit("bench/compare.py: incomplete: " + "; ".join(failed))
