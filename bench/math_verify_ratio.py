"""Seconds a verdict of ours and of math-verify, over the same pairs on the same core, one after the other.

    python bench/math_verify_ratio.py build/bench/math_bench [PAIRS.jsonl]

math-verify parses and compares in one process that is warm (one round before the clock), the best of three a pair; ours is the
best of three runs of 20 rounds. What math-verify raises counts as a verdict: the time was spent.
"""
import json
import pathlib
import statistics
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path = [p for p in sys.path if pathlib.Path(p or ".").resolve() != ROOT / "tests/golden"]

from math_verify import parse, verify  # noqa: E402


def verdict(gold, answer):
    try:
        return verify(parse(gold), parse(answer))
    except Exception:
        return False


def main():
    bench = sys.argv[1]
    path = sys.argv[2] if len(sys.argv) > 2 else str(ROOT / "tests/golden/math_pairs.jsonl")
    pairs = [json.loads(line) for line in open(path)]
    # As its users write them: LaTeX in dollars.
    texts = [(f"${row['gold']}$", f"${row['answer']}$") for row in pairs]
    best = [float("inf")] * len(texts)
    for turn in range(4):
        for at, (gold, answer) in enumerate(texts):
            begin = time.perf_counter()
            verdict(gold, answer)
            if turn > 0:
                best[at] = min(best[at], (time.perf_counter() - begin) * 1e6)
    ours = [json.loads(subprocess.run([bench, path, "20"], check=True, capture_output=True, text=True).stdout)
            for _ in range(3)]
    mine, peer = min(r["microseconds_a_verdict"] for r in ours), statistics.mean(best)
    print(f"{len(pairs)} pairs: Plumb {mine:.1f} us a verdict on average, math-verify {peer:.0f} us "
          f"(median {statistics.median(best):.0f} us), ratio of the averages {peer / mine:.0f}")


if __name__ == "__main__":
    main()
