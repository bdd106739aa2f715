#!/usr/bin/env bash
# peft 0.21.2: the average of k checkpoints of one LoRA run by add_weighted_adapter(..., [1 / k] * k, combination_type="linear") is
# k times as strong as each of them, and by "ties" 1/k times.
#
# "linear" reads as the weighted sum of adapters. It puts the square root of a weight into both factors and adds factors: right for one
# adapter, for two it is (sqrt(w1) B1 + sqrt(w2) B2)(sqrt(w1) A1 + sqrt(w2) A2), with each one's B times the other's A. The
# documentation calls it a very rough approximation, and for adapters that have nothing in common these products are mere noise, as large
# as the sum. For adapters that are nearly the same, the last checkpoints of a run, they are all the same term: four at 1/4 give four
# times the adapter, a policy far beyond any that was trained. "dare_linear" and "magnitude_prune" do the same even at density 1; "ties"
# averages the factors that it has already weighted, and leaves 1/k. "cat" and "svd" are right. Seen 2026-11-30, PyPI peft 0.21.2
# with torch 2.15.0, CPU; checkpoints that differ by 1 %, strength of the merged adapter over that of their mean:
#   linear           1 checkpoints 1.000  2 checkpoints 2.000  3 checkpoints 3.000  4 checkpoints 4.000
#   dare_linear      1 checkpoints 1.000  2 checkpoints 2.000  3 checkpoints 3.000  4 checkpoints 4.000
#   magnitude_prune  1 checkpoints 1.000  2 checkpoints 2.000  3 checkpoints 3.000  4 checkpoints 4.000
#   ties             1 checkpoints 1.000  2 checkpoints 0.500  3 checkpoints 0.333  4 checkpoints 0.250
#   cat, svd         1 checkpoints 1.000  2 checkpoints 1.000  3 checkpoints 1.000  4 checkpoints 1.000
# Fails when that changes. Installs 3 GB.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q --disable-pip-version-check torch==2.15.0 numpy==2.4.6 transformers==5.23.0 peft==0.21.2
export HF_HUB_OFFLINE=1 TRANSFORMERS_VERBOSITY=error CUDA_VISIBLE_DEVICES=
cat >"$work/average.py" <<'PY'
import sys

import torch
from peft import LoraConfig, get_peft_model

torch.manual_seed(0)
torch.set_num_threads(1)
WIDTH, RANK, MOST = 64, 4, 4


class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(WIDTH, WIDTH, bias=False)


names = [f"step{i}" for i in range(MOST)]
config = LoraConfig(r=RANK, lora_alpha=RANK, target_modules=["layer"], init_lora_weights=False)
model = get_peft_model(Model(), config, adapter_name=names[0])
for name in names[1:]:
    model.add_adapter(name, config)
layer = model.base_model.model.layer
with torch.no_grad():
    for factors in (layer.lora_A, layer.lora_B):
        first = factors[names[0]].weight
        for name in names[1:]:  # a later checkpoint: the same adapter and a little of something else
            factors[name].weight.copy_(first + 0.01 * first.std() * torch.randn_like(first))

failed = False
for kind, options in (("linear", {}), ("dare_linear", dict(density=1.0)), ("magnitude_prune", dict(density=1.0)),
                      ("ties", dict(density=1.0)), ("cat", {}), ("svd", {})):
    strengths = []
    for k in range(1, MOST + 1):
        merged = f"{kind} of {k}"
        model.add_weighted_adapter(names[:k], [1 / k] * k, merged, combination_type=kind, **options)
        mean = sum(layer.get_delta_weight(n) for n in names[:k]) / k
        delta = layer.get_delta_weight(merged)
        strengths.append((torch.dot(delta.flatten(), mean.flatten()) / mean.norm() ** 2).item())
    print(f"{kind:16} " + "  ".join(f"{k} checkpoints {s:.3f}" for k, s in enumerate(strengths, 1)))
    power = {"cat": 0, "svd": 0, "ties": -1}.get(kind, 1)
    failed |= any(abs(s - k**power) > 0.02 * k**power for k, s in enumerate(strengths, 1))
sys.exit("not what was seen before" if failed else 0)
PY
"$work/venv/bin/python" "$work/average.py" 2>"$work/warnings" || { tail -5 "$work/warnings" >&2; exit 1; }
