"""Compiles every file that holds a mutex of common/base/mutex.h with clang's -Wthread-safety as an error, without making code.

    tests/thread_safety.py BUILD     BUILD: a configured build folder, for its include paths

Exit code 77 (CTest: skipped) where there is no clang++. First it proves itself: clang has to refuse a member that is read without its mutex."""
import concurrent.futures
import json
import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
BUILD = pathlib.Path(sys.argv[1]).resolve()
CLANG = next(filter(None, map(shutil.which, ["clang++", *(f"clang++-{n}" for n in range(25, 13, -1))])), None)
FLAGS = ["-x", "c++", "-std=c++20", "-fsyntax-only", "-Wno-everything", "-Wthread-safety", "-Werror=thread-safety"]
USES = re.compile(r"\b(MutexLock|PLUMB_GUARDED_BY|PLUMB_REQUIRES|PLUMB_EXCLUDES)\b")
BROKEN = """#include "common/base/mutex.h"
class Counter {
 public:
  int value() { return value_; }
 private:
  plumb::Mutex mu_;
  int value_ PLUMB_GUARDED_BY(mu_) = 0;
};
"""

if CLANG is None:
    print("thread_safety: SKIPPED: no clang++; as root: apt-get install -y clang", file=sys.stderr)
    sys.exit(77)
version = subprocess.run([CLANG, "-dM", "-E", "-x", "c++", "-"], input="", capture_output=True, text=True).stdout
if int(re.search(r"__clang_major__ (\d+)", version)[1]) < 15:  # as cmake/PlumbTargets.cmake
    FLAGS += ["-isystem", str(ROOT / "tests/fuzz/clang14")]


def compile_text(arguments, text=None):
    return subprocess.run([CLANG, *FLAGS, *arguments], input=text, capture_output=True, text=True, cwd=ROOT)


proof = compile_text(["-I", str(ROOT), "-"], BROKEN)
if proof.returncode == 0 or "requires holding mutex 'mu_'" not in proof.stderr:
    sys.exit("thread_safety: clang does not notice a member that is read without its mutex:\n" + proof.stderr)

work = []


def sources(entry):
    """The sources of an entry: a unit of several includes them (cmake/PlumbUnity.cmake)."""
    path = pathlib.Path(entry["file"])
    if path.suffix == ".cxx":
        return [ROOT / name for name in re.findall(r'#include "(.+\.cc)"', path.read_text())]
    return [path]


for entry, path in [(e, p) for e in json.loads((BUILD / "compile_commands.json").read_text()) for p in sources(e)]:
    if not path.is_relative_to(ROOT) or path.is_relative_to(ROOT / "tests") or path.suffix != ".cc":
        continue
    header = path.with_suffix(".h")
    if not any(USES.search(p.read_text()) for p in (path, header) if p.exists()):
        continue
    words = shlex.split(entry["command"])
    paths = [w for a, b in zip(words, words[1:] + [""]) for w in ([a, b] if a == "-isystem" else [a] if re.match("-[ID]", a) else [])]
    work.append((path, paths))


def check(item):
    path, paths = item
    return path, compile_text([*paths, str(path)])


failed = 0
with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
    for path, done in pool.map(check, work):
        if done.returncode:
            failed += 1
            print(done.stderr)
print(f"thread_safety: {len(work)} files, {failed} with findings")
sys.exit(1 if failed else 0)
