"""Numbers for tests/learner/algorithms/ppo_model_test.cc: one whole PPO batch on tests/golden/tiny_llama with transformers and autograd.
Policy: tiny_llama. Reference: every weight times 0.95 in float32. Critic: the policy's trunk with the head written below.
In float64, and the reference's own float32-to-float64 gap, which sets the test's tolerance.
Run: python tests/golden/ppo_model.py > tests/golden/ppo_model.json   (torch 2.11, transformers 5.23)"""
import json
import pathlib

import torch
from transformers import LlamaForCausalLM

HERE = pathlib.Path(__file__).resolve().parent
gen = torch.Generator().manual_seed(77)
options = dict(temperature=0.9, gamma=0.98, lam=0.9, kl_coef=0.1, clip_low=0.2, clip_high=0.28, dual_clip=3.0,
               entropy_coef=0.01)
prompts = [3, 5, 2, 4]
sequences = [torch.randint(3, 31, (p + n,), generator=gen) for p, n in zip(prompts, (6, 1, 9, 12))]
scores = [0.75, -0.5, 1.25, 0.125]
head = (0.3 * torch.randn(32, generator=gen)).float()


def load(dtype, scale=None):
    m = LlamaForCausalLM.from_pretrained(HERE / "tiny_llama", dtype=torch.float32, attn_implementation="eager")
    if scale is not None:
        with torch.no_grad():
            for p in m.parameters():
                p.mul_(scale)
    return m.to(dtype)


def rows(m, sequence, prompt):
    """Hidden states before every answer token, and log-probs and entropies of these tokens."""
    hidden = m.model(sequence[None]).last_hidden_state[0, prompt - 1:-1]
    table = torch.log_softmax(m.lm_head(hidden) / options["temperature"], -1)
    lp = table.gather(1, sequence[prompt:, None])[:, 0]
    return hidden, lp, -(table.exp() * table).sum(-1)


with torch.no_grad():  # what the actor recorded: not quite this policy, so that ratios are not 1
    policy = load(torch.float64)
    old = [(rows(policy, s, p)[1] + 0.25 * torch.randn(len(s) - p, generator=gen)).clamp(max=-1e-3).float()
           for s, p in zip(sequences, prompts)]


def run(dtype):
    policy, critic, reference = load(dtype), load(dtype), load(dtype, 0.95)
    score = head.to(dtype).requires_grad_()
    values = [rows(critic, s, p)[0] @ score for s, p in zip(sequences, prompts)]
    advantages, returns, kl = [], [], 0.0
    with torch.no_grad():
        for s, p, o, v, r in zip(sequences, prompts, old, values, scores):
            d = o.to(dtype) - rows(reference, s, p)[1]
            kl += d.sum().item() / len(sequences)
            rewards = -options["kl_coef"] * d
            rewards[-1] += r
            following = torch.cat([v[1:], v.new_zeros(1)])
            delta = rewards + options["gamma"] * following - v
            a, carry = torch.zeros_like(delta), 0.0
            for t in reversed(range(len(delta))):
                carry = delta[t] + options["gamma"] * options["lam"] * carry
                a[t] = carry
            advantages.append(a)
            returns.append(a + v)
        a = torch.cat(advantages)
        a = (a - a.mean()) * torch.rsqrt(a.var(unbiased=True) + 1e-8)
    lp, entropy = (torch.cat(x) for x in zip(*[rows(policy, s, p)[1:] for s, p in zip(sequences, prompts)]))
    ratio = torch.exp(lp - torch.cat(old).to(dtype))
    loss = torch.max(-a * ratio, -a * ratio.clamp(1 - options["clip_low"], 1 + options["clip_high"]))
    loss = torch.where(a < 0, torch.min(loss, -options["dual_clip"] * a), loss)
    policy_loss = (loss - options["entropy_coef"] * entropy).mean()
    value_loss = 0.5 * ((torch.cat(values) - torch.cat(returns)) ** 2).mean()
    policy_loss.backward()
    value_loss.backward()
    flat = torch.cat([v.detach() for v in values])
    ret = torch.cat(returns)
    grads = {"policy." + n: p.grad.double().flatten() for n, p in policy.named_parameters()}
    grads |= {"critic." + n: p.grad.double().flatten() for n, p in critic.named_parameters() if n != "lm_head.weight"}
    grads["critic.score.weight"] = score.grad.double()
    numbers = dict(policy_loss=policy_loss.item(), value_loss=value_loss.item(), kl=kl,
                   explained_variance=(1 - (ret - flat).var() / ret.var()).item(), entropy=entropy.mean().item(),
                   ratio=ratio.mean().item())
    return numbers, grads


n64, g64 = run(torch.float64)
n32, g32 = run(torch.float32)
print(json.dumps(dict(
    options=options, prompts=prompts, sequences=[s.tolist() for s in sequences], scores=scores, head=head.tolist(),
    old=[o.tolist() for o in old], numbers=n64, gaps={k: abs(n64[k] - n32[k]) for k in n64},
    gradients={n: dict(norm=g.norm().item(), gap=(g - g32[n]).norm().item(), stride=max(1, len(g) // 32),
                       values=[float(f"{v:.12g}") for v in g[:: max(1, len(g) // 32)].tolist()]) for n, g in g64.items()})))
