#!/usr/bin/env bash
# transformers 5.23.0: the balance loss of mixture-of-experts models is as good as it can be while every layer sends all its tokens to the
# same few experts, if only each layer chooses other ones.
#
# The loss is that of Switch Transformer, experts times the sum over experts of (share of tokens) x (mean probability), and one
# expects it for each layer, averaged. load_balancing_loss_func, which Qwen3-MoE, Mixtral, OLMoE and others call, first pools the
# tokens of all layers: it balances the number of an expert over the whole depth, and expert 3 of one layer has nothing to do
# with expert 3 of the next. Four layers of which each uses 2 of 8 experts, never the same, have the value of perfect balance and a
# gradient of zero; where all layers use the same two, it is nearly four times as large. So `aux_loss` in a log can look perfect
# beside dead experts, and the loss pushes layers apart rather than towards balance. (The best value is the number of experts a token,
# 2 here, not 1.) Seen 2026-11-30, PyPI transformers 5.23.0 with torch 2.15.0, CPU, Qwen3-MoE of 4 layers, 8 experts, 2 a token:
#   no preference              aux_loss 2.00, layer by layer 2.00 2.00 2.00 2.00, gradient 1.1e-01 where layers give 1.7e-01
#   each layer another pair    aux_loss 2.00, layer by layer 7.40 7.40 7.40 7.40, gradient 2.6e-08 where layers give 8.2e-01
#   all layers the same pair   aux_loss 7.39, layer by layer 7.39 7.39 7.39 7.39, gradient 8.2e-01 where layers give 8.2e-01
# Fails when the second aux_loss is no longer that of the first, or its gradient no longer zero. Installs 3 GB.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q --disable-pip-version-check torch==2.15.0 numpy==2.4.6 transformers==5.23.0
export HF_HUB_OFFLINE=1 TRANSFORMERS_VERBOSITY=error CUDA_VISIBLE_DEVICES=
cat >"$work/layers.py" <<'PY'
import sys

import torch
from transformers import Qwen3MoeConfig, Qwen3MoeForCausalLM
from transformers.models.qwen3_moe.modeling_qwen3_moe import load_balancing_loss_func

torch.manual_seed(0)
LAYERS, EXPERTS, CHOSEN, WIDTH, VOCABULARY = 4, 8, 2, 64, 512


def model_of(pairs):
    """A model in which layer l prefers the experts pairs[l] for every token: one feature that all tokens share decides."""
    model = Qwen3MoeForCausalLM(Qwen3MoeConfig(
        vocab_size=VOCABULARY, hidden_size=WIDTH, intermediate_size=32, moe_intermediate_size=16, num_hidden_layers=LAYERS,
        num_attention_heads=2, num_key_value_heads=1, head_dim=16, num_experts=EXPERTS, num_experts_per_tok=CHOSEN,
        output_router_logits=True))
    with torch.no_grad():
        model.model.embed_tokens.weight.normal_()
        model.model.embed_tokens.weight[:, 0] = 4.0
        for layer, pair in zip(model.model.layers, pairs):
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.experts.down_proj.zero_()
            layer.mlp.gate.weight.normal_(std=1e-3)
            layer.mlp.gate.weight[:, 0] = 0
            layer.mlp.gate.weight[list(pair), 0] = 1.0
    return model


def look(name, pairs):
    model = model_of(pairs)
    routers = [layer.mlp.gate.weight for layer in model.model.layers]
    ids = torch.randint(0, VOCABULARY, (8, 64), generator=torch.Generator().manual_seed(1))
    out = model(ids, use_cache=False)
    layers = [load_balancing_loss_func((logits,), EXPERTS, CHOSEN) for logits in out.router_logits]
    gradient = [torch.cat([g.flatten() for g in torch.autograd.grad(value, routers, retain_graph=True)]).norm().item()
                for value in (out.aux_loss, sum(layers) / LAYERS)]
    print(f"{name:26} aux_loss {out.aux_loss:.2f}, layer by layer " + " ".join(f"{x:.2f}" for x in layers)
          + f", gradient {gradient[0]:.1e} where layers give {gradient[1]:.1e}")
    return out.aux_loss.item(), min(x.item() for x in layers), gradient


even, _, _ = look("no preference", [()] * LAYERS)
apart, apart_layers, apart_gradient = look("each layer another pair", [(2 * i, 2 * i + 1) for i in range(LAYERS)])
same, _, same_gradient = look("all layers the same pair", [(0, 1)] * LAYERS)
ok = (abs(apart - even) < 0.05 and apart_layers > 2.5 * even and apart_gradient[0] < 1e-2 * apart_gradient[1]
      and same > 2.5 * even and same_gradient[0] > 0.5 * same_gradient[1])
sys.exit(0 if ok else "not what was seen before")
PY
"$work/venv/bin/python" "$work/layers.py" 2>"$work/warnings" || { tail -5 "$work/warnings" >&2; exit 1; }
