#!/usr/bin/env python3
"""A train step of two ranks (docs/ranks.md) against torch's DistributedDataParallel or FSDP over Gloo: the same model, the same tokens, two
processes with one thread each, in turns. Forward, backward, the sum of the gradients over both processes, clipping and AdamW in float32.

    bench/ranks_ddp.py build/plumb --python INTERPRETER [--torch ddp|fsdp] [--zero 0] [--rounds 3] [--quick]

Prints a JSON object: seconds a step of both with one process and with two (medians over steps and rounds), what the second process brings
(speed-up) and the ratio of the steps. The interpreter needs torch and transformers. On a machine that others use too the ratios say more
than the seconds. --quick proves that everything runs; its figures mean nothing.
"""
import argparse
import json
import os
import pathlib
import random
import statistics
import subprocess
import sys
import tempfile
import time

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("plumb", help="the program; in a worker: as", nargs="?")
parser.add_argument("--python", default=sys.executable, help="an interpreter that has torch and transformers")
for name, default in dict(layers=4, hidden=256, ffn=768, batch=16, length=256, steps=8, rounds=3).items():
    parser.add_argument(f"--{name}", type=int, default=default)
parser.add_argument("--zero", type=int, default=0, help="run.zero of our side")
parser.add_argument("--torch", choices=["ddp", "fsdp"], default="ddp", help="fsdp: fully_shard of each layer and of the whole, as --zero 3")
parser.add_argument("--quick", action="store_true")
parser.add_argument("--worker", type=int, default=-1, help=argparse.SUPPRESS)
parser.add_argument("--ranks", type=int, default=1, help=argparse.SUPPRESS)
parser.add_argument("--port", type=int, default=0, help=argparse.SUPPRESS)
args = parser.parse_args()
if args.quick:
    args.layers, args.hidden, args.ffn, args.batch, args.length, args.steps, args.rounds = 2, 64, 128, 4, 32, 3, 1
HEADS = 4


def worker():
    """One process of torch's side; the first prints the seconds of each step."""
    import torch
    import torch.distributed as dist
    from torch.nn.parallel import DistributedDataParallel
    from transformers import LlamaConfig, LlamaForCausalLM
    torch.set_num_threads(1)
    torch.manual_seed(1)
    config = LlamaConfig(vocab_size=320, hidden_size=args.hidden, intermediate_size=args.ffn, num_hidden_layers=args.layers,
                         num_attention_heads=HEADS, num_key_value_heads=HEADS, max_position_embeddings=args.length + 8,
                         tie_word_embeddings=True, use_cache=False)
    model = LlamaForCausalLM(config).float().train()
    if args.ranks > 1:
        os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(args.port))
        dist.init_process_group("gloo", rank=args.worker, world_size=args.ranks)
        if args.torch == "fsdp":
            from torch.distributed.device_mesh import init_device_mesh
            from torch.distributed.fsdp import fully_shard
            mesh = init_device_mesh("cpu", (args.ranks,))
            for layer in model.model.layers:
                fully_shard(layer, mesh=mesh)
            fully_shard(model, mesh=mesh)
        else:
            model = DistributedDataParallel(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, betas=(0.9, 0.95), weight_decay=0.01)
    tokens = torch.randint(0, 320, (args.batch // args.ranks, args.length))
    seconds = []
    for _ in range(args.steps + 1):
        begin = time.perf_counter()
        loss = model(input_ids=tokens, labels=tokens).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        assert torch.isfinite(loss)
        seconds.append(time.perf_counter() - begin)
    if args.worker == 0:
        print(json.dumps(seconds[1:]))


def torch_side(ranks):
    import socket
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    names = ["layers", "hidden", "ffn", "batch", "length", "steps"]
    line = [args.python, __file__] + [f"--{n}={getattr(args, n)}" for n in names] + [f"--ranks={ranks}", f"--port={port}", f"--torch={args.torch}"]
    processes = [subprocess.Popen(line + [f"--worker={rank}"], stdout=subprocess.PIPE, text=True) for rank in range(ranks)]
    out = [p.communicate()[0] for p in processes]
    if any(p.returncode for p in processes):
        sys.exit("bench/ranks_ddp.py: torch's side failed")
    return json.loads(out[0].strip().splitlines()[-1])


def our_side(ranks, folder):
    rows = folder / "rows.jsonl"
    draw = random.Random(1)
    with open(rows, "w") as file:
        for _ in range(args.batch * 4):
            digits = "".join(draw.choice("0123456789") for _ in range(args.length - 4))
            file.write(json.dumps({"prompt": digits[:2] + "=", "completion": digits[2:]}) + "\n")
    recipe = folder / "recipe.toml"
    recipe.write_text(f"""[run]
seed = 1
steps = {args.steps + 1}
checkpoint_every = 0
threads = 1
[model]
layers = {args.layers}
hidden = {args.hidden}
heads = {HEADS}
kv_heads = {HEADS}
ffn = {args.ffn}
max_positions = {args.length + 8}
vocabulary = "arithmetic"
[data]
train = "{rows}"
[algorithm]
name = "sft"
[sft]
batch = {args.batch}
heldout = 0
max_tokens = {args.length}
[optimizer]
learning_rate = 1e-4
micro_batch_tokens = {args.batch * args.length}
""")
    out = folder / f"run-{ranks}"
    more = ["--roles", "processes", "--set", f'run.parallel="dp={ranks}"', "--set", f"run.zero={args.zero}"] if ranks > 1 else []
    subprocess.run([args.plumb, "train", recipe, "--out", out, "--quiet", "--overwrite", *more], check=True)
    return [json.loads(line)["time/step"] for line in open(out / "metrics.jsonl")][1:]


if args.worker >= 0:
    worker()
    sys.exit()
if not args.plumb:
    parser.error("the program is missing: build/plumb")
seconds = {(side, ranks): [] for side in ("plumb", "torch") for ranks in (1, 2)}
with tempfile.TemporaryDirectory() as folder:
    for _ in range(args.rounds):
        for ranks in (1, 2):
            seconds["plumb", ranks] += our_side(ranks, pathlib.Path(folder))
            seconds["torch", ranks] += torch_side(ranks)
step = {f"{side}_{ranks}": statistics.median(values) for (side, ranks), values in seconds.items()}
print(json.dumps({"bench": "ranks_ddp", "model": vars(args) | {"plumb": None, "python": None}, "step_s": step,
                  "speed_up": {side: step[f"{side}_1"] / step[f"{side}_2"] for side in ("plumb", "torch")},
                  "torch_over_plumb_2": step["torch_2"] / step["plumb_2"]}))
