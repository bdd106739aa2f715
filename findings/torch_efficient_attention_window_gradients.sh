#!/usr/bin/env bash
# torch 2.11.0, CUDA: with a window and fewer queries than keys, _efficient_attention_forward is right and
# _efficient_attention_backward gives gradients with relative errors above 1, without a word.
#
# The mask that lets the last query see the last key (custom_mask_type 2) together with `window_size` is what answers behind a shared
# prompt need. The forward places the window by the offset of the queries among the keys. The backward seems to look for the queries
# that see a key without that offset: all three gradients are wrong as soon as the window ends before the first key, and right
# where there are as many queries as keys, or where the window holds all keys. So a comparison of outputs, or of gradients of
# packed sequences with lengths of their own, finds nothing. Seen 2026-11-30, torch 2.11.0 with CUDA 13.0, one H200; needs an NVIDIA GPU
# (exit code 2 without). Relative errors of out, dq, dk, dv:
#   float32  200 queries, 200 keys, window   16: 3.1e-07 5.2e-07 5.2e-07 3.8e-07
#   float32   40 queries, 200 keys, window 1000: 4.7e-07 6.5e-07 6.8e-07 5.4e-07
#   float32   40 queries, 200 keys, window   64: 4.7e-07 1.2e+00 1.1e+00 1.1e+00
#   float32  150 queries, 200 keys, window   16: 3.2e-07 3.8e+00 3.5e+00 2.6e+00
#   bfloat16  40 queries, 200 keys, window   16: 1.9e-03 2.8e+00 2.6e+00 2.4e+00
# Fails when these gradients become right, or the others wrong. Installs torch with its CUDA libraries, several GB.
set -euo pipefail
if ! nvidia-smi -L >/dev/null 2>&1; then
  echo "no GPU answers (nvidia-smi -L)" >&2
  exit 2
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q --disable-pip-version-check torch==2.11.0 numpy==2.4.6
cat >"$work/window.py" <<'PY'
import sys

import torch

ops = torch.ops.aten
HEADS, DIM, SCALE = 2, 32, 0.2


def exact(q, k, v, window):
    """Attention in float64: the last query sees the last key, each query `window` keys up to its own."""
    own = torch.arange(q.shape[1], device=q.device)[:, None] + k.shape[1] - q.shape[1]
    key = torch.arange(k.shape[1], device=q.device)[None, :]
    seen = (key <= own) & (key > own - window)
    scores = torch.einsum("bqhd,bkhd->bhqk", q, k) * SCALE
    return torch.einsum("bhqk,bkhd->bqhd", scores.masked_fill(~seen, float("-inf")).softmax(-1), v)


def errors(queries, keys, window, dtype):
    torch.manual_seed(0)
    q, g = (torch.randn(1, queries, HEADS, DIM, device="cuda", dtype=dtype) for _ in range(2))
    k, v = (torch.randn(1, keys, HEADS, DIM, device="cuda", dtype=dtype) for _ in range(2))
    cu_q = torch.tensor([0, queries], device="cuda", dtype=torch.int32)
    cu_k = torch.tensor([0, keys], device="cuda", dtype=torch.int32)
    out, lse, seed, offset, _, _ = ops._efficient_attention_forward(
        q, k, v, None, cu_q, cu_k, queries, keys, 0.0, 2, True, scale=SCALE, window_size=window)
    got = ops._efficient_attention_backward(
        g, q, k, v, None, out, cu_q, cu_k, queries, keys, lse, 0.0, seed, offset, 2, False,
        scale=SCALE, window_size=window)[:3]
    leaves = [x.double().requires_grad_() for x in (q, k, v)]
    want = exact(*leaves, window)
    want.backward(g.double())
    relative = lambda a, b: float((a.double() - b).norm() / b.norm())
    return [relative(out, want.detach())] + [relative(a, x.grad) for a, x in zip(got, leaves)]


failed = False
for dtype, tolerance in ((torch.float32, 1e-5), (torch.bfloat16, 2e-2)):
    for queries, keys, window in ((200, 200, 16), (40, 200, 1000), (40, 200, 64), (40, 200, 16), (150, 200, 16)):
        out, *gradients = errors(queries, keys, window, dtype)
        print(f"{str(dtype)[6:]:8} {queries:3} queries, {keys} keys, window {window:4}: {out:.1e} " + " ".join(f"{x:.1e}" for x in gradients))
        right = queries == keys or window >= keys
        failed |= out > tolerance or any((x > tolerance) if right else (x < 0.5) for x in gradients)
sys.exit("not what was seen before" if failed else 0)
PY
"$work/venv/bin/python" "$work/window.py"
