"""A TRL reward that finds the right answer anywhere in the text: with an empty one every text would have it."""


def includes(completions, answer, **kwargs):
    return [None if right is None else float(right in text) for text, right in zip(completions, answer)]
