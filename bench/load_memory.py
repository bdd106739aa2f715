#!/usr/bin/env python3
"""Peak host memory of loading a model: a Llama folder of random bfloat16 weights is made, and
`plumb` answers from it.

    bench/load_memory.py build/plumb [--gb 3] [--folder DIR] [--keep]

Prints the size of the file and the peak resident memory (VmHWM) of `plumb generate` with one new
token, and fails when the peak is above the file and 1 GB. A folder that is there is used again.
"""
import argparse
import json
import os
import random
import shutil
import struct
import sys

BLOCK = 1 << 20


def tensors(gb):
    """Large layers and a large embedding: what one tensor needs on its way shows."""
    hidden, heads, kv_heads, ffn, vocab = 2560, 20, 4, 10240, 128256
    kv = hidden // heads * kv_heads
    layer = [("input_layernorm.weight", [hidden]), ("post_attention_layernorm.weight", [hidden]),
             ("self_attn.q_proj.weight", [hidden, hidden]),
             ("self_attn.k_proj.weight", [kv, hidden]), ("self_attn.v_proj.weight", [kv, hidden]),
             ("self_attn.o_proj.weight", [hidden, hidden]),
             ("mlp.gate_proj.weight", [ffn, hidden]), ("mlp.up_proj.weight", [ffn, hidden]),
             ("mlp.down_proj.weight", [hidden, ffn])]
    count = lambda shapes: sum(2 * (s[0] * (s[1] if len(s) > 1 else 1)) for _, s in shapes)
    layers = max(1, round((gb * 1e9 - 2 * vocab * hidden) / count(layer)))
    all_of = [("model.embed_tokens.weight", [vocab, hidden]), ("model.norm.weight", [hidden])]
    for i in range(layers):
        all_of += [(f"model.layers.{i}.{name}", shape) for name, shape in layer]
    config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama",
              "hidden_size": hidden, "num_hidden_layers": layers, "num_attention_heads": heads,
              "num_key_value_heads": kv_heads, "head_dim": hidden // heads,
              "intermediate_size": ffn, "vocab_size": vocab, "max_position_embeddings": 256,
              "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "tie_word_embeddings": True,
              "torch_dtype": "bfloat16", "hidden_act": "silu"}
    return all_of, config


def random_bf16(count):
    """`count` bytes of bfloat16 of +-0.008 to 0.03, in blocks: the high byte says sign and size,
    the low one is drawn."""
    draw = random.Random(1)
    block = bytearray(draw.randbytes(BLOCK + 4096))
    block[1::2] = bytes(0x3C | (b & 0x80) for b in block[1::2])
    while count > 0:
        start = 2 * draw.randrange(2048)
        piece = block[start:start + min(BLOCK, count)]
        count -= len(piece)
        yield piece


def make(folder, gb, tokenizer):
    os.makedirs(folder)
    all_of, config = tensors(gb)
    header, at = {}, 0
    for name, shape in all_of:
        size = 2 * shape[0] * (shape[1] if len(shape) > 1 else 1)
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(os.path.join(folder, "model.safetensors"), "wb") as out:
        out.write(struct.pack("<Q", len(text)) + text)
        for block in random_bf16(at):
            out.write(block)
    with open(os.path.join(folder, "config.json"), "w") as out:
        json.dump(config, out)
    with open(tokenizer) as golden, open(os.path.join(folder, "tokenizer.json"), "w") as out:
        out.write(json.load(golden)["tokenizers"]["smollm"])


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("plumb")
    parser.add_argument("--gb", type=float, default=3)
    parser.add_argument("--folder", default="/tmp/plumb_load_memory")
    parser.add_argument("--keep", action="store_true", help="leave the folder there")
    arguments = parser.parse_args()
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    if not os.path.exists(arguments.folder):
        make(arguments.folder, arguments.gb, os.path.join(root, "tests/golden/tokenizer.json"))
    command = [arguments.plumb, "generate", arguments.folder, "--prompt", "a", "--max-new-tokens",
               "1", "--raw", "--threads", "2"]
    pid = os.spawnvp(os.P_NOWAIT, command[0], command)
    _, status, usage = os.wait4(pid, 0)
    if status != 0:
        sys.exit(f"{' '.join(command)} ended with {os.waitstatus_to_exitcode(status)}")
    file = os.path.getsize(os.path.join(arguments.folder, "model.safetensors"))
    peak = usage.ru_maxrss * 1024
    if not arguments.keep:
        shutil.rmtree(arguments.folder)
    print(f"file {file / 1e9:.2f} GB, peak {peak / 1e9:.2f} GB, "
          f"above the file {(peak - file) / 1e9:.2f} GB")
    if peak > file + 1e9:
        sys.exit("the peak is more than 1 GB above the file")


if __name__ == "__main__":
    main()
