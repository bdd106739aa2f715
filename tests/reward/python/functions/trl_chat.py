"""Reward functions to the signature that TRL documents for GRPOTrainer: prompts, completions, columns by name."""
import re


def format_reward(completions, **kwargs):
    """Conversational: a list of message lists."""
    pattern = r"^<think>.*?</think>\s*<answer>.*?</answer>$"
    return [1.0 if re.match(pattern, completion[0]["content"], re.DOTALL) else 0.0 for completion in completions]


def accuracy_reward(prompts, completions, ground_truth, **kwargs):
    rewards = []
    for completion, truth in zip(completions, ground_truth):
        found = re.search(r"<answer>(.*?)</answer>", completion[0]["content"], re.DOTALL)
        rewards.append(None if not truth else float(found is not None and found.group(1).strip() == truth))
    return rewards


def length_reward(completions, max_words, **kwargs):
    """Another column of the row, one value an answer."""
    return [1.0 - min(1.0, len(c[0]["content"].split()) / m) for c, m in zip(completions, max_words)]


def uneven_reward(completions, **kwargs):
    """Numbers that no short decimal holds."""
    return [len(c[0]["content"]) / 7 - 1 / 3 for c in completions]
