"""transformers in bfloat16 on the CPU: greedy decoding and the train step (forward, backward, AdamW), as bench/model_bench.cc
does them. With --adapter the train step is that of a LoRA by PEFT on a bfloat16 base. Prints the same JSON object. Run by
bench/compare.py and bench/in_turns.py."""
import argparse
import json
import resource
import time

import torch
from transformers import AutoModelForCausalLM

parser = argparse.ArgumentParser()
parser.add_argument("mode", choices=["decode", "train"])
parser.add_argument("model")
for name, default in dict(batch=32, prompt=32, new=64, sequences=4, length=512, steps=3, rounds=3, threads=2, adapter=0).items():
    parser.add_argument(f"--{name}", type=int, default=default)
args = parser.parse_args()
torch.set_num_threads(args.threads)
torch.manual_seed(1)


def measure(tokens, one_round):
    one_round()
    seconds = []
    before = resource.getrusage(resource.RUSAGE_SELF)
    for _ in range(args.rounds):
        begin = time.perf_counter()
        one_round()
        seconds.append(time.perf_counter() - begin)
    median = sorted(seconds)[len(seconds) // 2]
    after = resource.getrusage(resource.RUSAGE_SELF)
    print(json.dumps({"bench": args.mode, "dtype": "bfloat16", "threads": args.threads, "tokens": tokens, "seconds": median,
                      "tokens_per_s": tokens / median, "rounds": args.rounds,
                      "user_s": after.ru_utime - before.ru_utime,
                      "system_s": after.ru_stime - before.ru_stime, "peak_mb": after.ru_maxrss / 1024}))


if args.mode == "decode":
    model = AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.bfloat16).eval()
    prompts = torch.randint(0, model.config.vocab_size, (args.batch, args.prompt))

    def decode():
        with torch.inference_mode():
            out = model.generate(prompts, attention_mask=torch.ones_like(prompts), max_new_tokens=args.new,
                                 min_new_tokens=args.new, do_sample=False, pad_token_id=0)
        assert out.shape[1] == args.prompt + args.new

    measure(args.batch * args.new, decode)
else:
    # The master weights and AdamW's state in float32, the products in bfloat16: what Plumb keeps too.
    # A base that is not trained is in bfloat16 on both sides, PEFT holds the adapter in float32.
    model = AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.bfloat16 if args.adapter else torch.float32).train()
    model.config.use_cache = False
    if args.adapter:
        from peft import LoraConfig, get_peft_model
        model = get_peft_model(model, LoraConfig(r=args.adapter, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM"))
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-6, betas=(0.9, 0.95), weight_decay=0.0)
    tokens = torch.randint(0, model.config.vocab_size, (args.sequences, args.length))

    def train():
        for _ in range(args.steps):
            with torch.autocast("cpu", dtype=torch.bfloat16):
                loss = model(input_ids=tokens, labels=tokens).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(trained, 1.0)
            optimizer.step()
            optimizer.zero_grad()
            assert torch.isfinite(loss)

    measure(args.sequences * args.length * args.steps, train)
