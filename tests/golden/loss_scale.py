"""Writes loss_scale.json: what torch.amp.GradScaler does over made sequences of overflows.

Growth 2, backoff 1/4 and an interval, as LossScale (learner/update/guard/loss_scale.h); what GradScaler lacks, a largest scale, is set
behind each update that went beyond it. A parameter gets the gradients 1 or infinity, so that GradScaler finds, skips and steps itself.
Kept of each update: whether it overflows, the scale behind it, its counter, and whether the step was made. Run: .env/bin/python tests/golden/loss_scale.py
"""
import json
import pathlib
import random

import torch


def states(largest, interval, overflows):
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([weight], lr=1.0)
    scaler = torch.amp.GradScaler("cpu", init_scale=largest, growth_factor=2.0, backoff_factor=0.25, growth_interval=interval)
    out = []
    for overflow in overflows:
        scaler.scale(torch.zeros(1))  # makes its tensors
        weight.grad = torch.full((1,), float("inf") if overflow else 1.0)
        before = weight.item()
        scaler.step(optimizer)
        scaler.update()
        if scaler.get_scale() > largest:
            scaler.update(largest)
        out.append([overflow, scaler.get_scale(), scaler._get_growth_tracker(), weight.item() != before])
    return out


def sequences():
    yield 65536.0, 4, [False] * 9 + [True] + [False] * 13 + [True, True] + [False] * 25  # at the cap, and back to it
    yield 65536.0, 1, [True, True, True, False, False, True, False, False, False, False, False]
    yield 1024.0, 200, [False] * 150 + [True] + [False] * 199 + [True] + [False] * 450
    generator = random.Random(7)
    for largest, interval, share in [(65536.0, 3, 0.15), (2.0**24, 5, 0.1), (4096.0, 2, 0.3)]:
        made, scale, since = [], largest, 0
        for _ in range(400):
            overflow = generator.random() < share and scale >= 4
            since = 0 if overflow else since + 1
            if overflow:
                scale /= 4
            elif since == interval:
                scale, since = min(2 * scale, largest), 0
            made.append(overflow)
        yield largest, interval, made


def main():
    cases = [dict(largest=largest, interval=interval, updates=states(largest, interval, overflows))
             for largest, interval, overflows in sequences()]
    pathlib.Path(__file__).with_suffix(".json").write_text(json.dumps(cases) + "\n")


main()
