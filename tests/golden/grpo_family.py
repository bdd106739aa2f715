"""Losses and gradients of TRL 1.16's GRPOTrainer and RLOOTrainer on fixed log-probs, for tests/learner/algorithms/answer_loss_test.cc.

The trainers' own _compute_loss runs in float64 on objects that were never set up for training: the model's log-probs are
given, everything else is the code that users run. REINFORCE++ and the leave-one-out advantage, which TRL computes inside its
generation, are written out here.
Run with trl 1.16: python3 tests/golden/grpo_family.py > tests/golden/grpo_family.json
"""
import collections
import json
import sys
import types

import torch
from trl.trainer.grpo_trainer import GRPOTrainer
from trl.trainer.rloo_trainer import RLOOTrainer

torch.manual_seed(3)
B, T, MAX = 4, 6, 9
LENGTHS = [6, 3, 5, 1]
mask = torch.zeros(B, T, dtype=torch.float64)
for row, n in enumerate(LENGTHS):
    mask[row, :n] = 1


class Fake:
    def gather(self, x):
        return x

    gather_for_metrics = gather

    def reduce(self, x, reduction="sum"):
        return x

    num_processes = 1
    sync_gradients = True


def trainer_of(cls, logps, **options):
    t = cls.__new__(cls)
    o = dict(loss_type="grpo", importance_sampling_level="token", epsilon_low=0.2, epsilon_high=0.2, delta=None)
    o.update(options)
    t.loss_type, t.importance_sampling_level = o["loss_type"], o["importance_sampling_level"]
    t.epsilon_low, t.epsilon_high = o["epsilon_low"], o["epsilon_high"]
    t.beta = 0.0
    t.use_vllm = "importance" in o
    t.vllm_importance_sampling_correction = t.use_vllm
    t.max_completion_length = MAX
    t.top_entropy_quantile = 1.0
    t.off_policy_mask_threshold = None
    t.aux_loss_enabled = False
    t._entropy_bonus_enabled = False
    t.use_adaptive_entropy = False
    t.current_gradient_accumulation_steps = 1
    t.args = types.SimpleNamespace(delta=o["delta"], use_bias_correction_kl=False, steps_per_generation=1)
    t.model = types.SimpleNamespace(training=True)
    t.accelerator = Fake()
    t._metrics = {"train": collections.defaultdict(list), "eval": collections.defaultdict(list)}
    t._get_per_token_logps_and_entropies = lambda *a, **k: (logps, torch.zeros_like(logps), None)
    return t


def case(name, cls, **options):
    logps = (-2 * torch.rand(B, T, dtype=torch.float64) - 0.05).requires_grad_(True)
    spread = options.pop("spread", 0.3)
    old = (logps.detach() + spread * torch.randn(B, T, dtype=torch.float64)).clamp(max=-1e-3)
    advantages = torch.randn(B, dtype=torch.float64)
    t = trainer_of(cls, logps, **options)
    ids = torch.zeros(B, T, dtype=torch.long)
    inputs = dict(prompt_ids=ids[:, :1], prompt_mask=ids[:, :1] + 1, completion_ids=ids, completion_mask=mask,
                  advantages=advantages, old_per_token_logps=old, old_logps=(old * mask).sum(1),
                  num_items_in_batch=mask.sum())
    if "importance" in options:
        inputs["importance_sampling_ratio"] = options["importance"]
    loss = t._compute_loss(None, inputs)
    loss.backward()
    ragged = lambda x: [row[:n].tolist() for row, n in zip(x, LENGTHS)]
    out = dict(name=name, low=t.epsilon_low, high=t.epsilon_high, delta=options.get("delta") or 0, max_tokens=MAX,
               logps=ragged(logps.detach()), old=ragged(old), advantages=advantages.tolist(), loss=loss.item(),
               gradient=ragged(logps.grad))
    if "importance" in options:
        out["importance"] = ragged(options["importance"])
    return out


def off_policy(mode, low, high):
    proximal = -2 * torch.rand(B, T, dtype=torch.float64)
    behaviour = proximal + 0.4 * torch.randn(B, T, dtype=torch.float64)
    diff = (proximal - behaviour) * mask
    if mode.startswith("sequence"):
        diff = diff.sum(-1, keepdim=True)
    w = torch.exp(diff).expand(B, T)
    if mode.endswith("truncate"):
        w = torch.clamp(w, max=high)
    else:
        w = w.masked_fill((w < low) | (w > high), 0.0)
    ragged = lambda x: [row[:n].tolist() for row, n in zip(x, LENGTHS)]
    return dict(mode=mode, floor=low, cap=high, proximal=ragged(proximal), behaviour=ragged(behaviour), weight=ragged(w))


def leave_one_out():
    rewards = torch.randn(5, dtype=torch.float64)
    return dict(rewards=rewards.tolist(), advantages=(rewards - (rewards.sum() - rewards) / 4).tolist())


def batch_whitened():
    """REINFORCE++: reward-to-go minus the KL that is still to come, whitened over all tokens of the batch."""
    rewards, coef = torch.randn(B, dtype=torch.float64), 0.05
    kl = 0.1 * torch.randn(B, T, dtype=torch.float64) * mask
    to_go = rewards[:, None] - coef * kl.flip(1).cumsum(1).flip(1)
    values = to_go[mask.bool()]
    white = (to_go - values.mean()) / torch.sqrt(values.var(unbiased=True) + 1e-8)
    ragged = lambda x: [row[:n].tolist() for row, n in zip(x, LENGTHS)]
    return dict(rewards=rewards.tolist(), kl_coef=coef, kl=ragged(kl), advantages=ragged(white))


importance = (0.5 + torch.rand(B, T, dtype=torch.float64))
json.dump(dict(
    losses=[
        case("grpo", GRPOTrainer, loss_type="grpo"),
        case("bnpo", GRPOTrainer, loss_type="bnpo"),
        case("dr_grpo", GRPOTrainer, loss_type="dr_grpo"),
        case("dapo", GRPOTrainer, loss_type="dapo", epsilon_high=0.28, delta=10.0),
        case("dapo_dual", GRPOTrainer, loss_type="dapo", epsilon_high=0.28, delta=1.4, spread=0.9),
        case("gspo", GRPOTrainer, loss_type="grpo", importance_sampling_level="sequence", epsilon_low=3e-4, epsilon_high=4e-4,
             spread=8e-3),
        case("gspo_wide", GRPOTrainer, loss_type="grpo", importance_sampling_level="sequence", epsilon_low=0.2, epsilon_high=0.2),
        case("cispo", GRPOTrainer, loss_type="cispo", epsilon_low=1.0, epsilon_high=5.0, spread=1.5),
        case("dapo_tis", GRPOTrainer, loss_type="dapo", epsilon_high=0.28, importance=importance),
        case("rloo", RLOOTrainer),
        case("rloo_near", RLOOTrainer, spread=0.03),
    ],
    off_policy=[off_policy("token_truncate", 0.0, 1.2), off_policy("token_mask", 0.7, 1.3),
                off_policy("sequence_truncate", 0.0, 1.1), off_policy("sequence_mask", 0.5, 2.0)],
    leave_one_out=leave_one_out(), batch_whitened=batch_whitened()), sys.stdout)
