"""Runs an environment written for TRL, verl, OpenRLHF or Gym behind Plumb's JSON lines. Arguments: FILE NAME TOOLS KWARGS.

The file is not changed and knows nothing of this. What it prints goes to stderr. What a tool or a step raises is told to the
policy, as a failed call; what a beginning raises ends that conversation.
"""
import asyncio
import functools
import importlib.abc
import importlib.machinery
import importlib.util
import inspect
import json
import math
import os
import re
import sys
import traceback
import types
import typing
import zlib

CONSTANTS = {}  # arguments of the class, from the recipe
replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
os.dup2(2, 1)
# What data sets call the right answer: filled from the ground truth where a reset asks for one by name.
TRUTHS = ("ground_truth", "answer", "answers", "solution", "label", "labels", "target", "reference")


def say(reply):
    replies.write(json.dumps(reply, default=str) + "\n")
    replies.flush()


def why(error):
    if isinstance(error, SystemExit):
        return f"called exit({error.code})"
    frames = [f for f in traceback.extract_tb(error.__traceback__) if not f.filename.startswith("<")]
    place = f" ({os.path.basename(frames[-1].filename)}:{frames[-1].lineno} in {frames[-1].name})" if frames else ""
    lacks = ""
    if isinstance(error, ModuleNotFoundError) and error.name:
        lacks = (f"; {sys.executable} has no {error.name}: install it there, or name an interpreter that has it, "
                 'args = ["python=venv/bin/python"]')
    return f"{type(error).__name__}: {error}"[:400] + place[:80] + lacks


@functools.cache
def loop():
    """One for the process: what an environment keeps between calls (a session, a lock) belongs to its loop."""
    made = asyncio.new_event_loop()
    asyncio.set_event_loop(made)
    return made


def settled(value):
    return loop().run_until_complete(value) if inspect.isawaitable(value) else value


def parameters(function):
    try:
        return inspect.signature(function).parameters
    except (TypeError, ValueError):
        return {}


def open_ended(function):
    return any(p.kind is p.VAR_KEYWORD for p in parameters(function).values())


def accepted(function, offered, everything=True):
    """Of what is offered that which the function takes by name; all of it where it takes **kwargs, unless told otherwise."""
    if everything and open_ended(function):
        return dict(offered)
    return {k: v for k, v in offered.items() if k in parameters(function)}


def number(value):
    """A finite number out of tensors, arrays and scalars, or None."""
    value = value.tolist() if hasattr(value, "tolist") else value
    while isinstance(value, (list, tuple)) and len(value) == 1:
        value = value[0]
    if value is None:
        return None
    if not isinstance(value, (int, float)):
        raise TypeError(f"a reward is {type(value).__name__} where a number belongs")
    if not math.isfinite(value):
        raise ValueError(f"a reward is {value}")
    return float(value)


def text_of(value):
    """What an observation or a result says."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if hasattr(value, "model_dump"):  # pydantic: of OpenEnv's observations the rest is said otherwise
        value = {k: v for k, v in value.model_dump(mode="json").items() if k not in ("done", "reward", "metadata")}
        texts = [v for v in value.values() if isinstance(v, str)]
        if len(value) == 1 and texts:
            return texts[0]
    if hasattr(value, "tolist"):
        value = value.tolist()
    return value if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False)


def row_of(request):
    """The data set's row, as the other frameworks hand it on."""
    row = dict(request["extra"])
    row.setdefault("prompt", request["prompt"])
    return row


def with_truth(function, row, request):
    for name in TRUTHS:
        if name in parameters(function) or (name == "ground_truth" and open_ended(function)):
            row.setdefault(name, request["ground_truth"])
    return row


def seed_of(request):
    """The same for all answers to a row: they begin alike."""
    given = request["extra"].get("seed")
    text = json.dumps([request["prompt"], request["ground_truth"], request["extra"]], sort_keys=True)
    return given if isinstance(given, int) else zlib.crc32(text.encode())


# --- schemas of functions ---------------------------------------------------------------------------------------------

NAMES = {int: "integer", float: "number", str: "string", bool: "boolean", list: "array", tuple: "array", dict: "object",
         type(None): "null"}


def schema_of_type(hint):
    origin, inside = typing.get_origin(hint), typing.get_args(hint)
    if hint is typing.Any or hint is inspect.Parameter.empty:
        return {}
    if hint in NAMES:
        return {"type": NAMES[hint]}
    if origin is typing.Literal:
        kinds = {NAMES.get(type(v)) for v in inside}
        return {**({"type": kinds.pop()} if len(kinds) == 1 else {}), "enum": list(inside)}
    if origin in (typing.Union, types.UnionType):
        some = [schema_of_type(t) for t in inside if t is not type(None)]
        made = some[0] if len(some) == 1 else {"anyOf": some}
        return {**made, "nullable": True} if type(None) in inside else made
    if origin in (list, tuple, set):
        return {"type": "array", **({"items": schema_of_type(inside[0])} if inside else {})}
    if origin is dict:
        return {"type": "object"}
    if hasattr(hint, "model_json_schema"):
        return hint.model_json_schema()
    return {}


def described(function):
    """Summary and descriptions of the arguments in a docstring of Google's form."""
    doc = inspect.getdoc(function) or ""
    head, _, rest = doc.partition("Args:")
    summary = " ".join(re.split(r"\n\s*\n|\n(?:Returns|Raises|Example)", head.strip())[0].split())
    found, name = {}, None
    for line in rest.splitlines()[1:]:
        if line and not line[0].isspace():
            break
        match = re.match(r"\s{1,8}(\w+)\s*(?:\([^)]*\))?:\s*(.*)", line)
        if match:
            name, found[match[1]] = match[1], match[2].strip()
        elif name and line.strip():
            found[name] += " " + line.strip()
    return summary, found


def schema_of(function, name=None):
    name = name or function.__name__
    hints = typing.get_type_hints(function)
    summary, descriptions = described(function)
    properties, required = {}, []
    for parameter in parameters(function).values():
        if parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL) or parameter.name == "self":
            continue
        if parameter.name not in hints:
            raise LookupError(f"{name}: the parameter {parameter.name} has no type, so its schema is not known")
        properties[parameter.name] = schema_of_type(hints[parameter.name])
        if parameter.name in descriptions:
            properties[parameter.name]["description"] = descriptions[parameter.name]
        if parameter.default is parameter.empty:
            required.append(parameter.name)
    return {"name": name, "description": summary,
            "parameters": {"type": "object", "properties": properties, "required": required}}


