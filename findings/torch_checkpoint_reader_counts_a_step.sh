#!/usr/bin/env bash
# torch 2.15.0: asking torch.distributed.checkpoint for the state of an optimizer that has made no step yet makes its first update smaller:
# 0.74 times with AdamW.
#
# get_optimizer_state_dict (and get_state_dict) reads as if it only read. Where the state is still empty it first makes the optimizer
# fill it, by a step with gradients and learning rate of zero, and leaves what that step left: moments of zero, but a count of 1.
# AdamW then corrects the moments of the first update as if they were those of the second, and so on: 0.744, 0.858, 0.910 of what is
# due, and a little too much from about the twelfth on. A run that saves a checkpoint of its start, or looks at the state to lay it out, is
# another run than one that does not, and two that should be one no longer agree bit by bit. optimizer.state_dict() changes nothing, nor
# does asking after a first step. Adafactor, NAdam and RAdam are hit as well, SGD with momentum is not. Seen 2026-11-30, PyPI
# torch 2.15.0, CPU, one constant gradient; sizes of updates 1, 2, 3, 4, ... 30 after asking, over those without:
#   AdamW, get_optimizer_state_dict   0.744 0.858 0.910 0.939 ... 1.012
#   AdamW, the same before step 2     1.000 1.000 1.000 1.000 ... 1.000
#   AdamW, optimizer.state_dict()     1.000 1.000 1.000 1.000 ... 1.000
#   RAdam, get_optimizer_state_dict   0.526 0.701 0.788 0.840 ... 1.032
#   SGD with momentum, the same       1.000 1.000 1.000 1.000 ... 1.000
# Fails when that changes. Installs 3 GB.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q --disable-pip-version-check torch==2.15.0 numpy==2.4.6
cat >"$work/count.py" <<'PY'
import sys

import torch
from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict

STEPS = 30


def updates(kind, ask, ask_before=0, **options):
    """The sizes of the updates under a gradient that never changes; `ask` is called before one of them."""
    model = torch.nn.Linear(3, 2, bias=False, dtype=torch.float64)
    torch.nn.init.ones_(model.weight)
    optimizer = kind(model.parameters(), lr=1e-3, **options)
    sizes = []
    for step in range(STEPS):
        before = model.weight.detach().clone()
        if step == ask_before:
            ask(model, optimizer)
            assert torch.equal(before, model.weight), "asking moved the weights"
        optimizer.zero_grad()
        model(torch.ones(1, 3, dtype=torch.float64)).sum().backward()
        optimizer.step()
        sizes.append((model.weight.detach() - before).norm().item())
    return sizes


def ratios(kind, ask, **options):
    return [a / b for a, b in zip(updates(kind, ask, **options), updates(kind, lambda model, optimizer: None))]


adamw = lambda parameters, lr: torch.optim.AdamW(parameters, lr=lr, weight_decay=0.0)
plain, momentum = torch.optim.Optimizer.state_dict, lambda parameters, lr: torch.optim.SGD(parameters, lr=lr, momentum=0.9)
cases = [
    ("AdamW, get_optimizer_state_dict", ratios(adamw, get_optimizer_state_dict), True),
    ("AdamW, the same before step 2", ratios(adamw, get_optimizer_state_dict, ask_before=1), False),
    ("AdamW, optimizer.state_dict()", ratios(adamw, lambda model, optimizer: optimizer.state_dict()), False),
    ("RAdam, get_optimizer_state_dict", ratios(torch.optim.RAdam, get_optimizer_state_dict), True),
    ("SGD with momentum, the same", ratios(momentum, get_optimizer_state_dict), False),
]
ok = True
for name, seen, hit in cases:
    print(f"{name:33} " + " ".join(f"{r:.3f}" for r in seen[:4]) + f" ... {seen[-1]:.3f}")
    ok &= seen[0] < 0.9 if hit else all(r == 1 for r in seen)
ok &= abs(cases[0][1][0] - (0.1 / 0.19) / (0.001 / 0.001999) ** 0.5) < 1e-4  # the corrections of step 2
sys.exit(0 if ok else "the behaviour changed")
PY
"$work/venv/bin/python" "$work/count.py" 2>"$work/warnings" || { tail -5 "$work/warnings" >&2; exit 1; }
