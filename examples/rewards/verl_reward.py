"""A verl reward function, as verl users write it: compute_score for one answer at a time."""


def compute_score(data_source, solution_str, ground_truth, extra_info=None):
    right = solution_str.strip().split()[-1:] == [ground_truth]
    short = len(solution_str) <= (extra_info or {}).get("max_chars", 1000)
    return {"score": float(right) * (1.0 if short else 0.5), "right": right, "short": short}
