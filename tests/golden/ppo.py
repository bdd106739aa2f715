"""Numbers for tests/learner/algorithms/ppo_parts_test.cc, in float64 with torch: GAE from its definition (a sum over k, not the
recursion), whitening, value loss and gradient by autograd, the adaptive KL coefficient, running moments, and one whole PPO
loss (policy and value part) with its gradients by log-prob and value.
Run: python tests/golden/ppo.py > tests/golden/ppo.json (torch 2.11). TRL 1.16 has no PPO any more, so nothing is imported
from it."""
import itertools
import json

import torch

torch.set_default_dtype(torch.float64)
gen = torch.Generator().manual_seed(20)


def rand(*shape):
    return torch.randn(*shape, generator=gen)


def gae(rewards, values, gamma, lam):
    """Definition: A_t = sum_k (gamma lam)^k delta_{t+k}; the state after the last token is worth 0."""
    n = len(rewards)
    following = torch.cat([values[1:], torch.zeros(1)])
    delta = rewards + gamma * following - values
    powers = (gamma * lam) ** torch.arange(n)
    advantages = torch.stack([(powers[: n - t] * delta[t:]).sum() for t in range(n)])
    return advantages, advantages + values


def value_loss(v, old, target, clip):
    v = torch.tensor(v, requires_grad=True)
    plain = (v - target) ** 2
    loss = plain
    if clip > 0:
        bounded = torch.min(torch.max(v, torch.tensor(old - clip)), torch.tensor(old + clip))
        loss = torch.max(plain, (bounded - target) ** 2)
    loss = loss / 2
    (grad,) = torch.autograd.grad(loss, v)
    return loss.item(), grad.item()


out = dict(gae=[], whiten=[], value_loss=[], controller=[], moments=[], explained_variance=[], loss=[])
for n, gamma, lam in itertools.product([1, 2, 7, 40], [1.0, 0.99], [1.0, 0.95, 0.0]):
    rewards, values = rand(n), rand(n)
    a, r = gae(rewards, values, gamma, lam)
    out["gae"].append(dict(rewards=rewards.tolist(), values=values.tolist(), gamma=gamma, lam=lam, advantages=a.tolist(),
                           returns=r.tolist()))
for lengths in [[3, 1, 5], [2], [10, 20, 7, 1]]:
    rows = [3 * rand(n) + 2 for n in lengths]
    flat = torch.cat(rows)
    white = (flat - flat.mean()) * torch.rsqrt(flat.var(unbiased=True) + 1e-8)
    out["whiten"].append(dict(rows=[r.tolist() for r in rows], white=[r.tolist() for r in white.split(lengths)]))
    values = [r + rand(len(r)) for r in rows]
    ev = 1 - (flat - torch.cat(values)).var() / flat.var()
    out["explained_variance"].append(dict(returns=[r.tolist() for r in rows], values=[v.tolist() for v in values],
                                          value=ev.item()))
for v, old, target, clip in itertools.product([-1.3, -0.21, 0.07, 0.9], [-0.9, -0.1, 0.31], [-1.1, 0.013, 0.77],
                                              [0.0, 0.2, 0.5]):
    value, derivative = value_loss(v, old, target, clip)
    out["value_loss"].append(dict(value_now=v, old=old, target=target, clip=clip, value=value, derivative=derivative))
for target, horizon in [(0.1, 10000.0), (6.0, 500.0)]:
    coef, history = 0.2, []
    for kl, n in zip((target * (1 + 0.4 * rand(12))).tolist() + [0.0, 50.0], [64, 8] * 7):
        error = min(max(kl / target - 1, -0.2), 0.2)
        coef *= 1 + error * n / horizon
        history.append(dict(kl=kl, n=n, coef=coef))
    out["controller"].append(dict(start=0.2, target=target, horizon=horizon, history=history))
for clip in [0.0, 1.0]:
    seen, batches = [], []
    for n in [1, 4, 9, 2]:
        scores = 2 * rand(n) + 5
        seen += scores.tolist()
        everything = torch.tensor(seen)
        mean, std = everything.mean(), everything.std() if len(seen) > 1 else torch.tensor(1.0)
        bound = (lambda x: x.clamp(-clip, clip)) if clip > 0 else (lambda x: x)
        batches.append(dict(scores=scores.tolist(), mean=mean.item(), std=std.item(), scale=bound(scores / std).tolist(),
                            whiten=bound((scores - mean) / std).tolist()))
    out["moments"].append(dict(clip=clip, batches=batches))

# A whole batch: scores at the last token, k1 in the reward, GAE, whitening, then policy loss (asymmetric and dual clip,
# entropy bonus) and value loss, both a mean over all tokens.
for gamma, lam, low, high, dual, value_clip, kl_coef, entropy_coef in [
        (1.0, 0.95, 0.2, 0.2, 0.0, 0.2, 0.05, 0.0), (0.99, 1.0, 0.2, 0.28, 3.0, 0.5, 0.1, 0.01)]:
    lengths = [4, 1, 9, 6]
    old = [-2 * torch.rand(n, generator=gen) for n in lengths]
    ref = [o + 0.3 * rand(len(o)) for o in old]
    scores = rand(len(lengths)).tolist()
    old_values = [0.5 * rand(n) for n in lengths]
    new = [(o + 0.3 * rand(len(o))).requires_grad_() for o in old]
    new_values = [(v + 0.4 * rand(len(v))).requires_grad_() for v in old_values]
    entropy = [torch.rand(n, generator=gen).requires_grad_() for n in lengths]
    advantages, returns, kls = [], [], []
    for o, r, s, v in zip(old, ref, scores, old_values):
        kl = o - r
        kls.append(kl.sum().item())
        rewards = -kl_coef * kl
        rewards[-1] += s
        a, ret = gae(rewards, v, gamma, lam)
        advantages.append(a)
        returns.append(ret)
    flat = torch.cat(advantages)
    advantages = ((flat - flat.mean()) * torch.rsqrt(flat.var(unbiased=True) + 1e-8))
    lp, o = torch.cat(new), torch.cat(old)
    ratio = torch.exp(lp - o)
    loss = torch.max(-advantages * ratio, -advantages * torch.clamp(ratio, 1 - low, 1 + high))
    if dual > 0:
        loss = torch.where(advantages < 0, torch.min(loss, -dual * advantages), loss)
    policy = (loss - entropy_coef * torch.cat(entropy)).mean()
    nv, ov, ret = torch.cat(new_values), torch.cat(old_values), torch.cat(returns)
    bounded = torch.max(torch.min(nv, ov + value_clip), ov - value_clip)
    value = 0.5 * torch.max((nv - ret) ** 2, (bounded - ret) ** 2).mean()
    policy.backward()
    value.backward()
    out["loss"].append(dict(
        gamma=gamma, lam=lam, clip_low=low, clip_high=high, dual_clip=dual, value_clip=value_clip, kl_coef=kl_coef,
        entropy_coef=entropy_coef, old=[x.tolist() for x in old], ref=[x.tolist() for x in ref], scores=scores,
        old_values=[x.tolist() for x in old_values], new=[x.tolist() for x in new],
        new_values=[x.tolist() for x in new_values], entropy=[x.tolist() for x in entropy],
        advantages=[x.tolist() for x in advantages.split(lengths)], returns=[x.tolist() for x in returns], kl=kls,
        policy_loss=policy.item(), value_loss=value.item(), g_logprob=[x.grad.tolist() for x in new],
        g_value=[x.grad.tolist() for x in new_values],
        g_entropy=[(x.grad if x.grad is not None else torch.zeros_like(x)).tolist() for x in entropy]))
print(json.dumps(out))
