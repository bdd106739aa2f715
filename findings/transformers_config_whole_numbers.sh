#!/usr/bin/env bash
# transformers 5.23.0 tells 30 from 30.0 in config.json, and not in every family.
#
# JSON has one kind of number. Since version 5 the fields of a config are checked against their Python types, and a field of type float
# refuses a whole number written without a point: a Gemma 2 config that transformers wrote ("final_logit_softcapping": 30.0) and that went
# through a tool which writes numbers as JavaScript does (30) cannot be loaded any more. The other way round "query_pre_attn_scalar":
# 256.0 is refused, for that field is an int, though nothing but its root is used. Fields that a class types as a union take either:
# Granite's multipliers, Llama's attention_dropout; and where a class has moved the field, as rope_theta into rope_parameters, nothing
# is checked. Seen 2026-11-29, PyPI transformers 5.23.0, Python 3.11:
#   gemma2 as transformers writes it                     loads
#   gemma2, whole floats without their point             StrictDataclassFieldValidationError, final_logit_softcapping
#   gemma2, query_pre_attn_scalar = 256.0                StrictDataclassFieldValidationError, query_pre_attn_scalar
#   llama, rms_norm_eps = 1                              StrictDataclassFieldValidationError, rms_norm_eps
#   granite, whole floats without their point            loads
#   llama, rope_theta = 10000                            loads
# Fails when that changes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q --disable-pip-version-check transformers==5.23.0
export HF_HUB_OFFLINE=1 TRANSFORMERS_VERBOSITY=error
"$work/venv/bin/python" - "$work" <<'PY' 2>"$work/warnings"
import json
import pathlib
import re
import sys

from transformers import AutoConfig, Gemma2Config, GraniteConfig, LlamaConfig


def written(config):
    folder = pathlib.Path(sys.argv[1], config.model_type)
    config.save_pretrained(folder)
    return json.loads((folder / "config.json").read_text())


def without_points(value):
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, dict):
        return {k: without_points(v) for k, v in value.items()}
    return [without_points(v) for v in value] if isinstance(value, list) else value


def load(name, config):
    folder = pathlib.Path(sys.argv[1], name)
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    try:
        AutoConfig.from_pretrained(folder)
        return "loads"
    except Exception as error:
        field = re.search(r"Field '(\w+)'", str(error))
        return f"{type(error).__name__}, {field[1] if field else error}"


gemma, granite = written(Gemma2Config()), written(GraniteConfig(attention_multiplier=1.0, logits_scaling=8.0))
llama = written(LlamaConfig())
strict = "StrictDataclassFieldValidationError, "
cases = [
    ("gemma2 as transformers writes it", load("a", gemma), "loads"),
    ("gemma2, whole floats without their point", load("b", without_points(gemma)), strict + "final_logit_softcapping"),
    ("gemma2, query_pre_attn_scalar = 256.0", load("c", gemma | {"query_pre_attn_scalar": 256.0}),
     strict + "query_pre_attn_scalar"),
    ("llama, rms_norm_eps = 1", load("d", llama | {"rms_norm_eps": 1}), strict + "rms_norm_eps"),
    ("granite, whole floats without their point", load("e", without_points(granite)), "loads"),
    ("llama, rope_theta = 10000", load("f", llama | {"rope_theta": 10000}), "loads"),
]
ok = True
for name, seen, expected in cases:
    ok &= seen == expected
    print(f"{name:52} {seen}{'' if seen == expected else '   NOT ' + expected}")
sys.exit(0 if ok else 1)
PY
