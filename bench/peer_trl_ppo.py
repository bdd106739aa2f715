"""PPO steps of TRL's PPOTrainer (TRL 1.12, the last release that has one) in bfloat16 on the CPU: policy, critic, reference and reward
model, with the prompts, lengths and options that bench/compare.py gives Plumb. PAIRS is what `plumb data export` wrote. Prints the
seconds and completion tokens of a step; the first step is left out."""
import argparse
import json
import tempfile
import time

import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer, TrainerCallback
from trl.experimental.ppo import PPOConfig, PPOTrainer

parser = argparse.ArgumentParser()
parser.add_argument("model")
parser.add_argument("reward_model")
parser.add_argument("pairs")
for name, default in dict(prompts=16, new=64, steps=2, max_prompt=256, threads=2).items():
    parser.add_argument("--" + name.replace("_", "-"), type=int, default=default)
args = parser.parse_args()
torch.set_num_threads(args.threads)
torch.manual_seed(1)

tokenizer = AutoTokenizer.from_pretrained(args.model, padding_side="left")
# The trainer cuts an answer at the first padding token, so padding has to be a token that no answer ends with.
tokenizer.pad_token = next(token for token in ("<|endoftext|>", "<|pad|>", "<pad>") if token in tokenizer.get_vocab())
assert tokenizer.pad_token != tokenizer.eos_token
rows = []
with open(args.pairs) as lines:
    for line in lines:
        ids = tokenizer.apply_chat_template(json.loads(line)["prompt"], add_generation_prompt=True, return_dict=False)
        if len(ids) <= args.max_prompt:
            rows.append({"input_ids": ids})
        if len(rows) == args.prompts * (args.steps + 1):
            break


class Clock(TrainerCallback):
    ends = []

    def on_train_begin(self, *_, **__):
        self.ends.append(time.perf_counter())

    def on_step_end(self, *_, **__):
        self.ends.append(time.perf_counter())


def load(kind, path, **more):
    return kind.from_pretrained(path, dtype=torch.bfloat16, **more)


policy = load(AutoModelForCausalLM, args.model)
generate = policy.generate
step_tokens = []


def counted(*arguments, input_ids, **named):
    out = generate(*arguments, input_ids=input_ids, **named)
    ended = out.sequences[:, input_ids.shape[1]:] == tokenizer.eos_token_id
    step_tokens.append(((ended.cumsum(1) - ended.long()) == 0).sum().item())  # up to the first end, that one included
    return out


policy.generate = counted
with tempfile.TemporaryDirectory() as folder:
    config = PPOConfig(
        output_dir=folder, use_cpu=True, bf16=True, per_device_train_batch_size=args.prompts, gradient_accumulation_steps=1,
        total_episodes=args.prompts * (args.steps + 1), num_ppo_epochs=1, num_mini_batches=1, response_length=args.new, stop_token="eos",
        temperature=1.0, kl_coef=0.05, cliprange=0.2, cliprange_value=0.5, gamma=1.0, lam=0.95, learning_rate=3e-6,
        local_rollout_forward_batch_size=args.prompts, num_sample_generations=0, report_to="none", save_strategy="no",
        logging_strategy="no", gradient_checkpointing=False, disable_tqdm=True)
    data = Dataset.from_list(rows)
    trainer = PPOTrainer(
        args=config, processing_class=tokenizer, model=policy, ref_model=load(AutoModelForCausalLM, args.model),
        reward_model=load(AutoModelForSequenceClassification, args.reward_model, num_labels=1),
        value_model=load(AutoModelForSequenceClassification, args.model, num_labels=1), train_dataset=data,
        eval_dataset=data.select(range(1)), callbacks=[Clock()])
    trainer.train()
seconds = [end - begin for begin, end in zip(Clock.ends, Clock.ends[1:])][1:]
seconds.sort()
print(json.dumps({"bench": "ppo", "dtype": "bfloat16", "threads": args.threads, "seconds": seconds[len(seconds) // 2],
                  "tokens": sum(step_tokens[1:]) / args.steps, "steps": args.steps}))
