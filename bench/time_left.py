"""How far the time left that a run shows is from what then comes: a real run, watched on its terminal.

    python3 bench/time_left.py [--plumb build/plumb] [--out DIR] [RECIPE [OPTIONS OF plumb train]...]

Without a recipe: the first 120 steps of the demo's, configs/arithmetic_grpo.toml. The run has a terminal of its own, so that each step draws
its line; what it says at 25, 50 and 75 % of its steps stands beside the time that then passed until its last line, the last checkpoint and
evaluation included. Ends with 1 where one of them is off by more than --within (0.2) and three seconds."""
import argparse
import os
import pathlib
import pty
import re
import struct
import fcntl
import sys
import tempfile
import termios
import time

HERE = pathlib.Path(__file__).resolve().parent
LINE = re.compile(r"step (\d+)/(\d+) .*?([\dhm:]+) left")


def seconds(text):
    if "h" in text:
        hours, minutes = text.rstrip("m").split("h")
        return 3600 * int(hours) + 60 * int(minutes)
    minutes, rest = text.split(":")
    return 60 * int(minutes) + int(rest)


def watch(command):
    """(monotonic time, steps done, of, said) of every line, the time of the end of training, and the exit code."""
    child, terminal = pty.fork()
    if child == 0:
        os.execv(command[0], command)
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 160, 0, 0))
    seen, text, trained = [], "", None
    while True:
        try:
            piece = os.read(terminal, 1 << 16)
        except OSError:  # how Linux says that the other end is closed
            piece = b""
        now = time.monotonic()
        if not piece:
            break
        text = (text + piece.decode("utf-8", "replace"))[-4096:]
        for found in LINE.finditer(text):
            done = int(found[1])
            if not seen or done > seen[-1][1]:
                seen.append((now, done, int(found[2]), seconds(found[3])))
    trained = time.monotonic()
    return seen, trained, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), text


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--plumb", default=str(HERE.parent / "build" / "plumb"))
    parser.add_argument("--out", help="folder of the run; a temporary one by default")
    parser.add_argument("--within", type=float, default=0.2)
    parser.add_argument("recipe", nargs="?", default=None)
    arguments, more = parser.parse_known_args()
    recipe = arguments.recipe or str(HERE.parent / "configs" / "arithmetic_grpo.toml")
    if arguments.recipe is None:
        more = ["--steps", "120"] + more
    with tempfile.TemporaryDirectory() as temp:
        out = arguments.out or os.path.join(temp, "run")
        begin = time.monotonic()
        seen, end, code, text = watch([arguments.plumb, "train", recipe, "--out", out] + more)
    if code != 0 or not seen:
        sys.exit(f"the run ended with {code}:\n{text}")
    print(f"{os.path.basename(recipe)} {' '.join(more)}: {seen[-1][2]} steps in {end - begin:.0f} s, "
          f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    worst = 0
    for share in (0.25, 0.5, 0.75):
        now, done, of, said = next(s for s in seen if s[1] >= share * s[2])
        took = end - now
        off = abs(said - took)
        worst = max(worst, 0 if off <= 3 else off / took)
        print(f"  at step {done} of {of}: said {said} s, it took {took:.1f} s ({100 * (said - took) / took:+.0f} %)")
    sys.exit(0 if worst <= arguments.within else 1)


if __name__ == "__main__":
    main()
