#!/usr/bin/env python3
"""make_shape.py SHAPE FOLDER: a model folder of a published shape (0.5B, 1.5B, 7B: Qwen 2.5; 135M: SmolLM2; tiny proves that everything runs) with
drawn weights in bfloat16 and a tokenizer of the 256 bytes, for measures of speed that need no trained model. The rest of the vocabulary
are tokens that no text has, so that ranks that share it (tp) have tokens each. Needs nothing but Python: of a normal distribution a
million numbers are drawn, and tensors read them from different places on."""
import json
import pathlib
import random
import struct
import sys

SHAPES = {  # layers, hidden, heads, kv heads, ffn, vocabulary, one matrix for embedding and head
    "135M": (30, 576, 9, 3, 1536, 49152, True),
    "0.5B": (24, 896, 14, 2, 4864, 151936, True),
    "1.5B": (28, 1536, 12, 2, 8960, 151936, True),
    "7B": (28, 3584, 28, 4, 18944, 152064, False),
    "tiny": (4, 128, 4, 2, 384, 512, True),
}
layers, hidden, heads, kv_heads, ffn, vocab, tied = SHAPES[sys.argv[1]]
folder = pathlib.Path(sys.argv[2])
folder.mkdir(parents=True, exist_ok=True)
head_dim = hidden // heads
ends = vocab - 1

config = {"model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"], "hidden_size": hidden, "intermediate_size": ffn,
          "num_hidden_layers": layers, "num_attention_heads": heads, "num_key_value_heads": kv_heads, "vocab_size": vocab,
          "max_position_embeddings": 4096, "rope_theta": 1000000.0, "rms_norm_eps": 1e-6, "hidden_act": "silu",
          "tie_word_embeddings": tied, "torch_dtype": "bfloat16", "eos_token_id": ends, "use_sliding_window": False}
(folder / "config.json").write_text(json.dumps(config))


def byte_letters():
    """The letters by which byte-level tokenizers write bytes."""
    plain = list(range(33, 127)) + list(range(161, 173)) + list(range(174, 256))
    others = [b for b in range(256) if b not in plain]
    return {**{b: chr(b) for b in plain}, **{b: chr(256 + i) for i, b in enumerate(others)}}


letters = byte_letters()
end = {"id": ends, "content": "<|end|>", "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": True}
tokenizer = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": [end], "normalizer": None, "pre_tokenizer": level,
             "post_processor": None, "decoder": level,
             "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None, "end_of_word_suffix": None,
                       "fuse_unk": False, "byte_fallback": False, "vocab": {letters[b]: b for b in range(256)} | {f"<unused {i}>": i for i in range(256, ends)}, "merges": []}}
(folder / "tokenizer.json").write_text(json.dumps(tokenizer))
(folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<|end|>", "tokenizer_class": "PreTrainedTokenizerFast"}))

tensors = {"model.embed_tokens.weight": (vocab, hidden), "model.norm.weight": (hidden,)}
if not tied:
    tensors["lm_head.weight"] = (vocab, hidden)
for i in range(layers):
    at = f"model.layers.{i}."
    for name, rows, columns, bias in (("q", heads * head_dim, hidden, True), ("k", kv_heads * head_dim, hidden, True),
                                      ("v", kv_heads * head_dim, hidden, True), ("o", hidden, heads * head_dim, False)):
        tensors[f"{at}self_attn.{name}_proj.weight"] = (rows, columns)
        if bias:
            tensors[f"{at}self_attn.{name}_proj.bias"] = (rows,)
    tensors |= {f"{at}mlp.gate_proj.weight": (ffn, hidden), f"{at}mlp.up_proj.weight": (ffn, hidden),
                f"{at}mlp.down_proj.weight": (hidden, ffn), f"{at}input_layernorm.weight": (hidden,),
                f"{at}post_attention_layernorm.weight": (hidden,)}
header, place = {}, 0
for name, shape in tensors.items():
    size = 2 * shape[0] * (shape[1] if len(shape) > 1 else 1)
    header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [place, place + size]}
    place += size
text = json.dumps(header).encode()
text += b" " * (-len(text) % 8)
draw = random.Random(1)
tile = b"".join(struct.pack("<f", draw.gauss(0, 0.02))[2:] for _ in range(1 << 20))
with open(folder / "model.safetensors", "wb") as file:
    file.write(struct.pack("<Q", len(text)) + text)
    for name, shape in tensors.items():
        size = header[name]["data_offsets"][1] - header[name]["data_offsets"][0]
        if len(shape) == 1:
            file.write((b"\x00\x00" if name.endswith("bias") else b"\x80\x3f") * (size // 2))
            continue
        at = 2 * draw.randrange(1 << 20)
        while size > 0:
            piece = tile[at:at + size]
            file.write(piece)
            size -= len(piece)
            at = 0
