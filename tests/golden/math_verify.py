"""math-verify's verdicts beside ours: fills in `math_verify` of math_pairs.jsonl and checks GSM8K.

    pip install 'math-verify[antlr4_13_2]==0.9.0'
    python tests/golden/math_verify.py [--gsm8k FOLDER] [--first N] [--rows N]

A pair is what a grader sees: the gold answer and the model's answer, both as written. How math-verify gets them: read(). `expected` is a human reading and is
never written here. tests/reward/maths/math_answer_test.cc holds our verdicts to `expected`, and the pairs where math-verify's
differ to math_disagreements.json. On GSM8K every gold answer is compared with itself in the renderings of that test.
"""
import argparse
import gzip
import json
import pathlib
import re
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path = [p for p in sys.path if pathlib.Path(p or ".").resolve() != HERE]  # this file has the package's name

from math_verify import parse, verify  # noqa: E402


def read(text):
    """In dollars, which is how it wants LaTeX, unless the text has marks of its own or is prose; else the other way."""
    marked = any(mark in text for mark in ("$", "\\(", "\\[", "\\boxed", "\\fbox"))
    prose = re.search(r"(?<![\\{a-zA-Z])[A-Za-z]{4,}", text.replace("\\text{", "{"))
    ways = [text, f"${text}$"] if marked or prose else [f"${text}$", text]
    return parse(ways[0]) or parse(ways[1])


def same(gold, answer):
    try:
        return bool(verify(read(gold), read(answer)))
    except Exception:  # a verdict that math-verify cannot give is none
        return None


def renderings(digits):
    """Spellings of a whole number; the C++ test has the same."""
    return [digits, digits + ".00", "$" + digits, "\\boxed{" + digits + "}", "x = " + digits, "The answer is " + digits + ".",
            "\\frac{" + digits + "}{1}", digits + " \\text{ dollars}", "$" + digits + "$"]


def main():
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--gsm8k", default=str(HERE.parent.parent.parent / "shared/data/gsm8k"))
    options.add_argument("--first", type=int, default=0, help="row of each file to begin with")
    options.add_argument("--rows", type=int, default=0, help="of each file; 0: all")
    options = options.parse_args()

    path = HERE / "math_pairs.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for row in rows:
        row["math_verify"] = same(row["gold"], row["answer"])
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    differ = [row for row in rows if row["math_verify"] != row["expected"]]
    print(f"{len(rows)} pairs, math-verify differs from the human reading on {len(differ)}")
    for row in differ:
        print(" ", json.dumps(row, ensure_ascii=False))

    total, misses = 0, {}
    for name in ("train", "test"):
        file = pathlib.Path(options.gsm8k) / f"{name}.jsonl.gz"
        if not file.exists():
            print(f"NOT COMPARED: {file} is not here")
            continue
        with gzip.open(file, "rt") as lines:
            for at, line in enumerate(lines):
                if at < options.first:
                    continue
                if options.rows and at >= options.first + options.rows:
                    break
                gold = json.loads(line)["answer"].split("####")[1].strip()
                digits = gold.replace(",", "")
                parsed = read(gold)
                for which, text in enumerate(renderings(digits)):
                    total += 1
                    try:
                        good = verify(parsed, read(text))
                    except Exception:
                        good = False
                    if not good:
                        misses.setdefault(which, []).append((gold, text))
    print(f"GSM8K: {total} renderings, math-verify rejects {sum(map(len, misses.values()))}")
    for which, pairs in sorted(misses.items()):
        print(f"  rendering {which}: {len(pairs)}, e.g. {pairs[0]}")


if __name__ == "__main__":
    sys.exit(main())
