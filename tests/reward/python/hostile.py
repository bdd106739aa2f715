"""Ways for a Python reward to misbehave, one function each."""
import os
import sys
import time


def raises(completions, **kwargs):
    raise ValueError("no idea")


def too_few(completions, **kwargs):
    return [1.0]


def not_a_number(completions, **kwargs):
    return [float("nan") for _ in completions]


def nothing(completions, **kwargs):
    completions.sort()


def text(completions, **kwargs):
    return ["good" for _ in completions]


def leaves(completions, **kwargs):
    sys.exit(0)


def leaves_hard(completions, **kwargs):
    os._exit(0)


def hangs(completions, **kwargs):
    time.sleep(1000)


def greedy(completions, **kwargs):
    block = bytearray(10 << 30)
    return [float(len(block)) for _ in completions]


def prints(completions, **kwargs):
    print('{"id": 1, "score": 99}')
    return [0.25 for _ in completions]


async def later(completions, **kwargs):
    return [0.75 for _ in completions]


def lacks(prompts, completions, nocolumn):
    return [0.0] * len(completions)


def of_texts(completions, **kwargs):
    return [len(c.split()) for c in completions]
