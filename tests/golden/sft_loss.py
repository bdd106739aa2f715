"""Writes sft_loss.json: the losses of the first updates of TRL's SFTTrainer on tests/golden/tiny_llama, in float32.

Rows are given as tokens, so that nothing but the loss, its gradient and the update is compared: sequences of different
lengths, of which only completions are learned (`completion_mask`), two batches an epoch, AdamW with the gradient's norm
clipped and a rate that falls linearly. Run: python tests/golden/sft_loss.py   (trl 1.16, transformers 5.24, torch 2.11)
"""
import json
import pathlib
import random
import tempfile

import torch
import transformers
import trl
from datasets import Dataset
from tokenizers import Tokenizer, models
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

HERE = pathlib.Path(__file__).resolve().parent
BATCH, STEPS = 4, 6

random.seed(5)
rows = []
for _ in range(2 * BATCH):
    prompt, answer = random.randint(1, 9), random.randint(1, 14)
    rows.append({"input_ids": [random.randint(3, 30) for _ in range(prompt + answer)],
                 "completion_mask": [0] * prompt + [1] * answer})


class InOrder(trl.SFTTrainer):
    """Takes the rows as they come and keeps what it computes."""
    losses = []

    def _get_train_sampler(self, *args, **kwargs):
        return torch.utils.data.SequentialSampler(self.train_dataset)

    def training_step(self, *args, **kwargs):
        loss = super().training_step(*args, **kwargs)
        self.losses.append(loss.item())
        return loss


tokenizer = PreTrainedTokenizerFast(
    tokenizer_object=Tokenizer(models.WordLevel({**{str(i): i for i in range(31)}}, unk_token="0")), pad_token="0",
    eos_token="2", unk_token="0")
model = LlamaForCausalLM.from_pretrained(HERE / "tiny_llama", dtype=torch.float32, attn_implementation="eager")
options = dict(learning_rate=5e-3, adam_beta1=0.9, adam_beta2=0.95, adam_epsilon=1e-8, weight_decay=0.0, max_grad_norm=0.5)
with tempfile.TemporaryDirectory() as folder:
    trainer = InOrder(
        model=model, processing_class=tokenizer, train_dataset=Dataset.from_list(rows),
        args=trl.SFTConfig(output_dir=folder, per_device_train_batch_size=BATCH, max_steps=STEPS, logging_steps=1,
                           lr_scheduler_type="linear", warmup_steps=0, completion_only_loss=True, packing=False,
                           gradient_checkpointing=False, bf16=False, use_cpu=True, save_strategy="no", report_to="none",
                           max_length=None, optim="adamw_torch", **options))
    trainer.train()
logs = [log for log in trainer.state.log_history if "grad_norm" in log]
out = dict(trl=trl.__version__, transformers=transformers.__version__, batch=BATCH, rows=rows, options=options,
           losses=InOrder.losses, grad_norms=[float(log["grad_norm"]) for log in logs],
           rates=[float(log["learning_rate"]) for log in logs])
(HERE / "sft_loss.json").write_text(json.dumps(out) + "\n")
print(out["losses"], out["grad_norms"], out["rates"])
