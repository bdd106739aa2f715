#!/usr/bin/env python3
"""An agent of its own: it asks the policy as it would ask any model (pip install openai).

The run starts it once an answer, with OPENAI_BASE_URL and OPENAI_API_KEY of the episode; the row stands on standard input.
The policy has four turns to guess a number; what it is told between them is not learned from. The reward goes back by a call.
"""
import json
import re
import sys

import openai

task = json.loads(sys.stdin.readline())
number = int(task["ground_truth"])
messages = task["prompt"]
if isinstance(messages, str):
    messages = [{"role": "user", "content": messages}]

client = openai.OpenAI()
best = 9
for turn in range(4):
    answer = client.chat.completions.create(model="policy", messages=messages, max_tokens=8)
    text = answer.choices[0].message.content or ""
    messages.append({"role": "assistant", "content": text})
    guesses = [int(digit) for digit in re.findall(r"[0-9]", text)]
    if not guesses:
        said = "no number"
    else:
        best = min(best, abs(guesses[0] - number))
        if guesses[0] == number:
            break
        said = "lower" if guesses[0] > number else "higher"
    messages.append({"role": "user", "content": said})

client.post("/reward", cast_to=object, body={"reward": 1 - best / 9})
