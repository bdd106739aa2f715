"""compute_score to verl's signature for custom_reward_function: one answer a call, number or dict."""
import re


def compute_score(data_source, solution_str, ground_truth, extra_info=None):
    found = re.findall(r"-?\d+(?:\.\d+)?", solution_str)
    right = bool(found) and float(found[-1]) == float(ground_truth)
    weight = 2.0 if data_source == "hard" else 1.0
    penalty = 0.1 * len(solution_str) / (extra_info or {}).get("max_chars", 100)
    return {"score": weight * right - penalty, "acc": right, "pred": len(found)}


def compute_score_plain(data_source, solution_str, ground_truth, extra_info=None):
    return 1.0 / 3.0 if str(ground_truth) in solution_str else -0.5
