"""OpenRLHF calls by position, so the parameters may have any names; extra_logs may hold one number for all."""


def reward_func(texts, questions, targets):
    rewards = [float(text == question + target) for text, question, target in zip(texts, questions, targets)]
    return {"rewards": rewards, "extra_logs": {"accuracy": sum(rewards) / len(rewards), "asked": [q.startswith("<user>") for q in questions]}}
