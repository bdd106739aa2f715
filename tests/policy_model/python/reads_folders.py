"""What transformers and PEFT make of model and adapter folders, for tests/policy_model/layers/frameworks_test.cc.

argv: a file of jobs, the file to write. A job is {"base": model folder, "tokens": ids}, with "scores": true for one with a scalar
head, and perhaps {"adapter": folder that PEFT loads on it} or {"make": folder that PEFT saves a new adapter to, "targets": modules,
perhaps "options": more of LoraConfig}; or {"wrapper": "mistral3", "gemma3", "qwen3_5" or
"qwen3_5_moe", "text": config of its text part, "make": folder to save it to, "tokens": ids}. The answer holds a job's logits, or its score,
in float32, row by row, or {"skip": reason} where PEFT is not installed."""
import json
import sys

import torch
import transformers
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification


def wrap(job):
    """A model with an eye around a text part, all of it random."""
    text = transformers.AutoConfig.for_model(**job["text"])
    eye = dict(hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=28, patch_size=14)
    torch.manual_seed(7)
    if job["wrapper"] == "mistral3":
        config = transformers.Mistral3Config(text_config=text, vision_config=transformers.PixtralVisionConfig(**eye),
                                             image_token_index=0)
        model = transformers.Mistral3ForConditionalGeneration(config)
    elif job["wrapper"].startswith("qwen3_5"):
        prefix = "Qwen3_5Moe" if job["wrapper"] == "qwen3_5_moe" else "Qwen3_5"
        eye = dict(hidden_size=16, intermediate_size=16, depth=1, num_heads=2, out_hidden_size=text.hidden_size, patch_size=2,
                   num_position_embeddings=16)
        config = getattr(transformers, prefix + "Config")(text_config=text, vision_config=eye)
        model = getattr(transformers, prefix + "ForConditionalGeneration")(config)
    else:
        config = transformers.Gemma3Config(text_config=text, vision_config=transformers.SiglipVisionConfig(**eye),
                                           mm_tokens_per_image=4, image_token_index=0)
        model = transformers.Gemma3ForConditionalGeneration(config)
    with torch.no_grad():
        for name, p in model.named_parameters():
            p.copy_(torch.randn_like(p) * 0.2 + (1.0 if "norm" in name and (job["wrapper"] == "mistral3" or "linear_attn" in name) else 0.0))
    model.save_pretrained(job["make"])
    return model


def run(job):
    if "wrapper" in job:
        model = wrap(job).eval()
        with torch.no_grad():
            return model(torch.tensor(job["tokens"])[None]).logits[0].tolist()
    auto = AutoModelForSequenceClassification if "scores" in job else AutoModelForCausalLM
    model, info = auto.from_pretrained(job["base"], dtype=torch.float32, attn_implementation="eager", output_loading_info=True)
    if type(model).__name__ != model.config.architectures[0]:
        raise SystemExit(f"{job['base']}: names {model.config.architectures[0]}, is loaded as {type(model).__name__}")
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if info[kind]:
            raise SystemExit(f"{job['base']}: {kind}: {info[kind]}")
    if "adapter" in job or "make" in job:
        try:
            import peft
        except ImportError:
            return {"skip": "peft is not installed"}
        if "adapter" in job:
            model = peft.PeftModel.from_pretrained(model, job["adapter"])
        else:
            torch.manual_seed(7)
            model = peft.get_peft_model(model, peft.LoraConfig(r=3, lora_alpha=5, target_modules=job["targets"],
                                                               init_lora_weights=False, task_type="CAUSAL_LM",
                                                               **job.get("options", {})))
            model.save_pretrained(job["make"])
    model.eval()
    with torch.no_grad():
        logits = model(torch.tensor(job["tokens"])[None]).logits
        return logits.tolist() if "scores" in job else logits[0].tolist()


jobs, out = sys.argv[1:]
with open(jobs) as f:
    answers = [run(job) for job in json.load(f)]
with open(out, "w") as f:
    json.dump(answers, f)
