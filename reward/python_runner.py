"""Runs a reward function written for TRL, verl or OpenRLHF behind Plumb's JSON lines. Arguments: FILE STYLE FUNCTION.

The function's file is not changed and knows nothing of this. What it prints goes to stderr; what it raises becomes
{"error": ...} for the answers concerned, never a number.
"""
import asyncio
import importlib.util
import inspect
import json
import os
import sys

replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
os.dup2(2, 1)
MARKS = {"verl": {"solution_str"}, "openrlhf": {"queries"}, "trl": {"completions"}}
# What data sets call the right answer: filled from the ground truth where a function asks for one by name.
TRUTHS = ("ground_truth", "answer", "answers", "solution", "label", "labels", "target", "reference")


def say(reply):
    replies.write(json.dumps(reply) + "\n")
    replies.flush()


def parameters(function):
    try:
        return inspect.signature(function).parameters
    except (TypeError, ValueError):
        return {}


def style_of(function):
    names = set(parameters(function))
    return next((style for style, marks in MARKS.items() if marks <= names), None)


def load(path, style, name):
    sys.path.insert(0, os.path.dirname(path))
    spec = importlib.util.spec_from_file_location(os.path.splitext(os.path.basename(path))[0], path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    if name:
        if not callable(getattr(module, name, None)):
            raise LookupError(f"has no function {name}")
        function = getattr(module, name)
    else:
        own = {n: f for n, f in vars(module).items()
               if inspect.isfunction(f) and f.__module__ == spec.name and not n.startswith("_") and style_of(f)}
        for known in ("compute_score", "reward_func"):
            if known in own:
                own = {known: own[known]}
        if len(own) != 1:
            raise LookupError(f"found {sorted(own) or 'no reward function'}; say which with function=NAME")
        function = next(iter(own.values()))
    if style == "auto":
        style = style_of(function)
        if style is None:
            raise LookupError("the function's parameters are those of none of TRL, verl and OpenRLHF; say style=...")
    return function, style


def call(function, **arguments):
    wanted = parameters(function)
    if not any(p.kind is p.VAR_KEYWORD for p in wanted.values()):
        arguments = {k: v for k, v in arguments.items() if k in wanted}
    result = function(**arguments)
    return asyncio.run(result) if inspect.iscoroutine(result) else result


def text_of(prompt):
    return prompt if isinstance(prompt, str) else json.dumps(prompt, ensure_ascii=False)


def plain(value):
    """Numbers out of torch tensors, numpy arrays and scalars."""
    return value.tolist() if hasattr(value, "tolist") else value


def score_of(value, details=None):
    value = plain(value)
    if value is None:
        return {"skip": True}
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        if not isinstance(value, bool):
            return {"error": f"returned {type(value).__name__} where a number belongs", "kind": "bad_reply"}
    reply = {"score": float(value)}
    if details:
        reply["scores"] = details
    return reply


def numbers(mapping, skip=()):
    found = {str(k): plain(v) for k, v in mapping.items() if k not in skip}
    return {k: float(v) for k, v in found.items() if isinstance(v, (int, float))}


def batch_scores(values, count, details=None):
    values = plain(values)
    if not isinstance(values, (list, tuple)):
        values = [values]
    if len(values) != count:
        return [{"error": f"returned {len(values)} scores for {count} answers", "kind": "wrong_count"}] * count
    return [score_of(v, details[i] if details else None) for i, v in enumerate(values)]


def trl(function, group):
    chat = not isinstance(group[0]["prompt"], str)
    completions = [[{"role": "assistant", "content": r["completion"]}] if chat else r["completion"] for r in group]
    columns = {key: [r["extra"].get(key) for r in group] for key in group[0]["extra"]}
    for key in TRUTHS:
        if key == "ground_truth" or key in parameters(function):
            columns.setdefault(key, [r["ground_truth"] for r in group])
    columns.update(prompts=[r["prompt"] for r in group], completions=completions)
    columns.setdefault("completion_ids", None)
    columns.setdefault("trainer_state", None)
    return batch_scores(call(function, **columns), len(group))


def verl(function, group):
    replies = []
    for r in group:
        extra = r["extra"]
        info = extra.get("extra_info", extra)
        result = call(function, data_source=extra.get("data_source", ""), solution_str=r["completion"],
                      ground_truth=r["ground_truth"], extra_info=info)
        if isinstance(result, dict):
            if "score" not in result:
                replies.append({"error": "returned a dict without 'score'", "kind": "bad_reply"})
            else:
                replies.append(score_of(result["score"], numbers(result, skip=("score",))))
        else:
            replies.append(score_of(result))
    return replies


def openrlhf(function, group):
    prompts = [text_of(r["prompt"]) for r in group]
    result = call(function, queries=[p + r["completion"] for p, r in zip(prompts, group)], prompts=prompts,
                  labels=[r["ground_truth"] for r in group])
    if not isinstance(result, dict):
        return batch_scores(result, len(group))
    if "rewards" not in result:
        return [{"error": "returned a dict without 'rewards'", "kind": "bad_reply"}] * len(group)
    details = [{} for _ in group]
    for name, values in {"scores": result.get("scores"), **(result.get("extra_logs") or {})}.items():
        values = plain(values)
        if isinstance(values, (list, tuple)) and len(values) == len(group):
            for i, value in enumerate(values):
                if isinstance(value, (int, float)):
                    details[i][str(name)] = float(value)
    return batch_scores(result["rewards"], len(group), details)


def why(error):
    return f"{type(error).__name__}: {error}"[:480]


def main():
    path, style, name = sys.argv[1:4]
    try:
        function, style = load(path, style, name)
    except BaseException as error:  # SystemExit of a script that is no module, too
        say({"error": why(error)})
        return 3
    say({"ready": True})
    run = {"trl": trl, "verl": verl, "openrlhf": openrlhf}[style]
    group = []
    for line in sys.stdin:
        group.append(json.loads(line))
        if len(group) < group[-1]["of"]:
            continue
        try:
            replies = run(function, group)
        except MemoryError as error:
            replies = [{"error": why(error), "kind": "memory"}] * len(group)
        except SystemExit as error:
            replies = [{"error": f"called exit({error.code})", "kind": "exit"}] * len(group)
        except Exception as error:
            replies = [{"error": why(error)}] * len(group)
        for request, reply in zip(group, replies):
            say({"id": request["id"], **reply})
        group = []
    return 0


sys.exit(main())
