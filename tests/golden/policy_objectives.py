"""Losses, gradients, advantages and masks of TRL 1.16's GRPOTrainer and verl 0.9.1's core_algos, for
tests/learner/algorithms/policy_objectives_test.cc.

Everything is their own code in float64 on given log-probs: the trainer's _compute_loss on an object that was never set up for
training, verl's registered functions with a plain namespace for their configuration. Of code that lies in the middle of their
generation (the advantages of TRL) the source lines themselves are run. verl's .float() of masks only changes whole numbers.
Run with trl 1.16 and verl 0.9.1: python3 tests/golden/policy_objectives.py
"""
import collections
import inspect
import json
import pathlib
import textwrap
import types

import numpy as np
import torch
import trl
import verl
from trl.trainer import grpo_trainer
from trl.trainer.grpo_trainer import GRPOTrainer
from verl.trainer.ppo import core_algos, rollout_corr_helper

D = torch.float64
torch.set_default_dtype(D)  # for the constants in their code
torch.manual_seed(11)
B, T, MAX = 4, 6, 9
LENGTHS = [6, 3, 5, 2]


def mask_of(lengths, width):
    mask = torch.zeros(len(lengths), width, dtype=D)
    for row, n in enumerate(lengths):
        mask[row, :n] = 1
    return mask


def ragged(x, lengths):
    return [row[:n].tolist() for row, n in zip(x, lengths)]


class Fake:
    num_processes = 1
    process_index = 0
    sync_gradients = True

    def gather(self, x):
        return x

    gather_for_metrics = gather

    def pad_across_processes(self, x, **_):
        return x

    def reduce(self, x, reduction="sum"):
        return x


def trainer_of(logps, entropies, o):
    t = GRPOTrainer.__new__(GRPOTrainer)
    t.loss_type = o.get("loss_type", "grpo")
    t.importance_sampling_level = o.get("level", "token")
    t.epsilon_low, t.epsilon_high = o.get("low", 0.2), o.get("high", 0.2)
    t.beta = o.get("beta", 0.0)
    t.use_vllm = "importance" in o
    t.vllm_importance_sampling_correction = t.use_vllm
    t.max_completion_length = MAX
    t.top_entropy_quantile = o.get("quantile", 1.0)
    t.off_policy_mask_threshold = o.get("threshold")
    t.aux_loss_enabled = False
    t.entropy_coef = o.get("entropy_coef", 0.0)
    t.use_adaptive_entropy = "entropy_target" in o
    t._entropy_bonus_enabled = t.use_adaptive_entropy
    t._last_world_entropy = float("inf")
    t._entropy_window_stats = None
    t.current_gradient_accumulation_steps = 1
    t.args = types.SimpleNamespace(
        delta=o.get("delta"), use_bias_correction_kl=o.get("bias_correction", False), steps_per_generation=1,
        sapo_temperature_pos=1.0, sapo_temperature_neg=1.05, vespo_k_pos=2.0, vespo_lambda_pos=3.0, vespo_k_neg=3.0,
        vespo_lambda_neg=2.0, entropy_target=o.get("entropy_target"), entropy_coef_delta=0.005, entropy_coef_min=0.0,
        entropy_coef_max=1.0)
    t.model = types.SimpleNamespace(training=True)
    t.accelerator = Fake()
    t._metrics = {"train": collections.defaultdict(list), "eval": collections.defaultdict(list)}
    t._get_per_token_logps_and_entropies = lambda *a, **k: (logps, entropies, None)
    return t


def draw(lengths, width, spread):
    logps = (-2 * torch.rand(len(lengths), width, dtype=D) - 0.05).requires_grad_(True)
    old = (logps.detach() + spread * torch.randn(len(lengths), width, dtype=D)).clamp(max=-1e-3)
    return logps, old


def trl_case(name, objective, aggregation, spread=0.3, lengths=LENGTHS, **o):
    mask = mask_of(lengths, T)
    logps, old = draw(lengths, T, spread)
    advantages = o.get("advantages")
    advantages = torch.randn(len(lengths), dtype=D) if advantages is None else torch.tensor(advantages, dtype=D)
    entropies = 3 * torch.rand(len(lengths), T, dtype=D)
    if "importance" in o:
        o["importance"] = 1 + (o["importance"] - 1) * mask  # padding is sampled by nobody
    t = trainer_of(logps, entropies, o)
    ids = torch.zeros(len(lengths), T, dtype=torch.long)
    inputs = dict(prompt_ids=ids[:, :1], prompt_mask=ids[:, :1] + 1, completion_ids=ids, completion_mask=mask,
                  advantages=advantages, old_per_token_logps=old, num_items_in_batch=mask.sum())
    reference = None
    if t.beta:
        reference = (logps.detach() + 0.5 * torch.randn(len(lengths), T, dtype=D)).clamp(max=-1e-3)
        inputs["ref_per_token_logps"] = reference
    sampled = None
    if t.off_policy_mask_threshold is not None:
        sampled = (logps.detach() + 0.3 * torch.randn(len(lengths), 1, dtype=D)).clamp(max=-1e-3)
        inputs["sampling_per_token_logps"] = sampled
    if "importance" in o:
        inputs["importance_sampling_ratio"] = o["importance"]
    loss = t._compute_loss(None, inputs)
    loss.backward()
    out = dict(name=name, source="TRL", objective=objective, aggregation=aggregation, level=t.importance_sampling_level,
               low=t.epsilon_low, high=t.epsilon_high, logps=ragged(logps.detach(), lengths), old=ragged(old, lengths),
               advantages=[[a] * n for a, n in zip(advantages.tolist(), lengths)], loss=loss.item(),
               gradient=ragged(logps.grad, lengths))
    if reference is not None:
        out |= dict(beta=t.beta, bias_correction=t.args.use_bias_correction_kl, reference=ragged(reference, lengths))
    if sampled is not None:
        out |= dict(threshold=t.off_policy_mask_threshold, sampled=ragged(sampled, lengths))
    if t.top_entropy_quantile < 1:
        out |= dict(quantile=t.top_entropy_quantile, entropies=ragged(entropies, lengths))
    if "importance" in o:
        out["importance"] = ragged(o["importance"], lengths)
    return out


class Config(types.SimpleNamespace):
    def get(self, key, default=None):
        return getattr(self, key, default)


# isinstance(config, ActorConfig) is asked by some of them
class Actor(core_algos.ActorConfig):
    def __init__(self, **fields):
        for key, value in fields.items():
            object.__setattr__(self, key, value)

    def get(self, key, default=None):
        return self.__dict__.get(key, default)


def verl_case(name, loss, objective, aggregation="token", spread=0.3, lengths=LENGTHS, width=T, per_token=False, policy_loss=None,
              importance=None, low=0.2, high=0.2, seed=None, **fields):
    if seed is not None:
        torch.manual_seed(seed)
    mask = mask_of(lengths, width)
    logps, old = draw(lengths, width, spread)
    advantages = torch.randn(len(lengths), width if per_token else 1, dtype=D).expand(len(lengths), width).clone()
    config = Actor(clip_ratio=0.2, clip_ratio_low=low, clip_ratio_high=high, global_batch_info={},
                   policy_loss=Config(**(policy_loss or {})), **fields)
    modes = {"token": "token-mean", "sequence_sum": "seq-mean-token-sum", "sequence": "seq-mean-token-mean"}
    value, _ = core_algos.get_policy_loss_fn(loss)(
        old_log_prob=old, log_prob=logps, advantages=advantages, response_mask=mask, loss_agg_mode=modes[aggregation],
        config=config, rollout_is_weights=importance)
    value.backward()
    out = dict(name=name, source="verl", objective=objective, aggregation=aggregation, level="token", low=low, high=high,
               logps=ragged(logps.detach(), lengths), old=ragged(old, lengths), advantages=ragged(advantages, lengths),
               loss=value.item(), gradient=ragged(logps.grad, lengths))
    if importance is not None:
        out["importance"] = ragged(importance, lengths)
    return out | {k: v for k, v in (policy_loss or {}).items() if v is not None} | {"dual": fields.get("clip_ratio_c", 0)}


def kl_cases():
    out = []
    for penalty in ["k1", "abs", "k2", "k3", "k1+", "abs+", "k3+"]:
        lp = (-2 * torch.rand(7, dtype=D)).requires_grad_(True)
        ref = (lp.detach() + 0.7 * torch.randn(7, dtype=D)).clamp(max=0)
        value = core_algos.kl_penalty(lp, ref, penalty)
        value.sum().backward()
        out.append(dict(estimator=penalty.rstrip("+"), straight_through=penalty.endswith("+"), logprob=lp.tolist(),
                        reference=ref.tolist(), value=value.tolist(), derivative=lp.grad.tolist()))
    return out


GROUPS = [4, 4, 3]
INDEX = np.array([i for i, n in enumerate(GROUPS) for _ in range(n)], dtype=object)


def by_group(x):
    out, at = [], 0
    for n in GROUPS:
        out.append(x[at:at + n])
        at += n
    return out


def verl_advantages():
    lengths = [6, 3, 5, 2, 1, 4, 6, 2, 3, 5, 4]
    mask = mask_of(lengths, T)
    rewards = torch.randn(len(lengths), dtype=D)
    rewards[1] = rewards[0]
    token_rewards = torch.zeros(len(lengths), T, dtype=D)
    for i, n in enumerate(lengths):
        token_rewards[i, n - 1] = rewards[i]
    out = dict(rewards=by_group(rewards.tolist()), lengths=by_group(lengths))
    for name, estimator, config in [
            ("group_mean_batch_std", "reinforce_plus_plus_baseline", {}), ("optimal", "opo", {}),
            ("pass_k_plain", "grpo_passk", {"norm_adv_by_std_in_grpo": False}), ("pass_k", "grpo_passk", {})]:
        advantage, _ = core_algos.get_adv_estimator_fn(estimator)(
            token_level_rewards=token_rewards.clone(), response_mask=mask, index=INDEX, config=Config(**config))
        out[name] = by_group(advantage[:, 0].tolist())
    baselines = torch.randn(len(lengths), dtype=D)
    advantage, _ = core_algos.get_adv_estimator_fn("remax")(
        token_level_rewards=token_rewards.clone(), reward_baselines=baselines, response_mask=mask, config=Config())
    out["greedy"] = by_group(advantage[:, 0].tolist())
    out["greedy_baselines"] = by_group(baselines.tolist())
    return out


def trl_advantages():
    """The lines of GRPOTrainer._generate_and_score_completions between the rewards and the slice of this process."""
    source = inspect.getsource(GRPOTrainer._generate_and_score_completions)
    begin = source.index("        unscorable_mask = ")
    end = source.index("        # Slice to keep only the local part of the data")
    code = compile(textwrap.dedent(source[begin:end]), "trl", "exec")
    rows = 8
    rewards = torch.randn(rows, 2, dtype=D)
    rewards[5, 1] = float("nan")  # not scored by the second
    rewards[6] = float("nan")  # by none
    weights = torch.tensor([1.0, 0.4], dtype=D)
    out = dict(weights=weights.tolist(), rewards=[[None if np.isnan(x) else x for x in row] for row in rewards.tolist()])
    for name, aggregation, scale in [("std_over_batch", "sum_then_normalize", "batch"),
                                     ("normalize_then_sum", "normalize_then_sum", "group")]:
        me = types.SimpleNamespace(multi_objective_aggregation=aggregation, scale_rewards=scale, reward_weights=weights,
                                   reward_funcs=[0, 1])
        space = dict(vars(grpo_trainer), self=me, rewards_per_func=rewards.clone(), device="cpu", num_generations=4)
        exec(code, space)
        out[name] = space["advantages"].tolist()
    return out


def rejections():
    mask = mask_of(LENGTHS, T)
    out = []
    for mode, option, spread, floor, cap in [("geometric_mask", "seq_mean_k1", 0.2, 0.95, 1.06), ("kl_mask", "seq_mean_k3", 0.3, 0, 0.05)]:
        for _ in range(4):
            proximal, behaviour = (x.detach() for x in draw(LENGTHS, T, spread))
            threshold = f"{1 / cap}_{1 / floor}" if option.endswith("k1") else str(cap)
            kept, _ = rollout_corr_helper.compute_rollout_rejection_mask(proximal - behaviour, mask, option, threshold)
            out.append(dict(mode=mode, floor=floor, cap=cap, proximal=ragged(proximal, LENGTHS),
                            behaviour=ragged(behaviour, LENGTHS), weight=ragged(kept, LENGTHS)))
    return out


def entropy_control():
    """The coefficient over updates of given entropies, and what each of them applied."""
    t, steps = None, []
    for entropy in [0.3, 0.15, 0.12, 0.25, 0.19, 0.21, 0.2]:
        logps = torch.zeros(1, 1, dtype=D, requires_grad=True)
        entropies = torch.full((1, 1), entropy, dtype=D, requires_grad=True)
        fresh = trainer_of(logps, entropies, dict(entropy_target=0.2, entropy_coef=0.01))
        if t is not None:
            fresh.entropy_coef, fresh._last_world_entropy = t.entropy_coef, t._last_world_entropy
        t = fresh
        ids = torch.zeros(1, 1, dtype=torch.long)
        loss = t._compute_loss(None, dict(prompt_ids=ids, prompt_mask=ids + 1, completion_ids=ids, completion_mask=ids + 1,
                                          advantages=torch.zeros(1, dtype=D), num_items_in_batch=torch.tensor(1)))
        loss.backward()
        steps.append(dict(entropy=entropy, applied=-entropies.grad.item(), coefficient=t.entropy_coef))
    return dict(begin=0.01, target=0.2, steps=steps)


def main():
    importance = 0.5 + torch.rand(B, T, dtype=D)
    long = [40, 33, 48, 27]
    objectives = [
        trl_case("bnpo", "clip", "token", loss_type="bnpo"),
        trl_case("luspo", "clip", "sequence_sum", loss_type="luspo", level="sequence"),
        trl_case("luspo of tokens", "clip", "sequence_sum", loss_type="luspo"),
        trl_case("sapo", "sapo", "sequence", loss_type="sapo", spread=0.9),
        trl_case("sapo of sequences", "sapo", "sequence", loss_type="sapo", level="sequence"),
        trl_case("sapo with importance", "sapo", "sequence", loss_type="sapo", importance=importance),
        trl_case("vespo", "vespo", "token", loss_type="vespo"),
        trl_case("vespo with importance", "vespo", "token", loss_type="vespo", importance=importance),
        trl_case("cispo, TRL's bound", "cispo", "token", loss_type="cispo", low=1.0, high=3.0, spread=1.5),
        verl_case("cispo, verl's bounds", "cispo", "cispo", spread=0.6, high=0.3),
        verl_case("vanilla", "vanilla", "clip", spread=0.6, clip_ratio_c=3.0, importance=importance),
        verl_case("sequence sums", "vanilla", "clip", "sequence_sum", clip_ratio_c=3.0),
        verl_case("gpg", "gpg", "policy_gradient", per_token=True, importance=importance),
        verl_case("dro", "dro", "dro", per_token=True, policy_loss=dict(dro_beta=0.3)),
        verl_case("dppo_tv", "dppo_tv", "dppo_tv", per_token=True, low=0.02, high=0.03),
        verl_case("dppo_tv with a low cap", "dppo_tv", "dppo_tv", per_token=True, spread=0.8, clip_ratio_c=1.3),
        verl_case("dppo_kl", "dppo_kl", "dppo_kl", per_token=True, low=0.01, high=0.02),
        verl_case("geo_mean", "geo_mean", "geometric", "sequence", lengths=long, width=48, low=0.2, high=0.3),
        verl_case("geo_mean with importance", "geo_mean", "geometric", "sequence", lengths=long, width=48, low=0.2, high=0.3,
                  importance=0.5 + torch.rand(4, 48, dtype=D)),
        # all candidates are taken: which of them chance would pick is theirs
        verl_case("clip_cov", "clip_cov", "clip_cov", per_token=True, policy_loss=dict(
            clip_cov_ratio=0.9, clip_cov_lb=0.1, clip_cov_ub=0.9, kl_cov_ratio=None, ppo_kl_coef=None)),
        verl_case("kl_cov", "kl_cov", "kl_cov", per_token=True, policy_loss=dict(
            clip_cov_ratio=None, clip_cov_lb=None, clip_cov_ub=None, kl_cov_ratio=0.3, ppo_kl_coef=0.7)),
        trl_case("k3", "clip", "sequence", loss_type="grpo", beta=0.04),
        trl_case("k3 times the ratio", "clip", "sequence", loss_type="grpo", beta=0.04, bias_correction=True),
        trl_case("k3 times the ratio, dapo", "clip", "token", loss_type="dapo", beta=0.3, bias_correction=True, high=0.28),
        trl_case("k3 times the ratio of a sequence", "clip", "sequence", loss_type="grpo", beta=0.3, bias_correction=True,
                 level="sequence"),
        trl_case("sequence mask", "clip", "sequence", loss_type="grpo", threshold=0.02, advantages=[-1.0, -0.5, 0.7, -0.3]),
        trl_case("entropy quantile", "clip", "token", loss_type="dapo", quantile=0.4),
    ]
    # Cut answers: TRL zeroes their mask; here they are not in the batch.
    cut = trl_case("cut answers", "clip", "token", loss_type="dapo", lengths=[6, 0, 5, 0])
    for key in ("logps", "old", "advantages", "gradient"):
        cut[key] = [row for row in cut[key] if row]
    objectives.append(cut)
    out = dict(trl=trl.__version__, verl=verl.__version__, max_tokens=MAX, objectives=objectives, kl=kl_cases(),
               verl_advantages=verl_advantages(), trl_advantages=trl_advantages(), rejections=rejections(),
               entropy_control=entropy_control())
    pathlib.Path(__file__).with_suffix(".json").write_text(json.dumps(out) + "\n")
    print(f"{len(objectives)} objectives from TRL {trl.__version__} and verl {verl.__version__}")


if __name__ == "__main__":
    main()
