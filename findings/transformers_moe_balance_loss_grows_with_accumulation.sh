#!/usr/bin/env bash
# transformers 5.23.0: the Trainer multiplies the gradient of a mixture-of-experts model's balance loss by the number of accumulation steps.
#
# Since the cross-entropy of a step is divided by the tokens of the whole step (num_items_in_batch), the Trainer no longer divides
# the loss by gradient_accumulation_steps. But Qwen3-MoE, Mixtral and their relatives add router_aux_loss_coef times the balance
# loss inside the model, and that is a mean over the micro-batch: accumulating adds it up k times. The same eight rows cut into
# one, two, four or eight micro-batches give the same gradient of the cross-entropy and one, two, four or eight times the other, so
# a coefficient tuned on one machine is another one where memory forces smaller micro-batches; the logged loss grows, too.
# Seen 2026-11-30, PyPI transformers 5.23.0 with torch 2.15.0 and accelerate 1.15.0, CPU, coefficient 1, norms of the gradients:
#   micro-batches of 8, 1 a step: cross-entropy 0.183, balance  0.361, logged loss  6.17
#   micro-batches of 4, 2 a step: cross-entropy 0.183, balance  0.723, logged loss  8.18
#   micro-batches of 2, 4 a step: cross-entropy 0.183, balance  1.448, logged loss 12.21
#   micro-batches of 1, 8 a step: cross-entropy 0.183, balance  2.941, logged loss 20.26
# Fails when the first column is not the same all the way, or the second not at least k times the first row's. Installs 3 GB.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q --disable-pip-version-check torch==2.15.0 numpy==2.4.6 transformers==5.23.0 accelerate==1.15.0
export HF_HUB_OFFLINE=1 TRANSFORMERS_VERBOSITY=error CUDA_VISIBLE_DEVICES=
cat >"$work/balance.py" <<'PY'
import copy
import sys

import torch
from transformers import Qwen3MoeConfig, Qwen3MoeForCausalLM, Trainer, TrainingArguments

torch.manual_seed(0)
torch.set_num_threads(1)
ROWS, LENGTH, VOCABULARY = 8, 256, 64
base = Qwen3MoeForCausalLM(Qwen3MoeConfig(
    vocab_size=VOCABULARY, hidden_size=32, intermediate_size=32, moe_intermediate_size=16, num_hidden_layers=2,
    num_attention_heads=2, num_key_value_heads=1, head_dim=16, num_experts=8, num_experts_per_tok=2,
    output_router_logits=True, max_position_embeddings=LENGTH))
rows = [dict(input_ids=r, labels=r, attention_mask=[1] * LENGTH)
        for r in torch.randint(0, VOCABULARY, (ROWS, LENGTH)).tolist()]


def step(size, accumulation, coefficient):
    """The gradient of one step over all rows (SGD with rate 1 takes it off the weights) and the loss that is logged."""
    model = copy.deepcopy(base)
    model.router_aux_loss_coef = coefficient
    trainer = Trainer(model, train_dataset=rows, args=TrainingArguments(
        output_dir=sys.argv[1], per_device_train_batch_size=size, gradient_accumulation_steps=accumulation, max_steps=1,
        optim="sgd", learning_rate=1.0, lr_scheduler_type="constant", max_grad_norm=0, save_strategy="no", report_to=[],
        use_cpu=True, disable_tqdm=True))
    loss = trainer.train().training_loss
    return torch.cat([(b - a).flatten() for a, b in zip(model.parameters(), base.parameters())]).detach(), loss


failed, first = False, None
for accumulation in (1, 2, 4, 8):
    plain, _ = step(ROWS // accumulation, accumulation, 0.0)
    both, loss = step(ROWS // accumulation, accumulation, 1.0)
    entropy, balance = plain.norm().item(), (both - plain).norm().item()
    print(f"micro-batches of {ROWS // accumulation}, {accumulation} a step: cross-entropy {entropy:.3f}, "
          f"balance {balance:6.3f}, logged loss {loss:5.2f}")
    first = first or (entropy, balance)
    failed |= abs(entropy - first[0]) > 1e-3 * first[0] or balance < 0.98 * accumulation * first[1]
sys.exit("not what was seen before" if failed else 0)
PY
"$work/venv/bin/python" "$work/balance.py" "$work/out" 2>"$work/warnings" | grep -v "^{" || { tail -5 "$work/warnings" >&2; exit 1; }
