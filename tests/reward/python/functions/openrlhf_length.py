"""reward_func to OpenRLHF's signature for --reward.remote_url FILE: full texts, prompts, labels; lists back."""


def reward_func(queries, prompts, labels, **kwargs):
    rewards, scores, words = [], [], []
    for query, prompt, label in zip(queries, prompts, labels):
        answer = query[len(prompt):]
        right = label in answer
        rewards.append((1.0 if right else -1.0) + 1.0 / (3 + len(answer)))
        scores.append(float(right))
        words.append(len(answer.split()))
    return {"rewards": rewards, "scores": scores, "extra_logs": {"words": words, "is_long": [w > 3 for w in words]}}
