"""Unit tests of generated code, in two processes that see nothing of each other but plain values.

Arguments: ROLE LIMITS FILTER, ROLE judge or candidate; LIMITS as JSON; FILTER a system-call filter in hexadecimal, or empty.
  judge      holds the tests, calls the code by name, decides. It never executes a line of the code.
  candidate  holds the code, answers calls. It is never given a test, an expected value or anything that says "passed".
Each speaks lines on descriptors 0 and 1 with Plumb, which carries calls and values between them (reward/doors/code_tests.h):
  to the candidate   {"prompt","code","entry"} once, then one call a line
  from it            {"ready":1}, {"names":[..]} or {"error":".."}, then one reply a line
  to the judge       {"prompt","setup","tests","entry","names"} for each answer, then "R reply" or "X why" to each call
  from it            {"ready":1}; "N number of tests", "C call", "P index", "F index why", "B why" (the tests are bad), "D"
"""
import ast
import builtins
import json
import os
import sys

MAX_EXACT = 2 ** 53
sys.setrecursionlimit(2000)


class NotPlain(Exception):
    pass


def encode(value, handles=None, depth=0):
    """Plain data as JSON that keeps types apart; what a subclass redefines does not count. Else a handle, or NotPlain."""
    if depth > 200:
        raise NotPlain("nested deeper than 200")
    kind = type(value)
    if value is None or kind is bool or kind is str:
        return value
    if kind is Handle:
        return {"h": object.__getattribute__(value, "_id")}
    if kind is int:
        return value if -MAX_EXACT < value < MAX_EXACT else {"i": hex(value)}
    if kind is float:
        return value if value - value == 0 else {"f": repr(value)}
    if kind is complex:
        return {"c": [encode(value.real), encode(value.imag)]}
    if kind is bytes:
        return {"b": value.hex()}
    if kind is range:
        return {"r": [encode(value.start), encode(value.stop), encode(value.step)]}
    inner = lambda items: [encode(item, handles, depth + 1) for item in items]
    if kind is list:
        return inner(value)
    for tag, base in (("t", tuple), ("s", set), ("z", frozenset)):
        if kind is base:
            return {tag: inner(value)}
    if kind is dict:
        return {"d": [[encode(k, handles, depth + 1), encode(v, handles, depth + 1)] for k, v in value.items()]}
    for base in (int, float, str, bytes, tuple, list, dict, set, frozenset):  # subclasses: the plain value inside
        if base in kind.__mro__:
            plain = {int: int.__int__, float: float.__float__, str: str.__str__, dict: lambda v: dict(dict.items(v)),
                     bytes: lambda v: bytes(memoryview(v))}.get(base, lambda v: base(base.__iter__(v)))
            return encode(plain(value), handles, depth + 1)
    if handles is None:
        raise NotPlain(f"a {kind.__name__} cannot be handed to the code: only plain values can")
    handles.append(value)
    return {"h": len(handles) - 1}


def decode(value, handle):
    if isinstance(value, list):
        return [decode(item, handle) for item in value]
    if not isinstance(value, dict):
        return value
    (tag, body), = value.items()
    items = lambda: (decode(item, handle) for item in body)
    if tag == "i":
        return int(body, 16)
    if tag == "f" and body in ("nan", "inf", "-inf"):
        return float(body)
    if tag == "c":
        return complex(*items())
    if tag == "b":
        return bytes.fromhex(body)
    if tag == "r":
        return range(*items())
    if tag == "t":
        return tuple(items())
    if tag == "s":
        return set(items())
    if tag == "z":
        return frozenset(items())
    if tag == "d":
        return {decode(k, handle): decode(v, handle) for k, v in body}
    if tag == "h":
        return handle(body)
    raise ValueError("unknown tag")


class Handle:
    """In the judge: something of the candidate's that is no plain value. It can be used, never compared."""
    __slots__ = ("_id", "_ask")

    def __init__(self, number, ask):
        object.__setattr__(self, "_id", number)
        object.__setattr__(self, "_ask", ask)

    def _refuse(self, *_):
        raise TypeError("what the code returned is no plain value and cannot be compared")

    __eq__ = __ne__ = __lt__ = __le__ = __gt__ = __ge__ = __hash__ = _refuse

    def __call__(self, *args, **kwargs):
        return self._ask({"call": self._id}, args, kwargs)

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return self._ask({"attr": self._id, "name": name}, (), {})

    def _special(name):
        def method(self, *args):
            return self._ask({"special": self._id, "name": name}, args, {})
        return method

    __len__, __getitem__, __contains__ = _special("__len__"), _special("__getitem__"), _special("__contains__")
    __iter__, __next__, __bool__ = _special("__iter__"), _special("__next__"), _special("__bool__")
    __str__, __repr__ = _special("__str__"), _special("__repr__")


SPECIALS = {"__len__": len, "__getitem__": lambda o, k: o[k], "__contains__": lambda o, k: k in o, "__iter__": iter,
            "__next__": next, "__bool__": bool, "__str__": str, "__repr__": repr}


# --- the candidate -------------------------------------------------------------------------------------------------

def defines(tree, name):
    return any(getattr(node, "name", None) == name or
               isinstance(node, ast.Assign) and any(getattr(t, "id", None) == name for t in node.targets) for node in tree.body)


def parsed(text):
    try:
        return ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def fenced(text):
    """The code in an answer: behind the thinking, inside <answer>, in the last ``` block; each only where there is one."""
    text = text.rpartition("</think>")[2]
    if text.lstrip().startswith("<think>"):  # never closed: no answer
        return ""
    if "<answer>" in text:
        text = text.rpartition("<answer>")[2].partition("</answer>")[0].lstrip("\n")
    pieces = text.split("```")
    if len(pieces) < 2:
        return text
    body = pieces[len(pieces) - 2 if len(pieces) % 2 else len(pieces) - 1]
    first, _, rest = body.partition("\n")
    return rest if first.strip().isalnum() or not first.strip() else body


def program(prompt, completion, entry):
    """The whole program: the code alone where it is one, in front of it the prompt's where that is Python; else as a continuation."""
    code = fenced(completion)
    own = parsed(code)
    if own is not None and (defines(own, entry) if entry else own.body):
        return (prompt + "\n" if parsed(prompt) is not None else "") + code
    return prompt + code


def why(error):
    try:
        return f"{type(error).__name__}: {error}"[:300]
    except BaseException:
        return "an exception that cannot be shown"


def candidate(read, write):
    request = json.loads(read())
    space = {"__name__": "candidate"}
    try:
        exec(compile(program(request["prompt"], request["code"], request["entry"]), "answer", "exec"), space)
    except BaseException as error:  # SystemExit too: a program that ends itself defines nothing
        return write(json.dumps({"error": why(error)}))
    write(json.dumps({"names": [name for name, value in list(space.items())
                                if type(name) is str and not name.startswith("__") and type(value) is not type(ast)]}))
    objects = []
    while line := read():
        call = json.loads(line)
        try:
            args = [decode(a, lambda h: objects[h]) for a in call["args"]]
            kwargs = {k: decode(v, lambda h: objects[h]) for k, v in call["kwargs"].items()}
            if "function" in call:
                result = space[call["function"]](*args, **kwargs)
            elif "call" in call:
                result = objects[call["call"]](*args, **kwargs)
            elif "attr" in call:
                result = getattr(objects[call["attr"]], call["name"])
            else:
                result = SPECIALS[call["name"]](objects[call["special"]], *args)
            reply = {"value": encode(result, objects)}
            after = [encode(a, objects) if type(a) in (list, dict, set) else None for a in args]
            if any(a is not None and a != b for a, b in zip(after, call["args"])):
                reply["args"] = after
            text = json.dumps(reply)
        except BaseException as error:
            kinds = [k.__name__ for k in type(error).__mro__ if getattr(builtins, k.__name__, None) is k]
            text = json.dumps({"raise": kinds, "why": why(error)})
        write(text)


# --- the judge -----------------------------------------------------------------------------------------------------

class Gone(BaseException):
    pass


class Marks(ast.NodeTransformer):
    """Puts each assert into a block of its own that says how it ended, so that one failure does not hide the others."""

    def __init__(self):
        self.count = 0

    def visit_Assert(self, node):
        index, self.count = self.count, self.count + 1
        note = lambda name, *args: ast.Expr(ast.Call(ast.Name(name, ast.Load()), [ast.Constant(index), *args], []))
        block = ast.Try([node, note("_plumb_passed")], [ast.ExceptHandler(ast.Name("_plumb_exception", ast.Load()), "_plumb_error", [
            note("_plumb_failed", ast.Name("_plumb_error", ast.Load()))])], [], [])
        return ast.fix_missing_locations(ast.copy_location(block, node))


class Space(dict):
    """Names that the tests use and nobody defines are the code's; builtins and the tests' own names never are."""

    def __missing__(self, name):
        if name in vars(builtins):
            raise KeyError(name)
        if name in self["_plumb_names"]:
            return self["_plumb_proxy"](name)
        if name in sys.stdlib_module_names:
            return __import__(name)
        raise KeyError(name)


def judge_one(request, read, write):
    gone = []

    def ask(message, args, kwargs):
        if gone:
            raise Gone(gone[0])
        message["args"] = [encode(a) for a in args]
        message["kwargs"] = {k: encode(v) for k, v in kwargs.items()}
        write("C " + json.dumps(message))
        answer = read()
        if answer is None or not answer.startswith("R "):
            gone.append((answer or "X ended")[2:])
            raise Gone(gone[0])
        try:
            reply = json.loads(answer[2:])
            if "raise" in reply:
                kinds = [getattr(builtins, k) for k in reply["raise"] if type(k) is str and hasattr(builtins, k)]
                kind = next((k for k in kinds if type(k) is type and issubclass(k, Exception)), RuntimeError)
                if issubclass(kind, StopIteration) and message.get("name") != "__next__":
                    kind = RuntimeError  # else it would end a test's map() as if all of it had been seen
                text = str(reply.get("why"))[:300]
            else:
                value = decode(reply["value"], lambda h: Handle(h, ask))
                after = [decode(a, lambda h: Handle(h, ask)) for a in reply.get("args", [])]
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError):
            gone.append("its reply is no value")
            raise Gone(gone[0]) from None
        if "raise" in reply:
            raise UnicodeError(text) if issubclass(kind, UnicodeError) else kind(text)
        for was, now in zip(args, after):  # what a function does to its arguments
            if type(was) is list and type(now) is list:
                was[:] = now
            elif type(was) is type(now) and type(was) in (dict, set):
                was.clear()
                was.update(now)
        return value

    def proxy(name):
        def function(*args, **kwargs):
            return ask({"function": name}, args, kwargs)
        function.__name__ = name
        return function

    state = {}   # index -> passed so far

    def passed(index):
        if gone:
            return failed(index, gone[0])
        state.setdefault(index, True)

    def failed(index, error):
        if isinstance(error, Gone):
            raise error
        if state.get(index) is not False:
            state[index] = False
            write(f"F {index} {why(error) if isinstance(error, BaseException) else error}".replace("\n", " ")[:400])

    entry = request["entry"]
    space = Space({"__name__": "tests", "__builtins__": builtins, "_plumb_names": set(request["names"]), "_plumb_proxy": proxy,
                   "_plumb_passed": passed, "_plumb_failed": failed, "_plumb_exception": Exception})
    prompt = parsed(request["prompt"])
    if prompt is not None:
        try:
            exec(compile(prompt, "prompt", "exec"), space)
        except Exception:
            pass  # the code's problem, should it need more than this
        for node in prompt.body:  # what the prompt leaves to the code: its calls go there
            if hasattr(node, "name") and all(isinstance(line, ast.Pass) or isinstance(getattr(line, "value", None), ast.Constant)
                                             and isinstance(line, ast.Expr) for line in node.body):
                space.pop(node.name, None)
    space.pop(entry, None)
    for text in request["setup"]:
        try:
            exec(compile(text, "setup", "exec"), space)
        except Exception as error:
            return write("B the tests' set-up does not run: " + why(error).replace("\n", " "))
    marks, blocks = Marks(), []
    for text in request["tests"]:
        try:
            tree = ast.parse(text)
        except (SyntaxError, ValueError) as error:
            return write("B a test is no Python: " + why(error).replace("\n", " "))
        first = marks.count
        tree = marks.visit(tree)
        if marks.count == first:  # no assert: it passes when it comes to its end
            tree.body.append(ast.parse(f"_plumb_passed({first})").body[0])
            marks.count += 1
        blocks.append((first, marks.count, compile(ast.fix_missing_locations(tree), "test", "exec"), defines(tree, "check")))
    if any(check for *_, check in blocks) and not entry:
        return write("B the tests define check(candidate) but the row has no entry_point")
    write(f"N {marks.count}")
    for first, last, code, check in blocks:
        aborted = ""
        try:
            if gone:
                raise Gone(gone[0])
            exec(code, space)
            if check:
                space["check"](proxy(entry))
        except Gone as error:
            aborted = why(error)
        except BaseException as error:
            aborted = why(error)
        for index in range(first, last):
            if index not in state and (aborted or gone):
                failed(index, aborted or gone[0])
        if aborted and not gone and all(state.get(i) for i in range(first, last)):
            failed(last - 1, aborted)  # it broke behind its last assert
    for index in range(marks.count):
        if state.get(index, True):
            write(f"P {index}")  # an assert that the tests' own branches passed by counts as kept
    write("D")


def judge(read, write):
    while line := read():
        judge_one(json.loads(line), read, write)


# --- both ----------------------------------------------------------------------------------------------------------

def main():
    role, limits, program = sys.argv[1:4]
    lines = os.fdopen(os.dup(0), "r", encoding="utf-8", errors="surrogatepass", newline="\n")
    out = os.dup(1)
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)

    def read():
        line = lines.readline()
        return line.rstrip("\n") if line.endswith("\n") else None

    def write(text):
        data = (text + "\n").encode("utf-8", "surrogatepass")
        while data:
            data = data[os.write(out, data):]

    try:
        wall(json.loads(limits), program)
    except Exception as error:
        write(json.dumps({"error": why(error)}))
        return
    write(json.dumps({"ready": 1, "version": sys.version.split()[0]}))
    sys.argv[1:] = []
    (judge if role == "judge" else candidate)(read, write)


main()
