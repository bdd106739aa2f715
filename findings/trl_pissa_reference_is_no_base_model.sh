#!/usr/bin/env bash
# trl 1.16.0 with peft 0.21.2: DPO of a LoRA with init_lora_weights="pissa" or "olora" measures against a reference that is not the
# base model, and does not say so.
#
# With a peft_config and no ref_model TRL takes the policy with its adapter disabled as the reference (DPO, KTO, GRPO, RLOO).
# That is the base model as long as the adapter begins as nothing. PiSSA and OLoRA begin as the largest parts of each weight and take
# these parts out of the base weights: adapter on is the base model, adapter off a model without its main directions. So the first
# step, at which policy and reference should be one and the loss ln 2 = 0.6931, already has rewards, margins and an accuracy, and a KL term
# would pull the policy to the damaged model. "orthogonal", whose matrices are not zero either, leaves the base weights alone and
# is right. Seen 2026-11-30, PyPI trl 1.16.0, peft 0.21.2, transformers 5.23.0, torch 2.15.0, CPU; a random Qwen3 of width 64, rank 8, first step:
#   init         policy - base   reference - base   loss     rewards chosen, rejected   (largest differences of a logit; beta 0.1)
#   True          0.0e+00       0.0e+00          0.6931   +0.0000 +0.0000
#   orthogonal    9.5e-07       0.0e+00          0.6931   +0.0000 -0.0000
#   olora         1.3e-06       2.1e+00          0.7151   -0.0009 +0.0178
#   pissa         2.1e-06       2.3e+00          0.6767   +0.0413 -0.0267
# Fails when the reference of "pissa" or "olora" is the base model, or when another first loss is not ln 2. Installs 3 GB.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q --disable-pip-version-check torch==2.15.0 numpy==2.4.6 transformers==5.23.0 tokenizers==0.23.3 \
  trl==1.16.0 peft==0.21.2 accelerate==1.15.0 datasets==5.2.0
export HF_HUB_OFFLINE=1 HF_HOME=$work/home TRANSFORMERS_VERBOSITY=error CUDA_VISIBLE_DEVICES=
cat >"$work/reference.py" <<'PY'
import copy
import math
import random
import sys

import torch
from datasets import Dataset, disable_progress_bars
from peft import LoraConfig
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM
from trl import DPOConfig, DPOTrainer

disable_progress_bars()
torch.manual_seed(0)
torch.set_num_threads(1)
random.seed(0)
words = ["<pad>", "<eos>", "<unk>"] + [f"w{i}" for i in range(61)]
backend = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="<unk>"))
backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>")
base = Qwen3ForCausalLM(Qwen3Config(
    vocab_size=len(words), hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
    num_key_value_heads=2, head_dim=16, max_position_embeddings=64, eos_token_id=1, pad_token_id=0)).eval()
with torch.no_grad():
    for p in base.parameters():
        if p.dim() > 1:
            p.normal_(std=0.1)


def sentence(length):
    return " ".join(random.choice(words[3:]) for _ in range(length))


pairs = Dataset.from_list([dict(prompt=sentence(4), chosen=" " + sentence(6), rejected=" " + sentence(6)) for _ in range(16)])
probe = tokenizer("w1 w2 w3", return_tensors="pt")


def first_step(init):
    trainer = DPOTrainer(
        copy.deepcopy(base), train_dataset=pairs, processing_class=tokenizer,
        args=DPOConfig(output_dir=sys.argv[1], per_device_train_batch_size=len(pairs), max_steps=1, logging_steps=1, beta=0.1,
                       bf16=False, use_cpu=True, report_to=[], save_strategy="no", disable_tqdm=True),
        peft_config=LoraConfig(r=8, lora_alpha=8, init_lora_weights=init, target_modules="all-linear"))
    model = trainer.model.eval()
    with torch.no_grad():
        wanted = base(**probe).logits
        policy = (model(**probe).logits - wanted).abs().max().item()
        with model.disable_adapter():  # what TRL does for the reference
            reference = (model(**probe).logits - wanted).abs().max().item()
    trainer.train()
    logged = next(entry for entry in trainer.state.log_history if "loss" in entry)
    print(f"{str(init):12} {policy:8.1e} {reference:13.1e}          {logged['loss']:.4f}   "
          f"{logged['rewards/chosen']:+.4f} {logged['rewards/rejected']:+.4f}")
    return policy, reference, logged["loss"]


print("init         policy - base   reference - base   loss     rewards chosen, rejected")
failed = False
for init, right in ((True, True), ("orthogonal", True), ("olora", False), ("pissa", False)):
    policy, reference, loss = first_step(init)
    failed |= policy > 1e-4  # the policy is the base model with every kind
    failed |= (reference < 1e-4) != right or (abs(loss - math.log(2)) < 1e-5) != right
sys.exit("not what was seen before" if failed else 0)
PY
"$work/venv/bin/python" "$work/reference.py" "$work/out" 2>"$work/warnings" | grep -v "^{" || { tail -5 "$work/warnings" >&2; exit 1; }
