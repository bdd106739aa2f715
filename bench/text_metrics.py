#!/usr/bin/env python3
"""ROUGE, BLEU and F1 of Plumb beside rouge-score and sacrebleu: the same pairs, one thread, one after the other, ratios printed.

  bench/text_metrics.py [--bench build/bench/text_metrics_bench] [--rounds 5]

Needs rouge-score and sacrebleu in this Python, and text_metrics_bench: cmake --preset release -DPLUMB_BENCH=ON && ninja -C build
text_metrics_bench. sacrebleu remembers the tokens of lines that it has seen: its memory is emptied before each round. F1 has no
package: its peer is the SQuAD formula in Python.
"""
import argparse
import collections
import json
import logging
import pathlib
import re
import string
import subprocess
import time

from rouge_score import rouge_scorer
from sacrebleu.metrics import BLEU
from sacrebleu.tokenizers.tokenizer_13a import Tokenizer13a
from sacrebleu.tokenizers.tokenizer_re import TokenizerRegexp

ROOT = pathlib.Path(__file__).resolve().parent.parent
parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--bench", type=pathlib.Path, default=ROOT / "build/bench/text_metrics_bench")
parser.add_argument("--rounds", type=int, default=5)
args = parser.parse_args()
golden = ROOT / "tests/golden/text_metrics.json"
pairs = [(c["answer"], c["truth"]) for c in json.loads(golden.read_text())["cases"]]
logging.getLogger("sacrebleu").setLevel(logging.ERROR)


def words(text):
    text = "".join(c for c in text.lower() if c not in PUNCTUATION)
    return re.sub(r"\b(a|an|the)\b", " ", text).split()


def f1(answer, truth):
    a, t = words(answer), words(truth)
    same = sum((collections.Counter(a) & collections.Counter(t)).values())
    return 2 * same / (len(a) + len(t)) if same else float(a == t)


PUNCTUATION = set(string.punctuation)
bleu = BLEU(effective_order=True)


def rouge(kind, stem):
    scorer = rouge_scorer.RougeScorer([kind], use_stemmer=stem)
    return lambda answer, truth: scorer.score(truth, answer)


PEERS = {"rouge1": rouge("rouge1", False), "rouge2": rouge("rouge2", False), "rougeL": rouge("rougeL", False),
         "rougeL stemmed": rouge("rougeL", True), "bleu": lambda a, t: bleu.sentence_score(a, [t]), "f1": f1}
ours = dict(line.split("\t") for line in subprocess.run([args.bench, golden], check=True, capture_output=True, text=True).stdout.splitlines())
print(f"{len(pairs)} pairs, {sum(len(a) + len(t) for a, t in pairs) / len(pairs):.0f} characters a pair on average; microseconds a pair")
for name, peer in PEERS.items():
    best = float("inf")
    for _ in range(args.rounds):
        Tokenizer13a.__call__.cache_clear()
        TokenizerRegexp.__call__.cache_clear()
        start = time.perf_counter()
        for answer, truth in pairs:
            peer(answer, truth)
        best = min(best, (time.perf_counter() - start) / len(pairs) * 1e6)
    print(f"{name:15} plumb {float(ours[name]):8.2f}   python {best:9.2f}   ratio {best / float(ours[name]):6.1f}")
