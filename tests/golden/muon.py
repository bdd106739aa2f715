"""Writes muon.json: Muon's updates of matrices over a few steps, in float64, with numpy alone.

Jordan's formula (https://kellerjordan.github.io/posts/muon): momentum and Nesterov by interpolation, five steps of the quintic
Newton-Schulz iteration, the rate times sqrt(max(1, rows / columns)), decoupled decay. Run: python3 tests/golden/muon.py
"""
import json
import pathlib

import numpy as np


def orthogonal(g):
    x = g if g.shape[0] <= g.shape[1] else g.T
    x = x / (np.sqrt((x * x).sum()) + 1e-7)
    for _ in range(5):
        s = x @ x.T
        x = 3.4445 * x - 4.7750 * (s @ x) + 2.0315 * (s @ s @ x)
    return x if g.shape[0] <= g.shape[1] else x.T


def main():
    rng = np.random.default_rng(5)
    cases = []
    for rows, columns in [(4, 4), (3, 7), (8, 2)]:
        weight, momentum = rng.normal(size=(rows, columns)), np.zeros((rows, columns))
        rate, beta, decay, scale = 0.02, 0.95, 0.1, 0.7
        steps = []
        begin = weight.copy()
        for _ in range(3):
            gradient = rng.normal(size=(rows, columns))
            g = scale * gradient
            momentum = beta * momentum + (1 - beta) * g
            update = orthogonal(beta * momentum + (1 - beta) * g)
            weight = weight * (1 - rate * decay) - rate * np.sqrt(max(1, rows / columns)) * update
            steps.append(dict(gradient=gradient.ravel().tolist(), weight=weight.ravel().tolist(),
                              momentum=momentum.ravel().tolist()))
        cases.append(dict(rows=rows, columns=columns, rate=rate, momentum=beta, decay=decay, scale=scale,
                          begin=begin.ravel().tolist(), steps=steps))
    pathlib.Path(__file__).with_suffix(".json").write_text(json.dumps(cases) + "\n")


main()
