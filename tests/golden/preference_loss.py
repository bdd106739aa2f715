"""Writes preference_loss.json: values and derivatives of preference losses, from TRL's own code in float64.

The trainers' loss methods run unchanged on a stand-in for the model that returns given log-probs. TRL 1.16 casts ORPO's
log-probs to float32; the cast alone is switched off, as is that of the alpha divergence, whose table of bounds has no float64.
Run: python tests/golden/preference_loss.py
"""
import collections
import contextlib
import inspect
import json
import textwrap
import pathlib
import types

import torch
import trl
from trl.experimental.cpo import CPOTrainer
from trl.experimental.orpo import ORPOTrainer
from trl.trainer.dpo_trainer import DPOTrainer
from trl.trainer.kto_trainer import KTOTrainer

S = 40  # longest completion


class Accelerator:
    device = torch.device("cpu")

    @staticmethod
    def gather_for_metrics(x):
        return x

    gather = gather_for_metrics


class Model:
    """Returns the log-probs it was made with, call after call."""

    training = False

    def __init__(self, *log_probs, squares=None):
        self.queue = list(log_probs)
        self.squares = squares

    def __call__(self, **_):
        lp = self.queue.pop(0) if len(self.queue) > 1 else self.queue[0]
        zero = torch.zeros_like(lp)
        return types.SimpleNamespace(log_probs=lp, entropy=zero, mean_logits=zero, is_top1=zero.bool(), log_sum_sq_probs=self.squares)


class Self(types.SimpleNamespace):
    def __getattr__(self, name):  # options that the losses under test do not use
        return None


def spread(total, tokens):
    """A sum as per-token log-probs [S]: only the sum matters to a loss."""
    row = torch.zeros(S, dtype=torch.float64)
    row[:tokens] = 1.0 / tokens
    return row * total


def mask_of(lengths):
    mask = torch.zeros(len(lengths), S + 1, dtype=torch.long)
    for i, n in enumerate(lengths):
        mask[i, 1 : n + 1] = 1
    return mask


def dpo(case, loss_type, smoothing):
    leaves = [torch.tensor(case[k], dtype=torch.float64, requires_grad=True)
              for k in ("chosen", "rejected", "ref_chosen", "ref_rejected")]
    c, r, rc, rr = leaves
    nc, nr = case["chosen_tokens"], case["rejected_tokens"]
    mask = mask_of([nc, nr])
    me = Self(model=Model(c), accelerator=Accelerator(), aux_loss_enabled=False, ld_alpha=None, precompute_ref_logps=True,
              f_divergence_type="reverse_kl", loss_types=[loss_type], loss_weights=[1.0], beta=case["beta"],
              label_smoothing=smoothing, use_weighting=False, _total_train_tokens=0, _tp_size=1,
              _metrics={"train": collections.defaultdict(list), "eval": collections.defaultdict(list)})
    inputs = {"input_ids": torch.ones_like(mask), "attention_mask": torch.ones_like(mask), "completion_mask": mask,
              "ref_chosen_logps": rc[None], "ref_rejected_logps": rr[None]}
    loss = DPOTrainer._compute_loss(me, Model(torch.stack([spread(c, nc), spread(r, nr)])), inputs, False)
    return loss, leaves


def in_float64():
    """DPOTrainer._compute_loss without its cast to float32, with a bound for float64, and with WPO's product beside what the
    hinge's gradient is taken of instead of in its place."""
    source = textwrap.dedent(inspect.getsource(DPOTrainer._compute_loss))
    for old, new in [("t_chosen.float()", "t_chosen"), ("t_rejected.float()", "t_rejected"),
                     ("torch.float32: 80.0}", "torch.float32: 80.0, torch.float64: 80.0}"),
                     ("per_sequence_loss *= ", "per_sequence_loss = per_sequence_loss * ")]:
        assert source.count(old) == 1, old
        source = source.replace(old, new)
    space = dict(inspect.getmodule(DPOTrainer).__dict__)
    space["disable_gradient_checkpointing"] = lambda *_: contextlib.nullcontext()  # of a model that has none
    space["is_peft_model"] = lambda _: False
    exec(source, space)
    return space["_compute_loss"]


def dpo_batch(name, losses, weights=None, pairs=5, weighting=False, **options):
    """A batch of pairs: every log-prob of both answers, the reference's sums (of all tokens and, where the tokens behind the
    shorter answer's length weigh less, weighted by the trainer), loss and gradient."""
    lengths = [[1 + int(x * 9) for x in torch.rand(2).tolist()] for _ in range(pairs)]
    order = [l[0] for l in lengths] + [l[1] for l in lengths]
    mask = mask_of(order)
    policy = torch.zeros(2 * pairs, S, dtype=torch.float64)
    reference = torch.zeros_like(policy)
    for i, n in enumerate(order):
        policy[i, :n] = -0.05 - 2 * torch.rand(n, dtype=torch.float64)
        reference[i, :n] = policy[i, :n] + 0.8 * (torch.rand(n, dtype=torch.float64) - 0.5)
    # What the policy expects of a token's log-prob, roughly; only WPO looks at it.
    squares = -0.05 - 2 * torch.rand(2 * pairs, S, dtype=torch.float64) if weighting else None
    policy.requires_grad_(True)
    o = dict(beta=0.4, label_smoothing=0.1, f_divergence_type="reverse_kl", f_alpha_divergence_coef=1.0, ld_alpha=None,
             discopop_tau=0.05) | options
    me = Self(model=Model(reference), ref_model=Model(reference), accelerator=Accelerator(), aux_loss_enabled=False,
              precompute_ref_logps=False, loss_types=losses, loss_weights=weights or [1.0] * len(losses), use_weighting=weighting,
              args=types.SimpleNamespace(discopop_tau=o.pop("discopop_tau"), gradient_checkpointing_kwargs=None,
                                         gradient_checkpointing=False),
              _total_train_tokens=0, _tp_size=1,
              _metrics={"train": collections.defaultdict(list), "eval": collections.defaultdict(list)}, **o)
    inputs = {"input_ids": torch.ones_like(mask), "attention_mask": torch.ones_like(mask), "completion_mask": mask}
    loss = in_float64()(me, Model(policy, squares=squares), inputs, False)
    loss.backward()
    rows = lambda x: [[x[i, :order[i]].tolist(), x[pairs + i, :order[pairs + i]].tolist()] for i in range(pairs)]
    return {"name": name, "losses": losses, "weights": weights or [1.0] * len(losses), **o,
            "discopop_tau": me.args.discopop_tau, "policy": rows(policy.detach()), "reference": rows(reference),
            "squares": rows(squares) if weighting else None, "gradient": rows(policy.grad), "value": loss.item()}


def cpo(case, loss_type, smoothing, gamma, averaged, subtract_reference):
    leaves = [torch.tensor(case[k], dtype=torch.float64, requires_grad=True)
              for k in ("chosen", "rejected", "ref_chosen", "ref_rejected")]
    c, r, rc, rr = leaves
    if subtract_reference:
        c, r = c - rc, r - rr
    if averaged:
        c, r = c / case["chosen_tokens"], r / case["rejected_tokens"]
    me = Self(alpha=0.0, accelerator=Accelerator(), loss_type=loss_type, beta=case["beta"], label_smoothing=smoothing,
              simpo_gamma=gamma)
    return CPOTrainer.cpo_loss(me, c[None], r[None])[0].mean(), leaves


def orpo(case):
    leaves = [torch.tensor(case[k], dtype=torch.float64, requires_grad=True)
              for k in ("chosen", "rejected", "ref_chosen", "ref_rejected")]
    c, r = leaves[0] / case["chosen_tokens"], leaves[1] / case["rejected_tokens"]
    cast, torch.Tensor.float = torch.Tensor.float, lambda t: t
    try:
        me = Self(beta=case["beta"], accelerator=Accelerator())
        losses = ORPOTrainer.odds_ratio_loss(me, c[None], r[None])[0]
    finally:
        torch.Tensor.float = cast
    return -c - losses.mean(), leaves  # as ORPOTrainer.get_batch_loss_metrics adds them up


def kto(logprob, reference, kl_policy, kl_reference, desirable, beta, weight):
    y = torch.tensor(logprob, dtype=torch.float64, requires_grad=True)
    mask = mask_of([9])
    kl = torch.tensor([kl_policy], dtype=torch.float64)
    kl_ref = torch.tensor([kl_reference], dtype=torch.float64)
    me = Self(model=Model(y), accelerator=Accelerator(), aux_loss_enabled=False, calculate_KL=True,
              precompute_ref_logps=True, loss_type="kto", beta=beta, desirable_weight=weight, undesirable_weight=weight,
              _compute_kl_logps=lambda model, batch: kl, _total_train_tokens=0, _tp_size=1,
              _metrics={"train": collections.defaultdict(list), "eval": collections.defaultdict(list)})
    batch = {"input_ids": torch.ones_like(mask), "attention_mask": torch.ones_like(mask), "completion_mask": mask,
             "label": torch.tensor([desirable]), "ref_logps": torch.tensor([reference], dtype=torch.float64),
             "ref_KL_logps": kl_ref}
    loss = KTOTrainer._compute_loss(me, Model(spread(y, 9)[None]), batch, False)
    loss.backward()
    return {"logprob": logprob, "reference": reference, "mean_log_ratio": kl_policy - kl_reference, "desirable": desirable,
            "beta": beta, "weight": weight, "value": loss.item(), "derivative": y.grad.item()}


def main():
    torch.manual_seed(7)
    pairs, judged = [], []
    for i in range(24):
        u = torch.rand(7, dtype=torch.float64)
        nc, nr = 1 + int(u[0] * 30), 1 + int(u[1] * 30)
        case = {"chosen": -(0.05 + 3 * u[2].item()) * nc, "rejected": -(0.05 + 3 * u[3].item()) * nr,
                "chosen_tokens": nc, "rejected_tokens": nr, "beta": [0.01, 0.1, 0.5, 2.0][i % 4]}
        case["ref_chosen"] = case["chosen"] + 6 * (u[4].item() - 0.5)
        case["ref_rejected"] = case["rejected"] + 6 * (u[5].item() - 0.5)
        for name, kind, smoothing, normalize, made in [
            ("dpo", "sigmoid", 0.0, False, lambda: dpo(case, "sigmoid", 0.0)),
            ("dpo, per token", "sigmoid", 0.0, True, lambda: dpo(case, "sigmoid_norm", 0.0)),
            ("cdpo", "sigmoid", 0.2, False, lambda: cpo(case, "sigmoid", 0.2, 0, False, True)),
            ("hinge", "hinge", 0.0, False, lambda: dpo(case, "hinge", 0.0)),
            ("ipo", "ipo", 0.0, False, lambda: dpo(case, "ipo", 0.0)),
            ("robust", "robust", 0.1, False, lambda: dpo(case, "robust", 0.1)),
            ("simpo", "simpo", 0.0, False, lambda: cpo(case, "simpo", 0.0, 0.5, True, False)),
            ("orpo", "orpo", 0.0, False, lambda: orpo(case)),
        ]:
            loss, leaves = made()
            grads = torch.autograd.grad(loss, leaves, allow_unused=True)
            pairs.append({**case, "name": name, "kind": kind, "smoothing": smoothing, "normalize": normalize,
                          "value": loss.item(), "gradient": [0.0 if g is None else g.item() for g in grads]})
        judged.append(kto(case["chosen"], case["ref_chosen"], 8 * (u[6].item() - 0.4), 0.0, i % 2 == 0,
                          case["beta"], [1.0, 1.33][i // 2 % 2]))
    torch.set_default_dtype(torch.float64)  # for the constants in their code
    batches = [dpo_batch(kind, [kind]) for kind in
               ["sigmoid", "exo_pair", "nca_pair", "bco_pair", "sppo_hard", "aot", "aot_unpaired", "apo_zero", "apo_down",
                "discopop", "sft", "sigmoid_norm", "robust"]]
    batches += [dpo_batch(f"{kind}, {divergence}", [kind], f_divergence_type=divergence, f_alpha_divergence_coef=0.4)
                for divergence in ["forward_kl", "js_divergence", "alpha_divergence"]
                for kind in ["sigmoid", "ipo", "exo_pair", "discopop", "sigmoid_norm", "hinge", "bco_pair"]]
    batches += [
        dpo_batch("alpha 1", ["sigmoid"], f_divergence_type="alpha_divergence"),
        dpo_batch("discopop, flat", ["discopop"], discopop_tau=0.6),
        dpo_batch("mpo", ["sigmoid", "bco_pair", "sft"], [0.8, 0.2, 1.0]),
        dpo_batch("aot and sft", ["aot", "sft"], [1.0, 0.3]),
        dpo_batch("ld", ["sigmoid"], ld_alpha=0.3),
        dpo_batch("ld, aot", ["aot"], ld_alpha=0.3),
        dpo_batch("ld, per token", ["sigmoid_norm"], ld_alpha=0.0),
        *[dpo_batch(f"wpo, {kind}", [kind], weighting=True)
          for kind in ["sigmoid", "ipo", "hinge", "bco_pair", "sppo_hard", "discopop"]],
        dpo_batch("wpo, mixed", ["sigmoid", "bco_pair"], [0.8, 0.2], weighting=True),
        dpo_batch("wpo, ld", ["sigmoid"], ld_alpha=0.3, weighting=True),
    ]
    out = {"trl": trl.__version__, "pairs": pairs, "kto": judged, "batches": batches}
    pathlib.Path(__file__).with_suffix(".json").write_text(json.dumps(out, indent=0) + "\n")
    print(f"{len(batches)} batches, {len(pairs)} pair losses and {len(judged)} KTO losses from TRL {trl.__version__}")


if __name__ == "__main__":
    main()
