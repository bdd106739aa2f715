"""Logits of SmolLM2-135M-Instruct by transformers in float32 over 512 positions, and a greedy answer.

Run with torch and transformers installed, on the bfloat16 folder that `make model` leaves:
  python3 tests/golden/make_smollm2_logits_golden.py models/SmolLM2-135M-Instruct > tests/golden/smollm2_logits.json
For every position: the most likely token, its logit, the log-sum-exp, and the logits of 32 fixed columns of the vocabulary.
"""
import json
import sys

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

TEXT = (
    "A train leaves the station at noon and travels 60 miles an hour; another follows an hour later at 80. When does it "
    "catch up? Let t be the hours after one o'clock. The first is then 60 + 60 t miles away, the second 80 t, so t = 3. "
)
QUESTION = "What is the capital of France? Answer in one sentence."


def main(folder):
    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    model.eval()
    ids = tokenizer(TEXT * 8, add_special_tokens=False)["input_ids"][:512]
    assert len(ids) == 512
    with torch.no_grad():
        logits = model(torch.tensor([ids])).logits[0]
    columns = sorted(torch.randperm(logits.shape[1])[:32].tolist())
    top = logits.max(-1)
    prompt = tokenizer.apply_chat_template([{"role": "user", "content": QUESTION}], add_generation_prompt=True, tokenize=False)
    prompt_ids = tokenizer(prompt, add_special_tokens=False)["input_ids"]
    answer = model.generate(torch.tensor([prompt_ids]), max_new_tokens=32, do_sample=False)[0, len(prompt_ids):].tolist()
    rounded = lambda values: [float(f"{x:.7g}") for x in values]
    json.dump({
        "ids": ids,
        "columns": columns,
        "logits": [rounded(row) for row in logits[:, columns].tolist()],
        "top": top.indices.tolist(),
        "top_logit": rounded(top.values.tolist()),
        "logsumexp": rounded(torch.logsumexp(logits.double(), -1).tolist()),
        "prompt": prompt_ids,
        "answer": answer,
        "answer_text": tokenizer.decode(answer),
    }, sys.stdout)


main(sys.argv[1])
