"""Numbers for tests/policy_model/transformer_test.cc from transformers' LlamaForCausalLM on a tiny random model.
Writes tests/golden/tiny_llama/ (an HF folder) and tests/golden/transformer.json: log-probs, entropies and gradients in
float64, and the reference's own float32-to-float64 gap, which sets the test's tolerance.
Run: python tests/golden/make_transformer_golden.py   (torch 2.11, transformers 5.23)"""
import json
import pathlib

import torch
from transformers import LlamaConfig, LlamaForCausalLM

HERE = pathlib.Path(__file__).resolve().parent
torch.manual_seed(1234)
config = LlamaConfig(vocab_size=31, hidden_size=32, intermediate_size=40, num_hidden_layers=2, num_attention_heads=4,
                     num_key_value_heads=2, max_position_embeddings=64, rms_norm_eps=1e-5, tie_word_embeddings=False,
                     bos_token_id=1, eos_token_id=2, attn_implementation="eager")
model = LlamaForCausalLM(config)
with torch.no_grad():
    for name, p in model.named_parameters():
        p.copy_(torch.randn_like(p) * 0.2 + (1.0 if "norm" in name else 0.0))
model.save_pretrained(HERE / "tiny_llama", safe_serialization=True)

sequences = [torch.randint(3, 31, (n,)) for n in (17, 5, 29)]
weights = [torch.randn(len(s) - 1, dtype=torch.float64) for s in sequences]
entropy_weights = [torch.randn(len(s) - 1, dtype=torch.float64) * 0.3 for s in sequences]
temperature = 0.8


def run(dtype):
    m = LlamaForCausalLM.from_pretrained(HERE / "tiny_llama", dtype=dtype, attn_implementation="eager")
    m.zero_grad()
    logprobs, entropies, total = [], [], 0.0
    for s, w, e in zip(sequences, weights, entropy_weights):
        logits = m(s[None]).logits[0, :-1] / temperature
        table = torch.log_softmax(logits, -1)
        lp = table.gather(1, s[1:, None])[:, 0]
        h = -(table.exp() * table).sum(-1)
        logprobs += lp.tolist()
        entropies += h.tolist()
        total = total + (lp * w.to(dtype)).sum() + (h * e.to(dtype)).sum()
    total.backward()
    grads = {n: p.grad.double().flatten() for n, p in m.named_parameters()}
    return torch.tensor(logprobs, dtype=torch.float64), torch.tensor(entropies, dtype=torch.float64), grads


lp64, h64, g64 = run(torch.float64)
lp32, h32, g32 = run(torch.float32)
names = ["model.embed_tokens.weight", "model.layers.0.self_attn.q_proj.weight", "model.layers.0.self_attn.v_proj.weight",
         "model.layers.0.input_layernorm.weight", "model.layers.1.mlp.gate_proj.weight", "model.layers.1.mlp.down_proj.weight",
         "model.layers.1.self_attn.o_proj.weight", "model.norm.weight", "lm_head.weight"]
out = dict(
    temperature=temperature, sequences=[s.tolist() for s in sequences], weights=[w.tolist() for w in weights],
    entropy_weights=[w.tolist() for w in entropy_weights], logprobs=lp64.tolist(), entropies=h64.tolist(),
    logprob_gap=(lp64 - lp32).abs().max().item(), entropy_gap=(h64 - h32).abs().max().item(),
    gradients={n: dict(norm=g64[n].norm().item(), gap=(g64[n] - g32[n]).norm().item(),
                       values=[float(f"{v:.12g}") for v in g64[n][:: max(1, len(g64[n]) // 64)].tolist()],
                       stride=max(1, len(g64[n]) // 64)) for n in names})
(HERE / "transformer.json").write_text(json.dumps(out))
