"""Numbers for tests/learner/algorithms/policy_loss_test.cc: the formulas written once more with torch tensors in float64, derivatives
by autograd. Run: python tests/golden/make_policy_loss_golden.py > tests/golden/policy_loss.json (torch 2.11)."""
import itertools
import json

import torch

torch.set_default_dtype(torch.float64)


def surrogate(logprob, old, advantage, low, high, dual):
    lp = torch.tensor(logprob, requires_grad=True)
    ratio = torch.exp(lp - old)
    loss = torch.max(-advantage * ratio, -advantage * torch.clamp(ratio, 1 - low, 1 + high))
    if dual > 0 and advantage < 0:
        loss = torch.min(loss, torch.tensor(-dual * advantage))
    (grad,) = torch.autograd.grad(loss, lp, allow_unused=True) if loss.requires_grad else (None,)
    return loss.item(), 0.0 if grad is None else grad.item()


def kl(name, logprob, reference):
    lp = torch.tensor(logprob, requires_grad=True)
    d = lp - reference
    if name == "k1":
        value = d
    elif name == "k2":
        value = d ** 2 / 2
    else:
        x = torch.clamp(reference - lp, -20, 20)
        value = torch.clamp(torch.exp(x) - x - 1, -10, 10)
    (grad,) = torch.autograd.grad(value, lp)
    return value.item(), grad.item()


cases = []
for lp, old, a, (low, high, dual) in itertools.product(
        [-4.7, -2.31, -1.03, -0.52, -0.017], [-3.9, -2.3, -1.0, -0.4], [-1.7, -0.3, 0.45, 2.2],
        [(0.2, 0.2, 0.0), (0.2, 0.28, 0.0), (0.2, 0.28, 3.0), (3e-4, 4e-4, 0.0)]):
    value, derivative = surrogate(lp, old, a, low, high, dual)
    cases.append(dict(logprob=lp, old=old, advantage=a, low=low, high=high, dual=dual, value=value, derivative=derivative))
kls = []
for name, lp, ref in itertools.product(["k1", "k2", "k3"], [-9.0, -4.7, -2.31, -1.03, -0.52, -0.017],
                                       [-30.0, -5.5, -2.2, -1.0, -0.4, -0.03]):
    value, derivative = kl(name, lp, ref)
    kls.append(dict(estimator=name, logprob=lp, reference=ref, value=value, derivative=derivative))
print(json.dumps(dict(surrogate=cases, kl=kls)))
