"""Numbers for tests/policy_model/layers/families_test.cc: one tiny model of every family, as transformers computes it.

No weights are stored: both sides fill every tensor by the same formula of its name and place (`fill` here, `Fill` there).
tests/golden/families.json holds each family's config.json as transformers writes it, the names and shapes of its file's
tensors, and in float64: log-probs of two sequences, the norm and samples of every tensor's gradient; besides the gaps
between the reference's own float32, and bfloat16, and float64, which set the tests' tolerances.
Run: python tests/golden/make_families_golden.py [case ...]   (torch 2.11, transformers 5.23)"""
import json
import pathlib
import re
import sys
import tempfile

import torch
import transformers
from safetensors.torch import load_file, save_file

HERE = pathlib.Path(__file__).resolve().parent
BASE = dict(vocab_size=37, hidden_size=48, intermediate_size=40, num_hidden_layers=4, num_attention_heads=4,
            num_key_value_heads=2, max_position_embeddings=64, bos_token_id=1, eos_token_id=2, pad_token_id=0)
DEFAULT = {"rope_type": "default", "rope_theta": 10000.0}
LLAMA3 = {"rope_type": "llama3", "rope_theta": 500.0, "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 16}
LONGROPE = {"rope_type": "longrope", "rope_theta": 10000.0, "partial_rotary_factor": 0.5, "short_factor": [1.0, 1.25, 1.5],
            "long_factor": [1.5, 3.0, 6.0]}
YARN = {"rope_type": "yarn", "rope_theta": 1000.0, "factor": 4.0, "original_max_position_embeddings": 16}
DELTA = dict(rope_parameters=dict(DEFAULT, partial_rotary_factor=0.25), head_dim=16, linear_num_key_heads=2,
             linear_num_value_heads=4, linear_key_head_dim=12, linear_value_head_dim=10,
             layer_types=["linear_attention", "full_attention", "linear_attention", "linear_attention"])
# Of experts a layer less: each makes several times more of float32's errors than one of attention.
SHARED = dict(DELTA, num_hidden_layers=3, layer_types=["linear_attention", "full_attention", "linear_attention"],
              num_experts=6, num_experts_per_tok=2, moe_intermediate_size=24, shared_expert_intermediate_size=20)
MOE = dict(rope_parameters=DEFAULT, head_dim=16, num_local_experts=6, num_experts_per_tok=2, moe_intermediate_size=24,
           norm_topk_prob=True)
# The parts of a head have sizes that no vector divides, and where v_head_dim is 20 a value is longer than a key.
LATENT = dict(num_key_value_heads=4, kv_lora_rank=14, q_lora_rank=10, qk_nope_head_dim=9, qk_rope_head_dim=6, v_head_dim=11)
GROUPS = dict(n_routed_experts=8, num_experts_per_tok=3, moe_intermediate_size=24, n_group=4, topk_group=2, first_k_dense_replace=2)
HYBRID = ("Qwen3_5", "Qwen3_5Moe", "Qwen3Next")
# name -> class prefix, and what differs from BASE
CASES = {
    "llama_llama3": ("Llama", dict(rope_parameters=LLAMA3, tie_word_embeddings=True, head_dim=16)),
    "llama_linear": ("Llama", dict(rope_parameters={"rope_type": "linear", "rope_theta": 10000.0, "factor": 3.0},
                                   attention_bias=True, mlp_bias=True)),
    "llama_dynamic": ("Llama", dict(rope_parameters={"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 2.0})),
    "qwen2": ("Qwen2", dict(rope_parameters=DEFAULT)),
    "qwen2_yarn_window": ("Qwen2", dict(rope_parameters=YARN, use_sliding_window=True, sliding_window=7, max_window_layers=2)),
    "qwen3": ("Qwen3", dict(rope_parameters=DEFAULT, head_dim=16, tie_word_embeddings=True)),
    "mistral": ("Mistral", dict(rope_parameters=DEFAULT, sliding_window=9)),
    "gemma3": ("Gemma3", dict(head_dim=16, query_pre_attn_scalar=24, sliding_window=6, num_hidden_layers=7,
                              rope_parameters={"full_attention": {"rope_type": "linear", "rope_theta": 1e5, "factor": 2.0},
                                               "sliding_attention": {"rope_type": "default", "rope_theta": 1000.0}})),
    "smollm3": ("SmolLM3", dict(rope_parameters=DEFAULT, num_hidden_layers=5)),
    "olmo3": ("Olmo3", dict(sliding_window=8,
                            rope_parameters={"full_attention": YARN, "sliding_attention": {"rope_type": "default",
                                                                                           "rope_theta": 1000.0}})),
    "phi3": ("Phi3", dict(rope_parameters=dict(DEFAULT, partial_rotary_factor=0.5), sliding_window=None, head_dim=12)),
    # Both sequences are shorter than the original length, and both are longer.
    "phi3_longrope": ("Phi3", dict(rope_parameters=LONGROPE, original_max_position_embeddings=32)),
    "phi3_longrope_beyond": ("Phi3", dict(rope_parameters=LONGROPE, original_max_position_embeddings=4)),
    "ministral3": ("Ministral3", dict(head_dim=16, sliding_window=9,
                                      rope_parameters=dict(YARN, original_max_position_embeddings=8, mscale=1.0,
                                                           mscale_all_dim=1.0, llama_4_scaling_beta=0.3))),
    "granite": ("Granite", dict(rope_parameters=DEFAULT, attention_bias=True, mlp_bias=True, embedding_multiplier=6.0,
                                residual_multiplier=0.22, attention_multiplier=0.2, logits_scaling=1.7)),
    # A model made from a config is written an expert a tensor; one that was read fused stays so.
    "qwen3_moe": ("Qwen3Moe", dict(MOE, mlp_only_layers=[1])),
    "qwen3_moe_fused": ("Qwen3Moe", dict(MOE, decoder_sparse_step=2, mlp_only_layers=[1], norm_topk_prob=False,
                                        tie_word_embeddings=True)),
    "deepseek_v3": ("DeepseekV3", dict(LATENT, **GROUPS, rope_parameters=dict(YARN, mscale=1.0, mscale_all_dim=0.8))),
    "deepseek_v3_fused": ("DeepseekV3", dict(LATENT, q_lora_rank=None, v_head_dim=20, rope_interleave=False, rope_parameters=DEFAULT,
                                             **dict(GROUPS, n_group=1, topk_group=1), norm_topk_prob=False, n_shared_experts=2)),
    "deepseek_v2": ("DeepseekV2", dict(LATENT, qk_nope_head_dim=10, **GROUPS, topk_method="group_limited_greedy", routed_scaling_factor=1.5,
                                       rope_parameters=dict(YARN, mscale=0.707, mscale_all_dim=0.707))),
    "deepseek_v2_fused": ("DeepseekV2", dict(LATENT, **dict(GROUPS, n_group=None, topk_group=None), q_lora_rank=None, qk_nope_head_dim=10,
                                             rope_parameters=DEFAULT)),
    "glm4_moe": ("Glm4Moe", dict(GROUPS, rope_parameters=dict(DEFAULT, partial_rotary_factor=0.5), head_dim=16, attention_bias=True,
                                 use_qk_norm=True, routed_scaling_factor=1.5)),
    "glm4_moe_fused": ("Glm4Moe", dict(GROUPS, rope_parameters=dict(DEFAULT, partial_rotary_factor=0.5))),
    "glm4_moe_lite": ("Glm4MoeLite", dict(LATENT, **GROUPS, rope_parameters=DEFAULT,
                                          mlp_layer_types=["sparse", "dense", "sparse", "dense"])),
    "qwen3_5": ("Qwen3_5", dict(DELTA)),
    "qwen3_5_tied": ("Qwen3_5", dict(DELTA, tie_word_embeddings=True, linear_num_key_heads=3, linear_num_value_heads=3)),
    "qwen3_5_moe": ("Qwen3_5Moe", SHARED),
    "qwen3_next_moe": ("Qwen3Next", dict(SHARED, mlp_only_layers=[1])),
    "lfm2": ("Lfm2", dict(rope_parameters=DEFAULT, layer_types=["conv", "full_attention", "conv", "conv"],
                          block_auto_adjust_ff_dim=False)),
    # Every other layer slides; sinks, biases and a clamped unit; weights by input, gate and up in turns. Limits that bite.
    "gpt_oss": ("GptOss", dict(rope_parameters=dict(YARN, truncate=False), head_dim=16, sliding_window=6, num_local_experts=6,
                               num_experts_per_tok=2, swiglu_limit=0.5)),
    "minimax_m2": ("MiniMaxM2", dict(rope_parameters=dict(DEFAULT, partial_rotary_factor=0.5), head_dim=16, num_local_experts=6,
                                     num_experts_per_tok=3)),
    "mixtral": ("Mixtral", dict(rope_parameters=DEFAULT, num_local_experts=6, num_experts_per_tok=2, sliding_window=9)),
    "olmoe": ("Olmoe", dict(rope_parameters=DEFAULT, num_experts=6, num_experts_per_tok=2)),
    "glm4": ("Glm4", dict(rope_parameters=dict(DEFAULT, partial_rotary_factor=0.5), head_dim=16)),
}
SEQUENCES = [[3, 17, 5, 29, 11, 8, 8, 30, 21, 4, 36, 12, 7, 19, 25, 6, 33, 14, 9, 27, 22, 3, 10], [20, 15, 31, 5, 24]]


def norm_base(prefix, name):
    """What norms are stored as distances from; those of gated delta nets never are."""
    distances = prefix == "Gemma3" or prefix in HYBRID and ".linear_attn." not in name
    return 0.0 if distances else 1.0


def fill(name, count, norm_base):
    """Values in [-0.35, 0.35] of a hash of name and place; norms lie around norm_base."""
    seed = 2166136261
    for byte in name.encode():
        seed = (seed ^ byte) * 16777619 % 2**32
    u = (seed + torch.arange(count, dtype=torch.int64) * 0x9E3779B9) % 2**32
    u ^= u >> 16
    u = u * 0x85EBCA6B % 2**32
    u ^= u >> 13
    u = u * 0xC2B2AE35 % 2**32
    u ^= u >> 16
    value = ((u >> 8).double() / 2**24 - 0.5) * 0.7
    return value + norm_base if "norm" in name else value


def write_filled(folder, prefix, fused):
    """Fills the written file's tensors by their names there; `fused`: experts of a layer become one tensor first."""
    path = pathlib.Path(folder) / "model.safetensors"
    state = load_file(path)
    if fused:
        for layer in sorted({m[1] for n in state if (m := re.match(r"(.*\.mlp\.experts)\.\d+\.", n))}):
            count = len({n for n in state if re.match(re.escape(layer) + r"\.\d+\.up_proj", n)})
            of = lambda name: [state.pop(f"{layer}.{e}.{name}.weight") for e in range(count)]
            gate, up, down = of("gate_proj"), of("up_proj"), of("down_proj")
            state[f"{layer}.gate_up_proj"] = torch.stack([torch.cat(pair) for pair in zip(gate, up)])
            state[f"{layer}.down_proj"] = torch.stack(down)
    save_file({n: fill(n, t.numel(), norm_base(prefix, n)).reshape(t.shape).float() for n, t in state.items()}, path, {"format": "pt"})
    return {n: list(t.shape) for n, t in sorted(state.items())}


def by_file_name(gradients, shapes):
    """Gradients of parameters under the names of the file, which may hold an expert a tensor."""
    out = {}
    for name, (shape, g) in gradients.items():
        if name in shapes:
            out[name] = g
            continue
        layer, kind = name.rsplit(".", 1)
        mixtral = any(".block_sparse_moe." in n for n in shapes)
        layer = layer.replace(".mlp.", ".block_sparse_moe.") if mixtral else layer
        if kind == "weight":
            out[f"{layer}.weight"] = g
            continue
        names = dict(gate_up_proj=("w1", "w3"), down_proj=("w2",)) if mixtral else dict(
            gate_up_proj=("gate_proj", "up_proj"), down_proj=("down_proj",))
        for e, of_expert in enumerate(g.reshape(shape)):
            parts = of_expert.chunk(2) if kind == "gate_up_proj" else (of_expert,)
            for part, value in zip(names[kind], parts):
                out[f"{layer}.{e}.{part}.weight"] = value.flatten()
    return out


def compute(folder, cls, dtype):
    model = cls.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager", experts_implementation="eager").to(dtype)
    model.train()  # no dropout in these configs
    logprobs, total = [], 0.0
    for s, tokens in enumerate(SEQUENCES):
        ids = torch.tensor(tokens)
        table = torch.log_softmax(model(ids[None]).logits[0, :-1].to(dtype), -1)
        lp = table.gather(1, ids[1:, None])[:, 0]
        logprobs += lp.tolist()
        total = total + (lp * torch.cos(torch.arange(len(lp), dtype=dtype) + s)).sum()
    total.backward()
    return torch.tensor(logprobs, dtype=torch.float64), {n: (p.shape, p.grad.double().flatten()) for n, p in model.named_parameters()}


def log_probs_in_bfloat16(folder, cls):
    model = cls.from_pretrained(folder, dtype=torch.bfloat16, attn_implementation="eager", experts_implementation="eager")
    out = []
    with torch.no_grad():
        for tokens in SEQUENCES:
            ids = torch.tensor(tokens)
            table = torch.log_softmax(model(ids[None]).logits[0, :-1].float(), -1)
            out.append(table.gather(1, ids[1:, None])[:, 0])
    return torch.cat(out).double()


# With names of cases as arguments, only those are computed; the others stay as they are.
GOLDEN = HERE / "families.json"
out = json.loads(GOLDEN.read_text())["families"] if sys.argv[1:] else {}
for case, (prefix, changes) in CASES.items():
    if sys.argv[1:] and case not in sys.argv[1:]:
        continue
    config_class = getattr(transformers, f"{prefix}TextConfig" if prefix in ("Gemma3", "Qwen3_5", "Qwen3_5Moe") else f"{prefix}Config")
    cls = getattr(transformers, f"{prefix}ForCausalLM")
    config = config_class(**{**BASE, **changes})
    model = cls(config)
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        written = json.loads((pathlib.Path(folder) / "config.json").read_text())
        shapes = write_filled(folder, prefix, case.endswith("_fused"))
        lp64, g64 = compute(folder, cls, torch.float64)
        lp32, g32 = compute(folder, cls, torch.float32)
        lp16 = log_probs_in_bfloat16(folder, cls)
    g64, g32 = by_file_name(g64, shapes), by_file_name(g32, shapes)
    gradients = {}
    for n, g in g64.items():
        stride = max(1, len(g) // 8)
        gradients[n] = dict(norm=float(f"{g.norm().item():.8g}"), gap=float(f"{(g - g32[n]).norm().item():.3g}"),
                            stride=stride, values=[float(f"{v:.8g}") for v in g[::stride].tolist()])
    out[case] = dict(config=written, shapes=shapes, logprobs=[float(f"{v:.12g}") for v in lp64.tolist()],
                     gap=(lp64 - lp32).abs().max().item(),
                     bfloat16=dict(largest=(lp64 - lp16).abs().max().item(), rms=(lp64 - lp16).square().mean().sqrt().item()),
                     gradients=gradients)
    print(case, "gap", out[case]["gap"], "bfloat16", out[case]["bfloat16"], "logprob", lp64[:3].tolist())
compact = dict(separators=(",", ":"))
lines = ",\n".join(json.dumps(k) + ":" + json.dumps(v, **compact) for k, v in ((k, out[k]) for k in CASES if k in out))  # a line a family
GOLDEN.write_text(f'{{"sequences":{json.dumps(SEQUENCES, **compact)},\n"families":{{\n{lines}\n}}}}\n')
