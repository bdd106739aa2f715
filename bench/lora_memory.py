#!/usr/bin/env python3
"""Peak host memory of one LoRA GRPO step on the CPU: a folder of random bfloat16 weights in
Qwen2.5's 1.5B shape is made, and `plumb train` does a step from it, with the reference (the base
without its adapter) scored for a KL term.

    bench/lora_memory.py build/plumb [--rank 16] [--folder DIR] [--keep]

Prints what the step holds by kind, computed from the shape as `plumb model info` does, the peak
resident memory (VmHWM) that was measured, and the same sum for the 7B shape, which is not run.
Fails when 1.5B takes more than 16 GB or the sum for 7B is above 48 GB.
"""
import argparse
import json
import os
import shutil
import struct
import sys

import load_memory

# Of Qwen2.5: layers, hidden, heads, key and value heads, feed-forward, vocabulary, tied.
SHAPES = {"1.5B": (28, 1536, 12, 2, 8960, 151936, True),
          "7B": (28, 3584, 28, 4, 18944, 152064, False)}
PROMPTS, ANSWERS, NEW_TOKENS, KV_MB, MICRO_BATCH = 2, 4, 8, 256, 2048


def tensors(shape):
    layers, hidden, heads, kv_heads, ffn, vocab, tied = SHAPES[shape]
    kv = hidden // heads * kv_heads
    linear = [("self_attn.q_proj", hidden, hidden), ("self_attn.k_proj", kv, hidden),
              ("self_attn.v_proj", kv, hidden), ("self_attn.o_proj", hidden, hidden),
              ("mlp.gate_proj", ffn, hidden), ("mlp.up_proj", ffn, hidden),
              ("mlp.down_proj", hidden, ffn)]
    all_of = [("model.embed_tokens.weight", [vocab, hidden]), ("model.norm.weight", [hidden])]
    if not tied:
        all_of.append(("lm_head.weight", [vocab, hidden]))
    for i in range(layers):
        before = f"model.layers.{i}."
        all_of += [(before + "input_layernorm.weight", [hidden]),
                   (before + "post_attention_layernorm.weight", [hidden])]
        all_of += [(f"{before}{name}.weight", [rows, columns]) for name, rows, columns in linear]
        all_of += [(f"{before}self_attn.{p}_proj.bias", [rows])
                   for p, rows in (("q", hidden), ("k", kv), ("v", kv))]
    config = {"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2",
              "hidden_size": hidden, "num_hidden_layers": layers, "num_attention_heads": heads,
              "num_key_value_heads": kv_heads, "intermediate_size": ffn, "vocab_size": vocab,
              "max_position_embeddings": 4096, "rms_norm_eps": 1e-6, "rope_theta": 1000000.0,
              "tie_word_embeddings": tied, "torch_dtype": "bfloat16", "hidden_act": "silu",
              "eos_token_id": 0}
    return all_of, config, linear


def size(shape):
    n = 1
    for d in shape:
        n *= d
    return n


def by_kind(shape, rank, tokens, kv_bytes):
    """Bytes of a step. tokens: of the largest micro-batch."""
    all_of, _, linear = tensors(shape)
    layers, hidden, heads, kv_heads, ffn, vocab, _ = SHAPES[shape]
    base = sum(size(dims) for _, dims in all_of)
    adapter = layers * sum(rank * (rows + columns) for _, rows, columns in linear)
    width = hidden + 2 * (hidden // heads * kv_heads)
    # Of every layer, from the forward to the backward: two residuals, qkv, what attention mixed,
    # gate and up; then what one branch needs of scratch, and a chunk of logits and their gradient.
    kept = 2 * tokens * layers * (2 * hidden + width + hidden + 2 * ffn)
    scratch = 2 * tokens * (2 * ffn + 4 * hidden) + (48 << 20)
    return {"base, bfloat16": 2 * base, "adapter, bfloat16": 2 * adapter,
            "adapter's masters": 4 * adapter, "adapter's gradients": 4 * adapter,
            "adapter's two moments": 8 * adapter, "keys and values": kv_bytes,
            "activations kept for the backward": kept, "scratch and logits": scratch}


def make(folder, shape, tokenizer):
    os.makedirs(folder)
    all_of, config, _ = tensors(shape)
    header, at = {}, 0
    for name, dims in all_of:
        header[name] = {"dtype": "BF16", "shape": dims,
                        "data_offsets": [at, at + 2 * size(dims)]}
        at += 2 * size(dims)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(os.path.join(folder, "model.safetensors"), "wb") as out:
        out.write(struct.pack("<Q", len(text)) + text)
        for block in load_memory.random_bf16(at):
            out.write(block)
    with open(os.path.join(folder, "config.json"), "w") as out:
        json.dump(config, out)
    with open(tokenizer) as golden, open(os.path.join(folder, "tokenizer.json"), "w") as out:
        out.write(json.load(golden)["tokenizers"]["smollm"])


def show(title, kinds):
    print(title)
    for kind, n in kinds.items():
        print(f"  {n / 1e9:7.3f} GB  {kind}")
    print(f"  {sum(kinds.values()) / 1e9:7.3f} GB  together")
    return sum(kinds.values())


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("plumb")
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--folder", default="/tmp/plumb_lora_memory")
    parser.add_argument("--keep", action="store_true", help="leave the model's folder there")
    a = parser.parse_args()
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    if not os.path.exists(a.folder):
        make(a.folder, "1.5B", os.path.join(root, "tests/golden/tokenizer.json"))
    run = a.folder + "_run"
    shutil.rmtree(run, ignore_errors=True)
    sets = {"run.steps": 1, "run.threads": 2, "run.checkpoint_every": 0, "model.path": a.folder,
            "model.dtype": "bfloat16", "policy.adapter": "lora", "policy.rank": a.rank,
            "data.eval": "", "rollout.prompts_per_step": PROMPTS,
            "rollout.samples_per_prompt": ANSWERS, "rollout.max_new_tokens": NEW_TOKENS,
            "rollout.max_batch": PROMPTS * ANSWERS, "rollout.kv_budget_mb": KV_MB,
            "algorithm.kl_coef": 0.01, "algorithm.minibatches": 1, "eval.bar": 0,
            "algorithm.logprob_gate": 0, "run.stall_seconds": 3000}
    command = [a.plumb, "train", os.path.join(root, "configs/toy_grpo.toml"), "--out", run,
               "--quiet"]
    for key, value in sets.items():
        command += ["--set", f"{key}={value}"]
    pid = os.spawnvp(os.P_NOWAIT, command[0], command)
    _, status, usage = os.wait4(pid, 0)
    if status != 0:
        sys.exit(f"{' '.join(command)} ended with {os.waitstatus_to_exitcode(status)}")
    with open(os.path.join(run, "metrics.jsonl")) as lines:
        steps = [json.loads(line) for line in lines]
    trained = max(step.get("perf/train_tokens", 0) for step in steps)
    if not trained:
        sys.exit("the step trained on nothing")
    shutil.rmtree(run)
    if not a.keep:
        shutil.rmtree(a.folder)
    sum_15 = show(f"1.5B shape, rank {a.rank}, {trained:.0f} tokens trained in one micro-batch:",
                  by_kind("1.5B", a.rank, trained, KV_MB << 20))
    peak = usage.ru_maxrss * 1024
    print(f"  {peak / 1e9:7.3f} GB  measured peak; {(peak - sum_15) / 1e9:.3f} GB are none of these:"
          " the program, LibTorch, what the step's roles pass each other\n")
    sum_7 = show(f"7B shape, rank {a.rank}, computed, not run: micro-batches of {MICRO_BATCH} "
                 "tokens, 2 GiB of keys and values:",
                 by_kind("7B", a.rank, MICRO_BATCH, 2 << 30))
    if peak > 16e9:
        sys.exit("1.5B takes more than 16 GB")
    if sum_7 + (peak - sum_15) > 48e9:
        sys.exit("the sum for 7B is more than 48 GB")


if __name__ == "__main__":
    main()
