"""Steps of TRL's DPOTrainer in float32 on the CPU over pairs in their order, for bench/compare.py: the loss of every step and the
seconds of one, the first left out. PAIRS is what `plumb data export` wrote; pairs longer than --max-tokens are left out, as Plumb does."""
import argparse
import json
import os
import tempfile
import time

import torch
from datasets import Dataset
from torch.utils.data import SequentialSampler
from transformers import AutoTokenizer, TrainerCallback
from trl import DPOConfig, DPOTrainer

parser = argparse.ArgumentParser()
parser.add_argument("model")
parser.add_argument("pairs")
for name, default in dict(batch=8, steps=10, max_tokens=256, threads=2).items():
    parser.add_argument("--" + name.replace("_", "-"), type=int, default=default)
parser.add_argument("--learning-rate", type=float, required=True)
parser.add_argument("--beta", type=float, required=True)
args = parser.parse_args()
torch.set_num_threads(args.threads)

tokenizer = AutoTokenizer.from_pretrained(args.model)
rows = []
with open(args.pairs) as lines:
    for line in lines:
        row = json.loads(line)
        row = {name: row[name] for name in ("prompt", "chosen", "rejected")}
        lengths = [len(tokenizer(tokenizer.apply_chat_template(row["prompt"] + row[name], tokenize=False)).input_ids)
                   for name in ("chosen", "rejected")]
        if max(lengths) <= args.max_tokens:
            rows.append(row)
        if len(rows) == args.batch * args.steps:
            break


class Clock(TrainerCallback):
    seconds = []

    def on_step_begin(self, *_, **__):
        self.begin = time.perf_counter()

    def on_step_end(self, *_, **__):
        self.seconds.append(time.perf_counter() - self.begin)


class InOrder(DPOTrainer):
    losses = []

    def _get_train_sampler(self, dataset=None):
        return SequentialSampler(self.train_dataset)

    def compute_loss(self, *arguments, **named):
        loss = super().compute_loss(*arguments, **named)
        self.losses.append((loss[0] if isinstance(loss, tuple) else loss).item())
        return loss


with tempfile.TemporaryDirectory() as folder:
    config = DPOConfig(
        output_dir=folder, use_cpu=True, bf16=False, per_device_train_batch_size=args.batch, max_steps=args.steps, beta=args.beta,
        loss_type="sigmoid", learning_rate=args.learning_rate, lr_scheduler_type="constant", adam_beta1=0.9, adam_beta2=0.999,
        adam_epsilon=1e-8, weight_decay=0.01, max_grad_norm=1.0, max_length=None, report_to="none", save_strategy="no",
        logging_strategy="no", gradient_checkpointing=False, disable_tqdm=True, model_init_kwargs={"dtype": torch.float32})
    trainer = InOrder(model=os.path.abspath(args.model), args=config, train_dataset=Dataset.from_list(rows), processing_class=tokenizer,
                      callbacks=[Clock()])
    trainer.train()
seconds = sorted(Clock.seconds[1:])
print(json.dumps({"bench": "dpo", "dtype": "float32", "threads": args.threads, "seconds": seconds[len(seconds) // 2],
                  "losses": InOrder.losses}))
