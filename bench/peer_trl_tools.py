"""GRPO steps of TRL's GRPOTrainer with `tools` in bfloat16 on the CPU, on the task of bench/tools/task.py. Prints seconds of a step, by the clock and of the processor, the
tokens of its completions (tool results among them) and how often a tool was called; the first step is left out. Run by
bench/compare.py --only tools."""
import argparse
import json
import os
import pathlib
import sys
import tempfile
import time

import torch
from datasets import Dataset
from transformers import AutoTokenizer, TrainerCallback
from trl import GRPOConfig, GRPOTrainer
from trl.chat_template_utils import qwen3_template

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent / "tools"))
from calculator import calculate  # noqa: E402

parser = argparse.ArgumentParser()
parser.add_argument("model")
parser.add_argument("rows")
for name, default in dict(prompts=4, samples=4, new=96, steps=2, threads=2, turns=3).items():
    parser.add_argument(f"--{name}", type=int, default=default)
args = parser.parse_args()
torch.set_num_threads(args.threads)

with open(args.rows) as file:
    rows = [json.loads(row) for _, row in zip(range(args.prompts * (args.steps + 1)), file)]
dataset = Dataset.from_list([{"prompt": row["prompt"], "answer": row["answer"]} for row in rows])
step_tokens, step_calls = [], []  # the trainer clears its own counts when it ends


def reward(completions, completion_ids, answer, **_):
    step_tokens.append(sum(len(ids) for ids in completion_ids))
    step_calls.append(sum(len(m.get("tool_calls") or []) for c in completions for m in c) / len(completions))
    return [float(any(a in (m["content"] or "") for m in c if m["role"] == "assistant")) + 0.25 * min(1.0, len(ids) / 48)
            for c, ids, a in zip(completions, completion_ids, answer)]


class Clock(TrainerCallback):
    seconds, processor = [], []

    def on_step_begin(self, *_, **__):
        self.begin = time.perf_counter(), time.process_time()

    def on_step_end(self, *_, **__):
        self.seconds.append(time.perf_counter() - self.begin[0])
        self.processor.append(time.process_time() - self.begin[1])


tokenizer = AutoTokenizer.from_pretrained(os.path.abspath(args.model))
tokenizer.response_template = qwen3_template  # calls in Hermes' form, as the template writes them
with tempfile.TemporaryDirectory() as folder:
    config = GRPOConfig(
        output_dir=folder, use_cpu=True, bf16=True, per_device_train_batch_size=args.prompts * args.samples,
        num_generations=args.samples, max_completion_length=args.new, max_steps=args.steps + 1, learning_rate=1e-6, beta=0.0,
        temperature=1.0, epsilon=0.2, epsilon_high=0.28, report_to="none", save_strategy="no", logging_strategy="no",
        max_tool_calling_iterations=args.turns - 1, gradient_checkpointing=False, disable_tqdm=True,
        model_init_kwargs={"dtype": torch.bfloat16})
    trainer = GRPOTrainer(model=os.path.abspath(args.model), reward_funcs=reward, args=config, train_dataset=dataset,
                          processing_class=tokenizer, tools=[calculate], callbacks=[Clock()])
    trainer.train()
seconds = sorted(Clock.seconds[1:])
calls = step_calls[1:]
print(json.dumps({"bench": "grpo with tools", "dtype": "bfloat16", "threads": args.threads, "seconds": seconds[len(seconds) // 2],
                  "processor": sum(Clock.processor[1:]) / len(Clock.processor[1:]),
                  "tokens": sum(step_tokens[1:]) / args.steps, "calls": sum(calls) / max(1, len(calls)), "steps": args.steps}))
