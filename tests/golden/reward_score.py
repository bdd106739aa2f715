"""Scores of transformers' LlamaForSequenceClassification, for tests/reward/models/reward_score_test.cc: the trunk of tiny_llama with a head
drawn here, saved as a user's reward model would be (tests/golden/tiny_llama_score), and what it says to sequences, alone and in a padded
batch, in float64; `gap` is its own float32-to-float64 difference, which sets the test's tolerance.
Run: python tests/golden/reward_score.py   (torch 2.11, transformers 5.23); writes the folder and reward_score.json beside this file."""
import json
import pathlib

import torch
from transformers import LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification

HERE = pathlib.Path(__file__).resolve().parent
PAD = 0
gen = torch.Generator().manual_seed(31)
config = LlamaConfig.from_pretrained(HERE / "tiny_llama", num_labels=1, pad_token_id=PAD, attn_implementation="eager")
model = LlamaForSequenceClassification(config)
trunk = LlamaForCausalLM.from_pretrained(HERE / "tiny_llama", dtype=torch.float32)
model.model.load_state_dict(trunk.model.state_dict())
model.score.weight.data = 0.3 * torch.randn(1, config.hidden_size, generator=gen)
model.eval().save_pretrained(HERE / "tiny_llama_score")

# Tokens of the built-in vocabulary but the padding, which the model takes for the end of a sequence.
sequences = [torch.randint(1, 26, (n,), generator=gen) for n in (1, 2, 7, 13, 26, 40, 64)]


@torch.no_grad()
def scores(dtype):
    m = model.to(dtype)
    alone = torch.stack([m(s[None]).logits[0, 0] for s in sequences])
    batch = torch.full((len(sequences), 64), PAD)
    for row, s in zip(batch, sequences):
        row[:len(s)] = s
    padded = m(batch, attention_mask=(batch != PAD).long()).logits[:, 0]
    assert torch.allclose(alone, padded, atol=1e-12 if dtype == torch.float64 else 1e-5), (alone, padded)
    return alone.double()


single = scores(torch.float32)
double = scores(torch.float64)
gap = (single - double).abs().max().item()
assert double.max() - double.min() > 0.5, "scores that hardly differ would show little"
out = {"sequences": [s.tolist() for s in sequences], "scores": double.tolist(), "gap": gap}
(HERE / "reward_score.json").write_text(json.dumps(out) + "\n")
print(out["scores"], gap)
