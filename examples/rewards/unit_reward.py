"""A reward as a program: JSON lines in, JSON lines out, nothing but the standard library.

    [[reward.parts]]
    name = "units"
    kind = "program"
    path = "python3"
    args = ["examples/rewards/unit_reward.py"]

Scores whether the right number stands in the answer and whether the unit that the row asks for stands behind it. The
unit comes from another column of the row: {"prompt": ..., "answer": "12", "unit": "km"}.
Anything printed for people goes to stderr; stdout belongs to the protocol.
"""
import json
import sys


def score(request):
    unit = request["extra"].get("unit")
    if unit is None:
        return {"skip": True}  # this reward has nothing to say about the row
    words = request["completion"].split()
    truth = request["ground_truth"]
    number = float(truth in words)
    with_unit = float(any(a == truth and b.rstrip(".") == unit for a, b in zip(words, words[1:])))
    return {"score": 0.5 * number + 0.5 * with_unit, "scores": {"number": number, "unit": with_unit}}


for line in sys.stdin:
    request = json.loads(line)
    print(json.dumps({"id": request["id"], **score(request)}), flush=True)
