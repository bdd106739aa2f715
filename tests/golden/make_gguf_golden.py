"""Files for tests/policy_model/files/gguf_reader_test.cc and tests/policy_model/gguf/families_gguf_test.cc, made by the `gguf` package.

tests/golden/gguf/blocks-0000N-of-00003.gguf: a split model. Its keys are of every type that the format has; each tensor NAME of
a quantised type holds blocks of random bits (with scales that are numbers), and NAME.f32 what the package dequantises them to.
tests/golden/gguf_families.json.gz: every family of families.json that GGUF has, as llama.cpp's converter writes it: what stands
before the numbers (keys, names, shapes, places) in base64, the names of the tensors in a model folder in the file's order, and
the SHA-256 of the numbers, which both sides fill as make_families_golden.py does.
Run: python tests/golden/make_gguf_golden.py   (gguf 0.19, numpy)"""
import base64
import gzip
import hashlib
import json
import pathlib
import tempfile

import gguf
import numpy as np

HERE = pathlib.Path(__file__).resolve().parent
T = gguf.GGMLQuantizationType
V = gguf.GGUFValueType


def blocks():
    """Names of scales' places (in halves) in a block, so that they are finite numbers."""
    scales = {T.Q4_0: [0], T.Q4_1: [0, 1], T.Q5_0: [0], T.Q5_1: [0, 1], T.Q8_0: [0], T.IQ4_NL: [0], T.Q2_K: [40, 41],
              T.Q3_K: [54], T.Q4_K: [0, 1], T.Q5_K: [0, 1], T.Q6_K: [104], T.F16: None, T.BF16: None}
    rng = np.random.default_rng(17)
    folder = HERE / "gguf"
    folder.mkdir(exist_ok=True)
    for old in folder.glob("*.gguf"):
        old.unlink()
    w = gguf.GGUFWriter(folder / "blocks.gguf", "llama", split_max_tensors=10)
    for key, value, kind in [("u8", 200, V.UINT8), ("i8", -100, V.INT8), ("u16", 60000, V.UINT16), ("i16", -30000, V.INT16),
                             ("u32", 4000000000, V.UINT32), ("i32", -2000000000, V.INT32), ("f32", 0.1, V.FLOAT32),
                             ("bool", True, V.BOOL), ("text", "Grüße", V.STRING), ("u64", 2**63 - 1, V.UINT64),
                             ("beyond", 2**64 - 1, V.UINT64), ("i64", -2**62, V.INT64), ("f64", 0.1, V.FLOAT64)]:
        w.add_key_value("one." + key, value, kind)
    for key, values, kind in [("u8", [0, 255], V.UINT8), ("i8", [-128, 127], V.INT8), ("u16", [0, 65535], V.UINT16),
                              ("i16", [-32768, 32767], V.INT16), ("u32", [0, 2**32 - 1], V.UINT32),
                              ("i32", [-2**31, 2**31 - 1], V.INT32), ("f32", [0.5, -1.25], V.FLOAT32),
                              ("bool", [True, False, True], V.BOOL), ("text", ["a", "", "ß"], V.STRING),
                              ("u64", [0, 2**63 - 1], V.UINT64), ("i64", [-2**63, 5], V.INT64), ("f64", [0.1, 1e300], V.FLOAT64),
                              ("nested", [[1, 2], [3]], V.ARRAY)]:
        sub = V.INT32 if kind == V.ARRAY else kind
        w.add_key_value("list." + key, values, V.ARRAY, sub_type=None if kind == V.ARRAY else sub)
    w.add_tensor("F32", rng.normal(size=(2, 5)).astype(np.float32))
    for kind, places in scales.items():
        elements, size = gguf.GGML_QUANT_SIZES[kind]
        rows, columns = 2, max(elements, 32) // elements
        raw = rng.integers(0, 256, (rows * columns, size), dtype=np.uint8)
        if places is None:
            values = rng.normal(size=rows * columns).astype(np.float32)
            values[:6] = [0.0, -0.0, 1e-7 if kind == T.F16 else 1e-40, 65504.0, np.inf, -np.inf]
            raw = gguf.quants.quantize(values.reshape(rows, columns), kind).view(np.uint8).reshape(rows * columns, size)
        for place in places or []:
            raw[:, 2 * place:2 * place + 2] = rng.normal(size=len(raw), scale=0.3).astype(np.float16).view(np.uint8).reshape(-1, 2)
        raw = raw.reshape(rows, columns * size)
        floats = gguf.quants.dequantize(raw.view(np.float16) if kind == T.F16 else raw, kind)
        w.add_tensor(kind.name, raw, raw_dtype=kind)
        w.add_tensor(kind.name + ".f32", np.ascontiguousarray(floats, np.float32))
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


def fill(name, count, norm_base):
    """As make_families_golden.py."""
    seed = 2166136261
    for byte in name.encode():
        seed = (seed ^ byte) * 16777619 % 2**32
    u = (seed + np.arange(count, dtype=np.uint64) * 0x9E3779B9) % 2**32
    u ^= u >> np.uint64(16)
    u = u * 0x85EBCA6B % 2**32
    u ^= u >> np.uint64(13)
    u = u * 0xC2B2AE35 % 2**32
    u ^= u >> np.uint64(16)
    value = ((u >> np.uint64(8)).astype(np.float64) / 2**24 - 0.5) * 0.7
    return (value + norm_base if "norm" in name else value).astype(np.float32)


# Family -> the architecture in GGUF, and whether llama.cpp wants the halves of a head's rows side by side.
ARCH = {"llama": ("LLAMA", True), "mistral": ("LLAMA", True), "qwen2": ("QWEN2", False), "qwen3": ("QWEN3", False),
        "gemma3_text": ("GEMMA3", False), "smollm3": ("SMOLLM3", True), "olmo3": ("OLMO2", False), "phi3": ("PHI3", False),
        "granite": ("GRANITE", True), "glm4": ("GLM4", False), "ministral3": ("MISTRAL3", True)}


def interleave(w, heads):
    return w.reshape(heads, 2, w.shape[0] // heads // 2, *w.shape[1:]).swapaxes(1, 2).reshape(w.shape)


def llama3_factors(rope, dims):
    f = 1.0 / rope["rope_theta"] ** (np.arange(0, dims, 2) / dims)
    length, low, high = rope["original_max_position_embeddings"], rope["low_freq_factor"], rope["high_freq_factor"]
    wave = 2 * np.pi / f
    smooth = (length / wave - low) / (high - low)
    mixed = 1 / ((1 - smooth) / rope["factor"] + smooth)
    return np.where(wave < length / high, 1.0, np.where(wave > length / low, rope["factor"], mixed)).astype(np.float32)


def family(case, golden, path):
    c, shapes = golden["config"], golden["shapes"]
    kind = c["model_type"]
    arch, interleaved = ARCH[kind]
    arch = gguf.MODEL_ARCH[arch]
    w = gguf.GGUFWriter(path, gguf.MODEL_ARCH_NAMES[arch])
    heads, kv = c["num_attention_heads"], c["num_key_value_heads"]
    dim = c.get("head_dim") or c["hidden_size"] // heads
    rope = c["rope_parameters"]
    local = rope.get("sliding_attention")
    rope = rope.get("full_attention", rope)
    w.add_context_length(c["max_position_embeddings"])
    w.add_embedding_length(c["hidden_size"])
    w.add_block_count(c["num_hidden_layers"])
    w.add_feed_forward_length(c["intermediate_size"])
    w.add_head_count(heads)
    w.add_head_count_kv(kv)
    w.add_layer_norm_rms_eps(c["rms_norm_eps"])
    w.add_rope_freq_base(rope["rope_theta"])
    if c.get("head_dim"):
        w.add_key_length(dim)
        w.add_value_length(dim)
    turning = int(dim * rope.get("partial_rotary_factor", 1.0))
    w.add_rope_dimension_count(turning)
    tensors = {}
    if rope["rope_type"] == "linear":
        w.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        w.add_rope_scaling_factor(rope["factor"])
    if rope["rope_type"] == "yarn":
        w.add_rope_scaling_type(gguf.RopeScalingType.YARN)
        w.add_rope_scaling_factor(rope["factor"])
        w.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])
    if rope["rope_type"] == "llama3":
        tensors["rope_freqs.weight"] = ("", llama3_factors(rope, dim))
    if kind == "phi3":
        w.add_sliding_window(c.get("sliding_window") or 0)
        original = rope.get("original_max_position_embeddings", c.get("original_max_position_embeddings"))
        w.add_rope_scaling_orig_ctx_len(original)
        if "long_factor" in rope:
            scale = c["max_position_embeddings"] / original
            w.add_rope_scaling_attn_factors((1 + np.log(scale) / np.log(original)) ** 0.5)
            for length in ("long", "short"):
                tensors[f"rope_factors_{length}.weight"] = ("", np.array(rope[f"{length}_factor"], np.float32))
    if kind == "ministral3":
        w.add_rope_scaling_yarn_log_mul(rope["mscale_all_dim"])
        w.add_attn_temperature_scale(rope["llama_4_scaling_beta"])
    if kind in ("gemma3_text", "olmo3", "mistral", "ministral3"):
        w.add_sliding_window(c["sliding_window"])
    if kind == "gemma3_text":  # newer files name what differs from the class's own
        w.add_key_value("gemma3.rope.freq_base_swa", local["rope_theta"], V.FLOAT32)
        w.add_key_value("gemma3.attention.scale", c["query_pre_attn_scalar"] ** -0.5, V.FLOAT32)
    if kind == "olmo3":
        w.add_sliding_window_pattern([t == "sliding_attention" for t in c["layer_types"]])
    if kind == "granite":
        w.add_attention_scale(c["attention_multiplier"])
        w.add_embedding_scale(c["embedding_multiplier"])
        w.add_residual_scale(c["residual_multiplier"])
        w.add_logit_scale(c["logits_scaling"])
    names = gguf.get_tensor_name_map(arch, c["num_hidden_layers"])
    for name, shape in shapes.items():
        gemma = kind == "gemma3_text"
        data = fill(name, int(np.prod(shape)), 0.0 if gemma else 1.0).reshape(shape)
        if interleaved and ".q_proj." in name:
            data = interleave(data, heads)
        if interleaved and ".k_proj." in name:
            data = interleave(data, kv)
        if gemma and name.endswith("norm.weight"):
            data = data + np.float32(1)
        to = names.get_name(name, try_suffixes=(".weight", ".bias"))
        assert to, name
        tensors[to] = (name, data)
    for to, (_, data) in tensors.items():
        w.add_tensor(to, np.ascontiguousarray(data))
    tokens = ["<pad>", "<bos>", "<eos>"] + [chr(33 + i) for i in range(c["vocab_size"] - 3)]
    w.add_tokenizer_model("gpt2")
    w.add_tokenizer_pre("gpt-2")
    w.add_token_list(tokens)
    w.add_token_types([3, 3, 3] + [1] * (len(tokens) - 3))
    w.add_bos_token_id(c["bos_token_id"])
    w.add_eos_token_id(c["eos_token_id"])
    w.add_pad_token_id(c["pad_token_id"])
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()
    whole = pathlib.Path(path).read_bytes()
    at = gguf.GGUFReader(path).data_offset
    return dict(header=base64.b64encode(whole[:at]).decode(), tensors=[name for name, _ in tensors.values()],
                divisors=[np.asarray(d).tolist() for name, d in tensors.values() if not name],
                sha256=hashlib.sha256(whole[at:]).hexdigest())


# GGUF has no keys for a window of qwen2's upper layers, nor for `dynamic`.
LEFT_OUT = {"qwen2_yarn_window", "llama_dynamic"}
blocks()
out = {}
with tempfile.TemporaryDirectory() as folder:
    for case, golden in json.loads((HERE / "families.json").read_text())["families"].items():
        if case not in LEFT_OUT:
            out[case] = family(case, golden, pathlib.Path(folder) / f"{case}.gguf")
with gzip.GzipFile(HERE / "gguf_families.json.gz", "wb", mtime=0) as file:
    file.write(json.dumps(out).encode())
