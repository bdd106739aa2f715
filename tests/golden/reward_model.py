# Bradley-Terry loss of reward models with its gradients, by TRL 1.16's own RewardTrainer.compute_loss in float64.
#
# Run: python tests/golden/reward_model.py   (transformers 5.23, trl 1.16, torch 2.11)
# Writes reward_model.json beside this file. The model is a stub that hands out given scores, so what is recorded is the
# trainer's arithmetic alone.
import json
import pathlib
import random
import types
from collections import defaultdict
from contextlib import nullcontext

import torch
import trl
from trl import RewardTrainer


class Scores:
    training = True

    def __init__(self, values):
        self.values = values

    def __call__(self, **_):
        return types.SimpleNamespace(logits=self.values.unsqueeze(-1))


class Accelerator:
    def gather(self, x):
        return x

    def gather_for_metrics(self, x):
        return x


def compute(chosen, rejected, margins, centering):
    leaf = torch.tensor(chosen + rejected, dtype=torch.float64, requires_grad=True)
    trainer = types.SimpleNamespace(
        args=types.SimpleNamespace(center_rewards_coefficient=centering),
        accelerator=Accelerator(), model=Scores(leaf), maybe_activation_offload_context=nullcontext(),
        _metrics=defaultdict(lambda: defaultdict(list)), _total_train_tokens=0, _tp_size=1)
    inputs = {"input_ids": torch.ones(len(leaf), 2, dtype=torch.long),
              "attention_mask": torch.ones(len(leaf), 2, dtype=torch.long)}
    if margins is not None:
        inputs["margin"] = torch.tensor(margins, dtype=torch.float64)
    loss = RewardTrainer.compute_loss(trainer, trainer.model, inputs)
    loss.backward()
    n = len(chosen)
    metrics = trainer._metrics["train"]
    return {"chosen": chosen, "rejected": rejected, "margins": margins, "centering": centering or 0.0,
            "loss": loss.item(), "d_chosen": leaf.grad[:n].tolist(), "d_rejected": leaf.grad[n:].tolist(),
            "accuracy": metrics["accuracy"][0], "mean_margin": metrics["margin"][0]}


def main():
    assert trl.__version__.startswith("1.16"), trl.__version__
    rng = random.Random(4)
    cases = []
    for scale in (0.01, 1.0, 5.0, 40.0):
        for margins in (False, True):
            for centering in (None, 0.01, 0.5):
                for size in (1, 3):
                    draw = lambda s: [rng.gauss(0, s) for _ in range(size)]
                    cases.append(compute(draw(scale), draw(scale), [abs(x) for x in draw(1.0)] if margins else None,
                                         centering))
    cases.append(compute([0.0], [0.0], None, None))  # log 2
    path = pathlib.Path(__file__).with_suffix(".json")
    path.write_text(json.dumps({"trl": trl.__version__, "cases": cases}, indent=None) + "\n")
    print(path, len(cases))


main()
