#!/usr/bin/env bash
# math-verify 0.9.0 adds whole numbers that stand side by side, where they are to be multiplied or are one number: $6(7)$ is 13,
# $\binom{4}{2}\binom{3}{1}$ is 9, $3\,456$ is 459.
#
# The LaTeX reader takes an integer in front of a positive rational for a mixed number, 2\frac{1}{2} = 5/2, whatever the two are
# made of: parentheses, brackets, binomials, or the groups of one number with thin spaces between them. With \cdot or \times it
# multiplies. A second part of 000 is not positive, so that is a product again: 10\,000 is 0, and equal to 20\,000. A right answer
# gets no reward and a wrong one does, in the gold as in the answer, without a word, and problems of counting are full of such products.
# ConversionConfig(interpret_as_mixed_fractions=False) exists and is read nowhere. Groups with {,} or \! are right. Seen
# 2026-11-30, PyPI math-verify 0.9.0 with latex2sympy2_extended 1.11.0 and sympy 1.14.0:
#   6(7)                         equals 42        False  equals 13             True
#   (6)(7)                       equals 42        False  equals 13             True
#   12\left(\frac{5}{3}\right)   equals 20        False  equals \frac{41}{3}   True
#   2\binom{4}{2}                equals 12        False  equals 8              True
#   \binom{4}{2}\binom{3}{1}     equals 18        False  equals 9              True
#   3\,456                       equals 3456      False  equals 459            True
#   1\,234\,567                  equals 1234567   False  equals 802            True
#   10\,000                      equals 10000     False  equals 20\,000        True
#   6 \cdot (7) and 42, 3{,}456 and 3456, 3\!456 and 3456, 2(1+2) and 6 are equal
# Fails when that changes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q --disable-pip-version-check math-verify==0.9.0 latex2sympy2_extended==1.11.0 \
  sympy==1.14.0 antlr4-python3-runtime==4.13.2
"$work/venv/bin/python" - <<'PY'
import sys

from latex2sympy2_extended import latex2sympy
from latex2sympy2_extended.latex2sympy2 import ConversionConfig
from math_verify import parse, verify


def equal(gold, answer):
    """The verdict, the same whichever of the two is the gold, whether in dollars or in a box."""
    verdicts = {verify(parse(one), parse(other)) for a, b in ((gold, answer), (answer, gold))
                for one, other in ((f"${a}$", f"${b}$"), (f"${a}$", rf"\boxed{{{b}}}"))}
    return "both" if len(verdicts) == 2 else verdicts.pop()


cases = [  # what is written, what it is worth, what it is taken for
    (r"6(7)", "42", "13"),
    (r"(6)(7)", "42", "13"),
    (r"12\left(\frac{5}{3}\right)", "20", r"\frac{41}{3}"),
    (r"2\binom{4}{2}", "12", "8"),
    (r"\binom{4}{2}\binom{3}{1}", "18", "9"),
    (r"3\,456", "3456", "459"),
    (r"1\,234\,567", "1234567", "802"),
    (r"10\,000", "10000", r"20\,000"),
]
ok = True
for written, worth, taken in cases:
    seen = equal(written, worth), equal(written, taken)
    ok &= seen == (False, True)
    print(f"{written:28} equals {worth:9} {seen[0]!s:6} equals {taken:14} {seen[1]}")
for written, worth in ((r"6 \cdot (7)", "42"), (r"3{,}456", "3456"), (r"3\!456", "3456"), (r"2(1+2)", "6")):
    seen = equal(written, worth)
    ok &= seen is True
    print(f"{written:28} equals {worth:12} {seen}")
off = latex2sympy("6(7)", conversion_config=ConversionConfig(interpret_as_mixed_fractions=False))
print("6(7) without mixed numbers  ", off)
sys.exit(0 if ok and off == 13 else "the behaviour changed")
PY
