"""Holds the whole tree to .clang-format, so that no review is about spaces. Run by CTest as `format`; `make format` mends what it
finds. Versions of clang-format differ in what they do: only the one that the tree is formatted with is asked."""
import pathlib
import re
import shutil
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
VERSION = 14  # Debian 12: apt-get install clang-format
SKIPPED = 77  # CTest shows such a test as skipped
FOLDERS = ["common", "configs", "kernels", "policy_model", "actor", "reward", "replay", "learner", "run", "tests", "bench", "examples"]
# Written by a program, or another's.
NOT_OURS = re.compile(r"/nfc_tables\.h$|/tests/fuzz/clang14/")


def formatted_files():
    found = [p for f in FOLDERS for p in sorted((ROOT / f).rglob("*")) if p.suffix in {".h", ".cc", ".cu"}]
    return [str(p) for p in found if not NOT_OURS.search(str(p))]


def main():
    program = shutil.which(f"clang-format-{VERSION}") or shutil.which("clang-format")
    said = subprocess.run([program, "--version"], capture_output=True, text=True).stdout if program else "none is installed"
    if not re.search(rf"version {VERSION}\.", said):
        print(f"format: SKIPPED: clang-format {VERSION} is wanted ({said.strip()}); as root: apt-get install -y clang-format-{VERSION}")
        return SKIPPED
    how = ["-i"] if "--fix" in sys.argv else ["--dry-run", "-Werror"]
    files = formatted_files()
    failed = sum(subprocess.run([program, *how, *files[at:at + 50]]).returncode != 0 for at in range(0, len(files), 50))
    print(f"format: {len(files)} files" + ("; run make format" if failed else ""))
    return 1 if failed else 0


sys.exit(main())
