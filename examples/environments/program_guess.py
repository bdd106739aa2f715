#!/usr/bin/env python3
"""An environment that speaks JSON lines: kind = "program", in any language (docs/environments.md)."""
import json
import sys

TOOL = {"name": "guess", "description": "Says whether the secret number is higher or lower.",
        "parameters": {"type": "object", "required": ["number"], "properties": {"number": {"type": "integer"}}}}
numbers = {}


def say(value):
    print(json.dumps(value), flush=True)


say({"ready": True, "tools": [TOOL]})
for line in sys.stdin:
    request = json.loads(line)
    reply, episode = {"id": request["id"]}, request["episode"]
    if request["call"] == "begin":
        numbers[episode] = int(request["ground_truth"])
        reply["observation"] = "I think of a number from 1 to 20."
    elif request["call"] == "end":
        numbers.pop(episode, None)
    else:
        number, reply["results"] = numbers[episode], []
        for call in request["calls"]:
            guess = call["arguments"]["number"]
            reply["results"].append("right" if guess == number else "higher" if guess < number else "lower")
            if guess == number:
                reply.update(done=True, reward=1.0)
        if not request["calls"] or (request["last"] and not reply.get("done")):
            reply.update(done=True, reward=0.0)
    say(reply)
