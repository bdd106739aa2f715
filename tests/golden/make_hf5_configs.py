"""config.json of many model types as transformers 5.23 writes them without any argument, for
tests/policy_model/families/written_configs_test.cc: which are read, and how the others are refused.

Left out of the files: parts for pictures and sound, and names of labels, which nobody reads here.
Run: python tests/golden/make_hf5_configs.py   (transformers 5.23)"""
import json
import pathlib
import tempfile

from transformers import CONFIG_MAPPING

HERE = pathlib.Path(__file__).resolve().parent
TYPES = """apertus deepseek_v2 deepseek_v3 deepseek_v32 deepseek_v4 ernie4_5 exaone4 gemma2 gemma3 gemma3_text gemma3n gemma4 gemma4_text
gemma4_unified glm4 glm4_moe glm4_moe_lite glm5_next glm_moe_dsa gpt_oss granite granitemoehybrid hunyuan_v1_dense hy_v3
inkling_mm_model kimi_k25 kimi_linear lfm2 lfm2_moe lfm3 llama llama4 minimax_m2 minimax_m3_vl ministral ministral3 mistral mistral3
mistral4 mistral_large4 muse_glimmer nemotron_h olmo3 olmo_hybrid phi3 qwen2 qwen3 qwen3_5 qwen3_5_moe qwen3_5_moe_text
qwen3_5_text qwen3_moe qwen3_next qwen4_exp seed_oss smollm3""".split()


def short(config):
    left_out = [k for k, v in config.items() if k in ("id2label", "label2id") or (k.endswith("_config") and k != "text_config" and isinstance(v, dict))]
    return {k: short(v) if k == "text_config" else v for k, v in config.items() if k not in left_out}


if __name__ == "__main__":
    out = {}
    for name in TYPES:
        with tempfile.TemporaryDirectory() as folder:
            CONFIG_MAPPING[name]().save_pretrained(folder)
            out[name] = short(json.loads((pathlib.Path(folder) / "config.json").read_text()))
    lines = ",\n".join(json.dumps(k) + ":" + json.dumps(v, separators=(",", ":")) for k, v in out.items())  # a line a type
    (HERE / "hf5_configs.json").write_text(f"{{\n{lines}\n}}\n")
