"""Divergences of a student from a teacher with their gradients, for tests/learner/distill/divergence_test.cc.

Everything in float64 by autograd from the logits. "jsd" over the whole vocabulary is TRL 1.16's own GKDTrainer.generalized_jsd_loss;
over the likeliest tokens it is the same formula with all other tokens as one (their probabilities summed), which TRL's function
computes here from the logarithms of the collected probabilities. "forward" is torch's kl_div over the likeliest tokens, whose
probabilities are of the whole vocabulary, as in verl's forward_kl_topk. "boundary" is the squared hinge of docs/distillation.md.
Gradients are by the student's logits, so that the test holds what goes into the head, not how it is split up.
Run with trl 1.16: python3 tests/golden/distill.py
"""
import json
import pathlib

import torch
import torch.nn.functional as F
from trl.experimental.gkd.gkd_trainer import GKDTrainer

D = torch.float64
torch.manual_seed(23)
VOCAB = 11


def collected(log_probs, ids):
    """Log-probs of `ids` and, behind them, of all others together."""
    if len(ids) == VOCAB:
        return log_probs[ids]
    others = torch.ones(VOCAB, dtype=torch.bool)
    others[ids] = False
    return torch.cat([log_probs[ids], torch.logsumexp(log_probs[others], 0, keepdim=True)])


def case(kind, top_k, temperature, beta=0.5, spread=2.0):
    teacher_logits = spread * torch.randn(VOCAB, dtype=D)
    student_logits = (spread * torch.randn(VOCAB, dtype=D)).requires_grad_(True)
    teacher = F.log_softmax(teacher_logits / temperature, -1)
    student = F.log_softmax(student_logits / temperature, -1)
    ids = torch.topk(teacher, top_k).indices
    if kind == "forward":
        loss = F.kl_div(student[ids], teacher[ids], reduction="none", log_target=True).sum()
    elif kind == "boundary":
        wanted = torch.clamp(teacher[ids[0]] - teacher[ids[1]], max=5)
        loss = torch.relu(wanted - (student[ids[0]] - student[ids[1]])) ** 2
    elif top_k == VOCAB:
        loss = GKDTrainer.generalized_jsd_loss(student_logits[None, None], teacher_logits[None, None], beta=beta,
                                               temperature=temperature, reduction="sum")
    else:
        # log-probs are logits whose softmax is themselves
        loss = GKDTrainer.generalized_jsd_loss(collected(student, ids)[None, None], collected(teacher, ids)[None, None], beta=beta,
                                               temperature=1.0, reduction="sum")
    loss.backward()
    return dict(kind=kind, beta=beta, temperature=temperature, ids=ids.tolist(), teacher=teacher.tolist(),
                logits=student_logits.tolist(), loss=loss.item(), gradient=student_logits.grad.tolist())


cases = []
for temperature in (1.0, 0.7, 2.5):
    for top_k in (1, 3, VOCAB):
        cases.append(case("forward", top_k, temperature))
        for beta in (0.0, 0.1, 0.5, 0.9, 1.0):
            cases.append(case("jsd", top_k, temperature, beta))
    for _ in range(4):
        cases.append(case("boundary", 2, temperature, spread=4.0))
out = pathlib.Path(__file__).with_suffix(".json")
out.write_text(json.dumps({"vocab": VOCAB, "cases": cases}))
print(f"{len(cases)} cases -> {out}")
