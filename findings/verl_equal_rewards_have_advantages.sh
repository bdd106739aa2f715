#!/usr/bin/env bash
# verl 0.9.1: a group whose answers all got the same reward has GRPO advantages other than zero, for most rewards that are not binary
# fractions: 0.06 for rewards of 0.9, 0.1 for a penalty of -1.2, 0.8 for 100.3, and the same sign for every answer of the group.
#
# "Groups of equal rewards give no gradient" holds for 0, 1 and 0.5 only. The float32 mean of eight times 0.7 is not 0.7 but its
# neighbour; the standard deviation is then that distance too, and dividing one by the other plus 1e-6 brings back a number of the
# order of a real advantage: the larger the reward, the nearer to 1. Prompts that teach nothing push all their answers up or down,
# and which way depends on the reward and on the size of the group. Without the division (Dr. GRPO) and in RLOO the error
# stays that of float32, about 1e-7 times the reward. Seen 2026-11-30, PyPI verl 0.9.1 with torch 2.15.0, CPU; advantage
# that every answer of a group of 6, 8, 10, 12 gets:
#   reward    1.0: grpo +0.000 +0.000 +0.000 +0.000   without std 0.0e+00   rloo 0.0e+00
#   reward    0.5: grpo +0.000 +0.000 +0.000 +0.000   without std 0.0e+00   rloo 0.0e+00
#   reward    0.3: grpo +0.029 +0.029 +0.029 +0.029   without std 3.0e-08   rloo 3.0e-08
#   reward    0.9: grpo -0.056 -0.056 +0.000 +0.056   without std 6.0e-08   rloo 1.2e-07
#   reward   -1.2: grpo -0.105 -0.106 -0.106 -0.106   without std 1.2e-07   rloo 1.2e-07
#   reward   10.3: grpo +0.000 +0.000 -0.476 -0.478   without std 9.5e-07   rloo 1.9e-06
#   reward  100.3: grpo +0.815 +0.833 +0.844 +0.851   without std 7.6e-06   rloo 1.5e-05
# The order of torch's sums, and so the group sizes that are hit, may differ on another processor. Fails when 1.0 and 0.5 are not at
# zero, when less than a third of the other groups are above 0.02, or when the two others exceed 1e-6 times the reward. Installs 3 GB.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q --disable-pip-version-check torch==2.15.0 numpy==2.4.6 transformers==5.10.4 ray==2.60.0 \
  tensordict==0.10.0 omegaconf==2.3.1 codetiming orjson
"$work/venv/bin/pip" install -q --disable-pip-version-check --no-deps verl==0.9.1
cat >"$work/equal.py" <<'PY'
import sys

import numpy as np
import torch
from verl.trainer.ppo.core_algos import compute_grpo_outcome_advantage, compute_rloo_outcome_advantage

SIZES, TOKENS = (6, 8, 10, 12), 5


def advantage(estimator, reward, size, **options):
    """What each of `size` answers with the same reward gets."""
    rewards, mask = torch.zeros(size, TOKENS), torch.ones(size, TOKENS)
    rewards[:, -1] = reward  # as verl puts it: on the last token
    got, _ = estimator(rewards, mask, index=np.array(["prompt"] * size), **options)
    assert got.unique().numel() == 1, "answers of one group differ"
    return got[0, 0].item()


failed, hit, tried = False, 0, 0
for reward in (1.0, 0.5, 0.3, 0.9, -1.2, 10.3, 100.3):
    grpo = [advantage(compute_grpo_outcome_advantage, reward, n) for n in SIZES]
    centred = max(abs(advantage(compute_grpo_outcome_advantage, reward, n, norm_adv_by_std_in_grpo=False)) for n in SIZES)
    rloo = max(abs(advantage(compute_rloo_outcome_advantage, reward, n)) for n in SIZES)
    print(f"reward {reward:6}: grpo " + " ".join(f"{a:+.3f}" for a in grpo)
          + f"   without std {centred:.1e}   rloo {rloo:.1e}")
    if reward in (1.0, 0.5):
        failed |= any(grpo)
    else:
        tried += len(grpo)
        hit += sum(abs(a) > 0.02 for a in grpo)
    failed |= max(centred, rloo) > 1e-6 * abs(reward)
print(f"{hit} of {tried} groups of other rewards above 0.02")
sys.exit("not what was seen before" if failed or 3 * hit < tried else 0)
PY
"$work/venv/bin/python" "$work/equal.py" 2>"$work/warnings" || { tail -5 "$work/warnings" >&2; exit 1; }
