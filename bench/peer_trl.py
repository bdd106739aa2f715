"""GRPO steps of TRL's GRPOTrainer in bfloat16 on the CPU: the prompts, group size and lengths of configs/gsm8k_smollm2.toml.
Prints seconds and completion tokens of a step; the first step is left out. Run by bench/compare.py."""
import argparse
import gzip
import json
import os
import tempfile
import time

import torch
from datasets import Dataset
from transformers import TrainerCallback
from trl import GRPOConfig, GRPOTrainer

parser = argparse.ArgumentParser()
parser.add_argument("model")
parser.add_argument("data")
for name, default in dict(prompts=4, samples=4, new=128, steps=2, threads=2).items():
    parser.add_argument(f"--{name}", type=int, default=default)
args = parser.parse_args()
torch.set_num_threads(args.threads)

SYSTEM = "Think step by step inside <think></think>, then give the final number inside <answer></answer>."
with gzip.open(args.data, "rt") as rows:
    questions = [json.loads(row)["question"] for _, row in zip(range(args.prompts * (args.steps + 1)), rows)]
dataset = Dataset.from_list([{"prompt": [{"role": "system", "content": SYSTEM}, {"role": "user", "content": q}]} for q in questions])
step_tokens = []


def reward(completions, completion_ids, **_):
    step_tokens.append(sum(len(ids) for ids in completion_ids))
    texts = [c[0]["content"] for c in completions]
    return [0.5 * ("<answer>" in t) + 0.25 * min(1.0, len(ids) / 48) for t, ids in zip(texts, completion_ids)]


class Clock(TrainerCallback):
    seconds = []

    def on_step_begin(self, *_, **__):
        self.begin = time.perf_counter()

    def on_step_end(self, *_, **__):
        self.seconds.append(time.perf_counter() - self.begin)


with tempfile.TemporaryDirectory() as folder:
    config = GRPOConfig(
        output_dir=folder, use_cpu=True, bf16=True, per_device_train_batch_size=args.prompts * args.samples,
        num_generations=args.samples, max_completion_length=args.new, max_steps=args.steps + 1, learning_rate=1e-6, beta=0.0,
        temperature=1.0, epsilon=0.2, epsilon_high=0.28, report_to="none", save_strategy="no", logging_strategy="no",
        gradient_checkpointing=False, disable_tqdm=True, model_init_kwargs={"dtype": torch.bfloat16})
    trainer = GRPOTrainer(model=os.path.abspath(args.model), reward_funcs=reward, args=config, train_dataset=dataset,
                          callbacks=[Clock()])
    trainer.train()
seconds = sorted(Clock.seconds[1:])
print(json.dumps({"bench": "grpo", "dtype": "bfloat16", "threads": args.threads, "seconds": seconds[len(seconds) // 2],
                  "tokens": sum(step_tokens[1:]) / args.steps, "steps": args.steps}))
