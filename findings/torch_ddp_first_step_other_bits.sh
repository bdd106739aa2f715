#!/usr/bin/env bash
# torch 2.15.0: with three or more ranks over Gloo, the first backward of a DistributedDataParallel gives gradients of other bits
# than every later one on the same weights and the same batch.
#
# Gloo's all-reduce adds the ranks in an order that depends on where in the buffer a number lies, and DDP lays its buckets anew after
# the first backward, in the order in which gradients became ready. So a process that begins at step k with the state of step k - 1 does
# not repeat what an unbroken process computed in step k, although both are deterministic: a resume is bit-equal with one or
# two ranks and not with three. Ranks agree with each other all the time. Seen 2026-11-30, PyPI torch 2.15.0, CPU (2.11.0: the same):
#   2 ranks: pass 1 and 2 differ in 0 of 24960 gradients, pass 2 and 3 in 0
#   3 ranks: pass 1 and 2 differ in 4224 of 24960 gradients, pass 2 and 3 in 0
#   4 ranks: pass 1 and 2 differ in 9129 of 24960 gradients, pass 2 and 3 in 0
#   one sum of 4 ranks, the same four numbers at each of 8 places: 3 results
# Fails when later passes differ, when two ranks do, or when the first pass of three and four ranks no longer differs. Installs 3 GB.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q --disable-pip-version-check torch==2.15.0 numpy==2.4.6
cat >"$work/passes.py" <<'PY'
import os
import sys

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

LAYERS, WIDTH, PASSES = 6, 64, 3


def gradients(wrapped, batch):
    wrapped.zero_grad(set_to_none=True)
    wrapped(batch).square().mean().backward()
    return torch.cat([p.grad.flatten() for p in wrapped.parameters()])


def rank_main(rank, ranks, rendezvous, results):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=ranks)
    torch.manual_seed(0)  # the same weights everywhere
    model = torch.nn.Sequential(*[torch.nn.Linear(WIDTH, WIDTH) for _ in range(LAYERS)])
    wrapped = torch.nn.parallel.DistributedDataParallel(model)
    batch = torch.randn(32, WIDTH, generator=torch.Generator().manual_seed(1 + rank))
    seen = [gradients(wrapped, batch) for _ in range(PASSES)]
    for one in seen:  # all ranks hold the same bits
        everywhere = [torch.empty_like(one) for _ in range(ranks)]
        dist.all_gather(everywhere, one)
        assert all(torch.equal(one, other) for other in everywhere)
    # The same summands at every place of one buffer.
    places = torch.full((8,), [0.1, 1e8, -1e8, 0.3][rank])
    dist.all_reduce(places)
    if rank == 0:
        changed = [int((a != b).sum()) for a, b in zip(seen, seen[1:])]
        results.put((changed, seen[0].numel(), places.unique().numel()))
    dist.destroy_process_group()


if __name__ == "__main__":
    context = mp.get_context("spawn")
    failed = False
    for ranks in (2, 3, 4):
        results = context.SimpleQueue()
        mp.spawn(rank_main, (ranks, f"{sys.argv[1]}/ranks{ranks}", results), nprocs=ranks)
        (first, later), count, sums = results.get()
        print(f"{ranks} ranks: pass 1 and 2 differ in {first} of {count} gradients, pass 2 and 3 in {later}")
        failed |= later != 0 or (first == 0) != (ranks == 2)
    print(f"one sum of 4 ranks, the same four numbers at each of 8 places: {sums} results")
    failed |= sums == 1
    sys.exit("not what was seen before" if failed else 0)
PY
"$work/venv/bin/python" "$work/passes.py" "$work"
