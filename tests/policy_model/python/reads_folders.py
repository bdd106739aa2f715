"""What transformers and PEFT make of model and adapter folders, for tests/policy_model/layers/frameworks_test.cc.

argv: a file of jobs, the file to write. A job is {"base": model folder, "tokens": ids, "longest": bool} and perhaps
{"adapter": folder that PEFT loads on it} or {"make": folder that PEFT saves a new adapter to, "targets": modules}. The answer holds
a job's logits in float32, row by row, or {"skip": reason} where PEFT is not installed."""
import json
import sys

import torch
from transformers import AutoModelForCausalLM


def run(job):
    model, info = AutoModelForCausalLM.from_pretrained(job["base"], dtype=torch.float32, attn_implementation="eager",
                                                       output_loading_info=True)
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
                                                               init_lora_weights=False, task_type="CAUSAL_LM"))
            model.save_pretrained(job["make"])
    model.eval()
    with torch.no_grad():
        return model(torch.tensor(job["tokens"])[None]).logits[0].tolist()


jobs, out = sys.argv[1:]
with open(jobs) as f:
    answers = [run(job) for job in json.load(f)]
with open(out, "w") as f:
    json.dump(answers, f)
