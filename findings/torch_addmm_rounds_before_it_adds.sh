#!/usr/bin/env bash
# torch 2.11.0 on an H200: addmm in bfloat16 rounds the product to bfloat16 before it adds the matrix, unless the product is one that
# cuBLAS cuts along its inner dimension: then the sum is rounded once. The shape alone decides.
#
# addmm, a product and an addition in one call with float32 sums inside, reads as if it rounded at the end. On Hopper the kernels that
# cuBLAS takes for most shapes give bit for bit what two calls give, the product rounded first: where a residual nearly cancels
# the product the error is some hundred times that of one rounding. At 256 rows, 8960 numbers into 1536 (the shape of a down
# projection of 1.5 B), partial sums are kept in float32 and the matrix is added to them: nearly one rounding. A fused residual thus is
# not more exact than an unfused one, and how exact it is changes with the batch. Seen 2026-11-30, torch 2.11.0 with CUDA 13.0, one
# H200; needs an NVIDIA GPU of that kind (exit code 2 without). Share of elements equal to two roundings, and largest error of addmm, of one and of two roundings:
#    64 x  896,  896: 1.0000  8.8e-03 3.0e-05 8.8e-03
#   512 x  896, 4864: 1.0000  1.5e-02 5.4e-05 1.5e-02
#  1024 x 4096, 4096: 1.0000  1.6e-02 4.9e-05 1.6e-02
#   256 x 1536, 8960: 0.0046  6.8e-05 5.5e-05 1.5e-02
# Fails when the first three are rounded once, or the last one twice. Installs torch with its CUDA libraries, several GB.
set -euo pipefail
if ! nvidia-smi -L 2>/dev/null | grep -q 'H[12]00'; then
  echo "no H100 or H200 answers (nvidia-smi -L)" >&2
  exit 2
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q --disable-pip-version-check torch==2.11.0 numpy==2.4.6
cat >"$work/addmm.py" <<'PY'
import sys

import torch

torch.manual_seed(1)
print(torch.__version__, torch.version.cuda, torch.cuda.get_device_name())
same = True
for m, n, k, twice in ((64, 896, 896, True), (512, 896, 4864, True), (1024, 4096, 4096, True), (256, 1536, 8960, False)):
    a = torch.randn(m, k, device="cuda").bfloat16()
    w = (torch.randn(n, k, device="cuda") / k**0.5).bfloat16()
    product = a.double() @ w.double().t()
    c = (-product + torch.randn_like(product) * 1e-3).bfloat16()  # nearly cancels it
    exact = product + c.double()
    y = torch.addmm(c, a, w.t())
    one, two = exact.bfloat16(), ((a @ w.t()).double() + c.double()).bfloat16()
    equal = (y == two).double().mean().item()
    error = [(x.double() - exact).abs().max().item() for x in (y, one, two)]
    print(f"{m:5} x {n:4}, {k:4}: {equal:.4f}  " + " ".join(f"{e:.1e}" for e in error))
    same &= equal == 1 and error[0] > 50 * error[1] if twice else equal < 0.1 and error[0] < 5 * error[1]
sys.exit(0 if same else 1)
PY
"$work/venv/bin/python" "$work/addmm.py"
