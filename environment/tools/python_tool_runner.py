"""One program of a model, run behind walls. Arguments: LIMITS as JSON, FILTER in hexadecimal or empty.

Says {"ready": 1}, reads one line {"code": text}, answers {"output": text, "failed": bool} and ends.
"""
import ast
import json
import os
import sys

MOST = 8000  # characters of output


class Output:
    """What is printed, up to its bound."""
    encoding, errors = "utf-8", "replace"

    def __init__(self):
        self.parts, self.size = [], 0

    def write(self, text):
        if self.size < MOST:
            self.parts.append(str(text)[:MOST - self.size])
        self.size += len(text)
        return len(text)

    def flush(self):
        pass

    def isatty(self):
        return False

    def text(self):
        cut = f"\n... {self.size - MOST} more characters" if self.size > MOST else ""
        return "".join(self.parts) + cut


def where(error):
    """The line of the program in which it happened."""
    line, frame = None, error.__traceback__
    while frame is not None:
        if frame.tb_frame.f_code.co_filename == "program":
            line = frame.tb_lineno
        frame = frame.tb_next
    if isinstance(error, SyntaxError) and error.filename == "program":
        line = error.lineno
    return f" (line {line})" if line else ""


def run(code):
    out = Output()
    sys.stdout = sys.stderr = out
    space = {"__name__": "__main__", "__builtins__": __builtins__}
    failed = ""
    try:
        tree = ast.parse(code, "program")
        last = None
        if tree.body and isinstance(tree.body[-1], ast.Expr):
            last = ast.Expression(tree.body.pop().value)
        exec(compile(tree, "program", "exec"), space)
        if last is not None:
            value = eval(compile(last, "program", "eval"), space)
            if value is not None:
                print(repr(value))
    except SystemExit:
        pass
    except BaseException as error:
        message = error.msg if isinstance(error, SyntaxError) else error
        failed = f"{type(error).__name__}: {message}"[:1000] + where(error)
    text = out.text()
    if failed:
        text += ("\n" if text and not text.endswith("\n") else "") + failed
    return {"output": text.rstrip("\n"), "failed": bool(failed)}


def main():
    limits, program = sys.argv[1:3]
    lines = os.fdopen(os.dup(0), "r", encoding="utf-8", errors="surrogatepass", newline="\n")
    out = os.fdopen(os.dup(1), "w", encoding="utf-8", errors="replace")
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)

    def say(reply):
        out.write(json.dumps(reply) + "\n")
        out.flush()

    try:
        wall(json.loads(limits), program)
    except Exception as error:
        say({"error": f"{type(error).__name__}: {error}"})
        return
    say({"ready": 1})
    sys.argv[1:] = []
    line = lines.readline()
    if line:
        say(run(json.loads(line)["code"]))
        os._exit(0)  # threads that the program left do not keep the process


main()
