"""Numbers for tests/kernels/token_mask_test.cc and sampling_test.cc: which tokens top-k, top-p and min-p keep of a row of logits,
and log-prob, entropy and their gradient over what is kept. Written from the definitions in float64: sets by sorting, gradients by
complex steps. Run: python tests/golden/make_kept_sets_golden.py > tests/golden/kept_sets.json (numpy 2)."""
import json

import numpy as np

VOCAB = 37
FILTERS = [
    dict(top_k=5, top_p=1.0, min_p=0.0),
    dict(top_k=0, top_p=0.8, min_p=0.0),
    dict(top_k=0, top_p=1.0, min_p=0.1),
    dict(top_k=12, top_p=0.9, min_p=0.05),
    dict(top_k=1, top_p=1.0, min_p=0.0),
]


def kept(z, top_k, top_p, min_p):
    """Temperature is in z. The k likeliest; of those the fewest whose mass reaches top_p; of those what has min_p of the likeliest."""
    order = np.argsort(-z, kind="stable")
    if top_k:
        order = order[:top_k]
    p = np.exp(z[order] - z.max())
    if top_p < 1:
        mass = np.cumsum(p) / p.sum()
        order = order[: int(np.argmax(mass >= top_p)) + 1]
    return sorted(int(j) for j in order if np.exp(z[j] - z.max()) >= min_p)


def terms(x, temperature, ids, token):
    """Log-prob of `token` and entropy over `ids`; x may be complex."""
    z = x[ids] / temperature
    shift = z[int(np.argmax(z.real))]
    lse = np.log(np.exp(z - shift).sum()) + shift
    p = np.exp(z - lse)
    return x[token] / temperature - lse, lse - (p * z).sum()


def gradient(x, temperature, ids, token, g, h):
    out = []
    for j in range(VOCAB):
        y = x.astype(complex)
        y[j] += 1e-30j
        lp, entropy = terms(y, temperature, ids, token)
        out.append((g * lp + h * entropy).imag / 1e-30)
    return out


random = np.random.default_rng(20261129)
cases = []
for temperature in (1.0, 0.7):
    for f in FILTERS:
        x = np.float32(random.normal(size=VOCAB) * 2.5).astype(float)
        ids = kept(x / temperature, **f)
        token = int(random.choice(ids))
        g, h = 0.75, -0.5
        lp, entropy = terms(x, temperature, ids, token)
        cases.append(dict(f, temperature=temperature, logits=x.tolist(), kept=ids, token=token, logprob=float(lp), entropy=float(entropy),
                          g_logprob=g, g_entropy=h, gradient=gradient(x, temperature, ids, token, g, h)))
print(json.dumps(cases))
