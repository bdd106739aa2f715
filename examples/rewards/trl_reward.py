"""A TRL reward function, as TRL users write it; nothing in here knows Plumb.

    [[reward.parts]]
    name = "digits"
    kind = "python"
    path = "examples/rewards/trl_reward.py"
"""


def reward_digits(prompts, completions, answer, **kwargs):
    """1 for the right answer, 0.2 for any number, None where the row has no answer."""
    rewards = []
    for completion, truth in zip(completions, answer):
        text = completion if isinstance(completion, str) else completion[0]["content"]
        if not truth:
            rewards.append(None)
        elif truth in text.split():
            rewards.append(1.0)
        else:
            rewards.append(0.2 if any(c.isdigit() for c in text) else 0.0)
    return rewards
