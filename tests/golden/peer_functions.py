"""Advantages, off-policy weights, a divergence and the reference's synchronisation by TRL 1.16's and verl 0.9.1's own code, for
tests/learner/algorithms/peer_functions_test.cc, tests/learner/distill/divergence_test.cc and tests/learner/update/reference_policy_test.cc.

Everything in float64: their functions on given numbers; of TRL's advantages, which stand in the middle of its generation, the source
lines themselves. verl's forward KL casts to float32; that cast alone is switched off. (Objectives: policy_objectives.py.)
Run with trl 1.16 and verl 0.9.1: cd tests/golden && python3 peer_functions.py
"""
import inspect
import json
import pathlib
import textwrap
import types

import numpy as np
import torch
import trl
import verl
from policy_objectives import D, GROUPS, INDEX, LENGTHS, T, Config, by_group, draw, mask_of, ragged
from trl.trainer import grpo_trainer, rloo_trainer
from trl.trainer.callbacks import SyncRefModelCallback
from verl.trainer.distillation.fsdp import losses as distillation
from verl.trainer.ppo import core_algos, rollout_corr_helper

torch.manual_seed(31)


def lines_of(cls, begin, end):
    source = inspect.getsource(cls._generate_and_score_completions)
    first = source.index(begin)
    return compile(textwrap.dedent(source[first:source.index(end, first)]), cls.__name__, "exec")


def trl_group():
    """GRPOTrainer's scale_rewards "group" and "none", RLOOTrainer's leave one out; the sixth answer is not scored."""
    rewards = torch.randn(8, 1, dtype=D)
    rewards[5] = float("nan")
    out = dict(rewards=[None if np.isnan(x) else x for x in rewards[:, 0].tolist()], size=4)
    code = lines_of(grpo_trainer.GRPOTrainer, "        unscorable_mask = ", "        # Slice to keep only the local part of the data")
    for scale in ("group", "none"):
        me = types.SimpleNamespace(multi_objective_aggregation="sum_then_normalize", scale_rewards=scale,
                                   reward_weights=torch.ones(1, dtype=D), reward_funcs=[0])
        space = dict(vars(grpo_trainer), self=me, rewards_per_func=rewards.clone(), device="cpu", num_generations=4)
        exec(code, space)
        out[scale] = space["advantages"].tolist()
    code = lines_of(rloo_trainer.RLOOTrainer, "        grouped_rewards = rewards.view", "        # Slice to keep only the local part")
    space = dict(vars(rloo_trainer), self=types.SimpleNamespace(normalize_advantages=False), rewards=rewards[:, 0].clone(),
                 num_generations=4)
    exec(code, space)
    out["leave_one_out"] = space["advantages"].tolist()
    return out


def verl_groups():
    rows = len(INDEX)
    lengths = [6, 3, 5, 2, 1, 4, 6, 2, 3, 5, 4]
    mask = mask_of(lengths, T)
    rewards = torch.randn(rows, dtype=D)
    at_the_end = torch.zeros(rows, T, dtype=D)
    for i, n in enumerate(lengths):
        at_the_end[i, n - 1] = rewards[i]
    out = dict(rewards=by_group(rewards.tolist()), lengths=by_group(lengths))
    for name, estimator, options in [("group", "grpo", {}), ("group_plain", "grpo", dict(norm_adv_by_std_in_grpo=False)),
                                     ("leave_one_out", "rloo", {})]:
        advantage, _ = core_algos.get_adv_estimator_fn(estimator)(
            token_level_rewards=at_the_end.clone(), response_mask=mask, index=INDEX, config=Config(), **options)
        out[name] = by_group(advantage[:, 0].tolist())
    # REINFORCE++: the KL is in the tokens' rewards, as use_kl_in_reward lays it there.
    kl, coef = 0.1 * torch.randn(rows, T, dtype=D) * mask, 0.05
    advantage, _ = core_algos.get_adv_estimator_fn("reinforce_plus_plus")(
        token_level_rewards=at_the_end - coef * kl, response_mask=mask, config=Config(gamma=1.0))
    return out | dict(kl=ragged(kl, lengths), kl_coef=coef, reinforce_plus_plus=ragged(advantage, lengths), sizes=GROUPS)


def weights():
    """TIS and IcePop of tokens and of whole answers: the latter's mask is over the product of all tokens."""
    mask = mask_of(LENGTHS, T)
    out = []
    for mode, level, floor, cap in [("token_truncate", "token", 0.0, 1.2), ("token_mask", "token", 0.7, 1.3),
                                    ("sequence_truncate", "sequence", 0.0, 1.1), ("sequence_mask", "sequence", 0.5, 2.0)]:
        for _ in range(3):
            proximal, behaviour = (x.detach() for x in draw(LENGTHS, T, 0.4))
            weight, _ = rollout_corr_helper.compute_rollout_correction_weights(
                proximal - behaviour, mask, level, f"{floor}_{cap}" if mode.endswith("mask") else cap)
            out.append(dict(mode=mode, floor=floor, cap=cap, proximal=ragged(proximal, LENGTHS), behaviour=ragged(behaviour, LENGTHS),
                            weight=ragged(weight, LENGTHS)))
    return out


def forward_top_k():
    """verl's forward KL over the teacher's likeliest tokens. (Its trainer cuts a token's value at 0 behind this.)"""
    vocabulary, out = 11, []
    cast, torch.Tensor.float = torch.Tensor.float, lambda x: x
    try:
        for top_k in (1, 3, vocabulary):
            for _ in range(2):
                teacher = torch.log_softmax(2 * torch.randn(vocabulary, dtype=D), -1)
                logits = (2 * torch.randn(1, 1, vocabulary, dtype=D)).requires_grad_(True)
                best = torch.topk(teacher, top_k)
                jagged = lambda x: torch.nested.nested_tensor([x[None]], layout=torch.jagged)
                config = types.SimpleNamespace(distillation_loss=types.SimpleNamespace(log_prob_min_clamp=None))
                loss = distillation.compute_forward_kl_topk(logits, jagged(best.values), jagged(best.indices), config,
                                                            "thd")["distillation_losses"].sum()
                loss.backward()
                out.append(dict(kind="forward", beta=0.5, temperature=1.0, ids=best.indices.tolist(), teacher=teacher.tolist(),
                                logits=logits[0, 0].tolist(), loss=loss.item(), gradient=logits.grad[0, 0].tolist()))
    finally:
        torch.Tensor.float = cast
    return dict(vocab=vocabulary, cases=out)


def synchronised():
    policy, reference = torch.nn.Linear(5, 3, dtype=D), torch.nn.Linear(5, 3, dtype=D)
    flat = lambda m: torch.cat([p.detach().flatten() for p in m.parameters()]).tolist()
    out = dict(policy=flat(policy), reference=flat(reference), mix=0.6, steps=[])
    for _ in range(2):
        SyncRefModelCallback._sync_target_model(policy, reference, out["mix"])
        out["steps"].append(flat(reference))
    return out


def main():
    out = dict(trl=trl.__version__, verl=verl.__version__, trl_group=trl_group(), verl_groups=verl_groups(), weights=weights(),
               forward_top_k=forward_top_k(), synchronised=synchronised())
    pathlib.Path(__file__).with_suffix(".json").write_text(json.dumps(out) + "\n")
    print(f"from TRL {trl.__version__} and verl {verl.__version__}: {', '.join(out)}")


if __name__ == "__main__":
    main()
