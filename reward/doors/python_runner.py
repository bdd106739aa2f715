"""Runs a reward function written for TRL, verl or OpenRLHF behind Plumb's JSON lines. Arguments: FILE STYLE FUNCTION KWARGS.

The function's file is not changed and knows nothing of this. What it prints goes to stderr; what it raises becomes
{"error": ...} for the answers concerned, never a number.
"""
import asyncio
import functools
import importlib.util
import inspect
import json
import math
import os
import sys
import traceback

# Functions of TRL get texts where the prompts are texts, and lists of one message where they are messages; or always one
# of the two, which the recipe says.
COMPLETIONS = "auto"
CONSTANTS = {}  # arguments of every call, from the recipe; they win, as verl's reward_kwargs do
replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
os.dup2(2, 1)
# The parameters that give a style away. Functions of TRL may want the text, the tokens or both.
MARKS = (("verl", "solution_str"), ("verl", "solution_strs"), ("openrlhf", "queries"), ("trl", "completions"),
         ("trl", "completion_ids"))
# What data sets call the right answer: filled from the ground truth where a function asks for one by name.
TRUTHS = ("ground_truth", "answer", "answers", "solution", "label", "labels", "target", "reference")
TAKEN = ("ground_truth", "answer", "label")  # columns of these names are read as the ground truth


def say(reply):
    replies.write(json.dumps(reply) + "\n")
    replies.flush()


def parameters(function):
    try:
        return inspect.signature(function).parameters
    except (TypeError, ValueError):
        return {}


def open_ended(function):
    return any(p.kind is p.VAR_KEYWORD for p in parameters(function).values())


def style_of(function):
    names = set(parameters(function))
    style = next((style for style, mark in MARKS if mark in names), None)
    return style or ("openrlhf" if getattr(function, "__name__", "") == "reward_func" and len(names) >= 3 else None)


def load(path, style, name):
    sys.path.insert(0, os.path.dirname(path))
    spec = importlib.util.spec_from_file_location(os.path.splitext(os.path.basename(path))[0], path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    if name:
        if not callable(getattr(module, name, None)):
            there = sorted(n for n, f in vars(module).items()
                           if inspect.isfunction(f) and f.__module__ == spec.name and not n.startswith("_"))
            raise LookupError(f"has no function {name}; it has {', '.join(there) or 'none'}")
        function = getattr(module, name)
    else:
        found = {n: f for n, f in vars(module).items()
                 if callable(f) and not inspect.isclass(f) and not n.startswith("_") and style_of(f)}
        # Its own before what it imported or made of imported classes, as TRL's get_soft_overlong_punishment(..) are.
        own = {n: f for n, f in found.items() if inspect.isfunction(f) and f.__module__ == spec.name} or found
        for known in ("compute_score", "reward_func"):
            if known in own:
                own = {known: own[known]}
        if len(own) != 1:
            raise LookupError(f"found {sorted(own) or 'no reward function'}; say which: args = [\"function=NAME\"]")
        function = next(iter(own.values()))
    unknown = sorted(set(CONSTANTS) - set(parameters(function)))
    if unknown and parameters(function) and not open_ended(function):
        raise LookupError(f"the function has no parameter {unknown[0]}, which kwargs= names")
    if style == "auto":
        style = style_of(function)
        if style is None:
            raise LookupError("the function's parameters are those of none of TRL, verl and OpenRLHF; say style=...")
    return function, style


@functools.cache
def loop():
    """One for the process: what a function keeps between calls (a session, a lock) belongs to its loop."""
    made = asyncio.new_event_loop()
    asyncio.set_event_loop(made)
    return made


def call(function, *positional, **arguments):
    """The function's result; that of a coroutine is still to be awaited."""
    offered = sorted({**arguments, **CONSTANTS})
    if not open_ended(function):
        wanted = parameters(function)
        arguments = {k: v for k, v in arguments.items() if k in wanted}
    arguments = {**arguments, **CONSTANTS}
    if parameters(function):
        try:
            inspect.signature(function).bind(*positional, **arguments)
        except TypeError as error:
            there = f"; what the function may take here: {', '.join(offered)}" if offered else ""
            raise TypeError(f"{error}{there}") from None
    return function(*positional, **arguments)


def awaited(results):
    """What coroutines give, all of them run side by side; an exception in the place of its result."""
    waiting = [i for i, result in enumerate(results) if inspect.isawaitable(result)]

    async def together():
        return await asyncio.gather(*(results[i] for i in waiting), return_exceptions=True)

    if waiting:
        for i, result in zip(waiting, loop().run_until_complete(together())):
            results[i] = result
    return results


def call_now(function, *positional, **arguments):
    result, = awaited([call(function, *positional, **arguments)])
    if isinstance(result, BaseException):
        raise result
    return result


def plain(value):
    """Numbers out of torch tensors, numpy arrays and scalars."""
    return value.tolist() if hasattr(value, "tolist") else value


def score_of(value, details=None):
    value = plain(value)
    if value is None:
        return {"skip": True}
    if not isinstance(value, (int, float)):  # bool is an int
        return {"error": f"returned {type(value).__name__} where a number belongs", "kind": "bad_reply"}
    reply = {"score": float(value)}
    if details:
        reply["scores"] = details
    return reply


def numbers(mapping, skip=()):
    found = {str(k): plain(v) for k, v in mapping.items() if k not in skip}
    return {k: float(v) for k, v in found.items() if isinstance(v, (int, float))}


def counted(n, what):
    return f"{n} {what}" + ("" if n == 1 else "s")


def batch_scores(values, count, details=None):
    values = plain(values)
    if not isinstance(values, (list, tuple)):
        if values is None or not isinstance(values, (int, float)):
            what = "nothing" if values is None else type(values).__name__
            return [{"error": f"returned {what} where a list of {counted(count, 'score')} belongs", "kind": "bad_reply"}] * count
        values = [values]
    if len(values) != count:
        what = f"returned {counted(len(values), 'score')} for {counted(count, 'answer')}"
        return [{"error": what, "kind": "wrong_count"}] * count
    return [score_of(v, details[i] if details else None) for i, v in enumerate(values)]


class TrainerState:
    """TRL's trainer_state, as far as it is known here: how many updates made the weights that wrote the answers."""
    def __init__(self, step):
        self.global_step = step

    def __getattr__(self, name):
        raise AttributeError(f"trainer_state has no {name} here, only global_step")


class Logged:
    """TRL's log_metric and log_extra: finite numbers become sub-scores of the answers; other values are said once."""
    refused = set()

    def __init__(self, count):
        self.details = [{} for _ in range(count)]

    def extra(self, column, values):
        values = plain(values)
        if not isinstance(values, (list, tuple)) or len(values) != len(self.details):
            raise ValueError(f"log_extra('{column}') wants a list with one value for each of {len(self.details)} answers")
        for details, value in zip(self.details, values):
            value = plain(value)
            if isinstance(value, (int, float)) and math.isfinite(value) and (len(details) < 64 or column in details):
                details[str(column)] = float(value)
            elif column not in self.refused:
                self.refused.add(column)
                print(f"logged '{column}' is not kept: only finite numbers are, 64 names at most", file=sys.stderr)

    def metric(self, name, value):
        self.extra(name, [value] * len(self.details))


def trl(function, group):
    wanted = parameters(function)
    chat = not isinstance(group[0]["prompt"], str) if COMPLETIONS == "auto" else COMPLETIONS == "messages"
    completions = [[{"role": "assistant", "content": r["text"]}] if chat else r["text"] for r in group]
    columns = {key: [r["extra"].get(key) for r in group] for key in group[0]["extra"]}
    for key in TRUTHS:
        if key in wanted or (key in TAKEN and open_ended(function)):
            # None where the row has none: "" is in every answer, and a function would call each right.
            columns.setdefault(key, [r["ground_truth"] or None for r in group])
    logged = Logged(len(group))
    ids = [r["completion_ids"] for r in group] if "completion_ids" in group[0] else None
    if ids is None and "completion_ids" in wanted and wanted["completion_ids"].default is inspect.Parameter.empty:
        raise LookupError("wants completion_ids, and this request came as text, without tokens")
    columns.update(prompts=[r["prompt"] for r in group], completions=completions, completion_ids=ids,
                   trainer_state=TrainerState(group[0]["step"]), log_extra=logged.extra, log_metric=logged.metric)
    return batch_scores(call_now(function, **columns), len(group), logged.details)


def verl_score(result):
    if isinstance(result, BaseException):
        return failed(result)
    if isinstance(result, dict):
        if "score" not in result:
            return {"error": "returned a dict without 'score'", "kind": "bad_reply"}
        return score_of(result["score"], numbers(result, skip=("score",)))
    result = plain(result)
    return score_of(result[0] if isinstance(result, (list, tuple)) and result else result)


def verl(function, group):
    sources = [r["extra"].get("data_source", "") for r in group]
    infos = [r["extra"].get("extra_info", r["extra"]) for r in group]
    # The data set's own value where it is no text: a list, a number, an object.
    truths = [nested.get("ground_truth", r["ground_truth"]) if isinstance(nested := r["extra"].get("reward_model"), dict)
              else r["ground_truth"] for r in group]
    if "solution_strs" in parameters(function):  # verl's BatchRewardManager
        results = plain(call_now(function, data_sources=sources, solution_strs=[r["text"] for r in group],
                                 ground_truths=truths, extra_infos=infos))
        if not isinstance(results, (list, tuple)) or len(results) != len(group):
            return batch_scores(results, len(group))
        return [verl_score(result) for result in results]
    results = []
    for r, source, truth, info in zip(group, sources, truths, infos):
        try:
            results.append(call(function, data_source=source, solution_str=r["text"], ground_truth=truth, extra_info=info))
        except Exception as error:
            results.append(error)
    return [verl_score(result) for result in awaited(results)]


def openrlhf(function, group):
    prompts = [r.get("prompt_text", r["prompt"]) for r in group]
    # By position, as OpenRLHF calls it: the names are the user's.
    queries = [prompt + r["completion"] for prompt, r in zip(prompts, group)]
    result = call_now(function, queries, prompts, [r["ground_truth"] for r in group])
    if not isinstance(result, dict):
        return batch_scores(result, len(group))
    if "rewards" not in result:
        return [{"error": "returned a dict without 'rewards'", "kind": "bad_reply"}] * len(group)
    details = [{} for _ in group]
    for name, values in {"scores": result.get("scores"), **(result.get("extra_logs") or {})}.items():
        values = plain(values)
        values = values if isinstance(values, (list, tuple)) else [values] * len(group)  # one number for all of them
        for each, value in zip(details, values if len(values) == len(group) else []):
            value = plain(value)
            if isinstance(value, (int, float)):
                each[str(name)] = float(value)
    return batch_scores(result["rewards"], len(group), details)


def truths_of(function, style):
    """Parameters that get the row's ground truth: without one the function has nothing to compare with."""
    names = {"trl": TRUTHS, "verl": ("ground_truth", "ground_truths"), "openrlhf": ()}[style]
    return [name for name in names if name in parameters(function) and name not in CONSTANTS]


def required_of(function, truths):
    """Those that it has no value of its own for."""
    there = parameters(function)
    return [name for name in truths if there[name].default is inspect.Parameter.empty]


def why(error):
    """In one line: what, and where in the user's own files."""
    if isinstance(error, SystemExit):
        return f"called exit({error.code})"
    frames = [f for f in traceback.extract_tb(error.__traceback__) if not f.filename.startswith("<")]
    place = f" ({os.path.basename(frames[-1].filename)}:{frames[-1].lineno} in {frames[-1].name})" if frames else ""
    lacks = ""
    if isinstance(error, ModuleNotFoundError) and error.name:
        lacks = (f"; {sys.executable} has no {error.name}: install it there, or name an interpreter that has it, "
                 'args = ["python=venv/bin/python"]')
    return f"{type(error).__name__}: {error}"[:400] + place[:80] + lacks


def of_messages(error, style, group):
    """What a function written for texts is not told by Python."""
    lists = style == "trl" and COMPLETIONS == "auto" and isinstance(group[0].get("prompt"), list)
    if not lists or not isinstance(error, (AttributeError, TypeError)) or "list" not in str(error):
        return ""
    return ('; the prompts are messages, so each completion is a list of one message: its text is completion[0]["content"]; '
            'args = ["completions=text"] gives the text alone')


def kind_of(error):
    return "memory" if isinstance(error, MemoryError) else "exit" if isinstance(error, SystemExit) else "reported"


def failed(error, more=""):
    kind = kind_of(error)
    return {"error": ("raised " if kind == "reported" else "") + why(error) + more, "kind": kind}


def main():
    global COMPLETIONS
    path, style, name, constants, COMPLETIONS = sys.argv[1:6]
    try:
        CONSTANTS.update(json.loads(constants))
        function, style = load(path, style, name)
    except BaseException as error:  # SystemExit of a script that is no module, too
        say({"error": why(error)})
        return 3
    truths = truths_of(function, style)
    # verl's functions name the ground truth whether they look at it or not.
    say({"ready": True, "truths": truths, "required": required_of(function, truths) if style == "trl" else []})
    run = {"trl": trl, "verl": verl, "openrlhf": openrlhf}[style]
    group = []
    for line in sys.stdin:
        group.append(json.loads(line))
        if len(group) < group[-1]["of"]:
            continue
        try:
            replies = run(function, group)
        except (Exception, SystemExit) as error:
            replies = [failed(error, of_messages(error, style, group))] * len(group)
        for request, reply in zip(group, replies):
            say({"id": request["id"], **reply})
        group = []
    return 0


sys.exit(main())
