#!/usr/bin/env bash
# math-verify 0.9.0: a gold of $0.\overline{27}$ is 0: the answer 0 gets the reward, 3/11 does not, and neither is an error.
#
# The LaTeX reader cannot read a number that ends at its point. parse() then falls back, silently, to the extraction of plain
# numbers, which finds the digits in front of the point: a decimal that repeats from the point on is its integer part, 2.\overline{45} is
# 2, and all below 1 are equal. Nothing tells such a parse from a good one, so the usual guard, to skip a gold that parses to nothing, does
# not see it. \boxed{} has no such fall-back: there the result is the bare text, equal to the same text only. With a digit before
# the bar it is a product with an unknown. An answer that gives both forms, 3/11 = 0.(27), is wrong as well. Seen
# 2026-11-30, PyPI math-verify 0.9.0 with latex2sympy2_extended 1.11.0 and sympy 1.14.0:
#   gold $0.\overline{27}$        read as 0                    answer \boxed{\frac{3}{11}}               False
#   gold $0.\overline{27}$        read as 0                    answer \boxed{0}                          True
#   gold $0.\overline{27}$        read as 0                    answer $0.\overline{36}$                  True
#   gold $2.\overline{45}$        read as 2                    answer $2$                                True
#   gold $\frac{3}{11}$           read as 3/11                 answer $\frac{3}{11} = 0.\overline{27}$   False
#   gold \boxed{0.\overline{27}}  read as 0.\overline{27}      answer \boxed{\frac{3}{11}}               False
#   gold $0.1\overline{6}$        read as 0.1*bar{6}           answer $\frac{1}{6}$                      False
# and seven more below. Fails when that changes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q --disable-pip-version-check math-verify==0.9.0 latex2sympy2_extended==1.11.0 \
  sympy==1.14.0 antlr4-python3-runtime==4.13.2
"$work/venv/bin/python" - <<'PY'
import sys

from math_verify import parse, verify

cases = [  # gold, answer, verdict seen
    (r"$0.\overline{27}$", r"\boxed{\frac{3}{11}}", False),
    (r"$0.\overline{27}$", r"\boxed{0}", True),
    (r"$0.\overline{27}$", r"$0.\overline{36}$", True),
    (r"$0.\bar{3}$", r"$\frac{1}{3}$", False),
    (r"$0.\bar{3}$", r"$0$", True),
    (r"$0.\dot{3}$", r"$0$", True),
    (r"$2.\overline{45}$", r"$2$", True),
    (r"$\frac{3}{11}$", r"The answer is $0.\overline{27}$.", False),
    (r"$\frac{3}{11}$", r"$\frac{3}{11} = 0.\overline{27}$", False),
    (r"\boxed{0.\overline{27}}", r"\boxed{0}", False),
    (r"\boxed{0.\overline{27}}", r"\boxed{\frac{3}{11}}", False),
    (r"\boxed{0.\overline{27}}", r"\boxed{0.\overline{27}}", True),
    (r"$0.1\overline{6}$", r"$\frac{1}{6}$", False),
    (r"$\frac{3}{11}$", r"$0.272727272727$", True),
]
ok = True
for gold, answer, verdict in cases:
    read, seen = parse(gold), verify(parse(gold), parse(answer))
    ok &= seen == verdict and len(read) > 0
    print(f"gold {gold:24} read as {str(read[0]):20} answer {answer:34} {seen}" + ("" if seen == verdict else f"   NOT {verdict}"))
sys.exit(0 if ok else "the behaviour changed")
PY
