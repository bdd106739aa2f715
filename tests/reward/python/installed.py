"""Calls the reward functions that TRL and verl ship, and OpenRLHF's documented example, from plain Python. Argument: a folder
for small files that import them. Prints a list of {"file", "function", "chat", "completions", "completion_ids",
"ground_truth", "expected"}; what is not installed is left out, with a line on standard error."""
import importlib.util
import json
import os
import sys

folder = sys.argv[1]
sys.stdout = sys.stderr  # functions print; the list goes to the real one
answers = ["<think>\n2 + 2\n</think>\nSo it is $\\boxed{4}$.", "<think>no</think>\n\\boxed{5}", "#### 4", "it is 4", "", "#### 1,234"]
ids = [[3, 4, 3, 4, 5, 6, 7, 8], [1, 2, 3], [5, 5, 5, 5, 5, 5], [7], [2], list(range(20))]
cases = []


def add(file, function, chat, truth, expected):
    cases.append({"file": file, "function": function, "chat": chat, "completions": answers, "completion_ids": ids,
                  "ground_truth": truth, "expected": [float(value) for value in expected]})


def origin(name):
    spec = importlib.util.find_spec(name.split(".")[0])
    return spec and os.path.join(os.path.dirname(spec.origin), *name.split(".")[1:])


if importlib.util.find_spec("trl"):
    from trl import rewards

    made = {"soft_overlong": "rewards.get_soft_overlong_punishment(max_completion_len=10, soft_punish_cache=5)",
            "repetition": "rewards.get_repetition_penalty_reward(ngram_size=2, max_penalty=-1.0)",
            "cosine": "rewards.get_cosine_scaled_reward(max_len=20)",
            "think": "rewards.think_format_reward", "accuracy": "rewards.accuracy_reward",
            "reasoning": "rewards.reasoning_accuracy_reward"}
    path = os.path.join(folder, "from_trl.py")
    with open(path, "w") as file:
        file.write("from trl import rewards\n\n" + "".join(f"{name} = {what}\n" for name, what in made.items()))
    chats = [[{"role": "assistant", "content": answer}] for answer in answers]
    for name, what in made.items():
        try:
            values = eval(what)(prompts=[[{"role": "user", "content": "What is it?"}]] * len(answers), completions=chats,
                                completion_ids=ids, solution=["$4$"] * len(answers))
        except ImportError as error:
            print(f"{name} of trl left out: {error}", file=sys.stderr)
            continue
        add(path, name, True, "$4$", values)
else:
    print("trl is not installed", file=sys.stderr)

verl = origin("verl.utils.reward_score.gsm8k")
if verl and os.path.exists(verl + ".py"):
    spec = importlib.util.spec_from_file_location("gsm8k", verl + ".py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    add(verl + ".py", "compute_score", False, "4", [module.compute_score(answer, "4") for answer in answers])
else:
    print("verl is not installed", file=sys.stderr)

if importlib.util.find_spec("torch"):
    # The shape of OpenRLHF's example: tensors for all three entries, printing the queries.
    source = ("import torch\n\n\ndef reward_func(queries, prompts, labels, **kwargs):\n    print(queries)\n"
              "    found = [float(label in query[len(prompt):]) for query, prompt, label in zip(queries, prompts, labels)]\n"
              "    reward = torch.tensor(found)\n"
              "    return {'rewards': reward, 'scores': reward, 'extra_logs': {'dummy_scores': reward, 'mean': reward.mean()}}\n")
    path = os.path.join(folder, "from_openrlhf.py")
    with open(path, "w") as file:
        file.write(source)
    space = {}
    exec(source, space)
    reward = space["reward_func"](["What is it?" + answer for answer in answers], ["What is it?"] * len(answers), ["4"] * len(answers))
    add(path, "reward_func", False, "4", reward["rewards"].tolist())
else:
    print("torch is not installed", file=sys.stderr)

print(json.dumps(cases), file=sys.__stdout__)
