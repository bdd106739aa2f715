"""An OpenRLHF reward function, as OpenRLHF users write it: reward_func over a batch of full texts."""


def reward_func(queries, prompts, labels, **kwargs):
    rewards = []
    for query, prompt, label in zip(queries, prompts, labels):
        answer = query[len(prompt):]
        rewards.append(1.0 if label in answer else -1.0)
    return {"rewards": rewards, "scores": [(r + 1) / 2 for r in rewards], "extra_logs": {"length": [len(q) for q in queries]}}
