"""Token ids and rendered chats of SmolLM2-135M-Instruct by Hugging Face's libraries, as tests/golden/smollm2.json.

Run with transformers and tokenizers installed, after tools/fetch_smollm2.sh and a conversion of the model:
  python3 tests/golden/make_smollm2_golden.py models/SmolLM2-135M-Instruct DATA_FOLDER
The hash of a file covers, for every text of every line (keys sorted), the number of ids and the ids, as int32.
"""
import array
import glob
import gzip
import hashlib
import json
import os
import sys

from transformers import AutoTokenizer

CHATS = [
    [{"role": "user", "content": "What is 12 + 30?"}],
    [{"role": "system", "content": "Answer briefly."}, {"role": "user", "content": "Why?\n"},
     {"role": "assistant", "content": "  Because <|im_end|>."}, {"role": "user", "content": "größer 東京 😀"}],
]
TEXTS = ["", " ", "  \n\n \t x  ", "I'm we'LL don't 12345 ½ ٣٤ ²", "<|im_start|>user\n<|im_end|> <|endoftext|>x<|im_",
         "naïve café 東京タワー 😀👍🏽 \u00a0\u2003end ", "a" * 300 + "!?" * 200, "int main() {\n\treturn 0;\r\n}\n\n\n"]


def main(model, data):
    tokenizer = AutoTokenizer.from_pretrained(model)
    fast = tokenizer.backend_tokenizer
    out = {"files": {}, "texts": [], "chats": []}
    for path in sorted(glob.glob(os.path.join(data, "*", "*.jsonl.gz"))):
        digest, tokens, texts = hashlib.sha256(), 0, []
        with gzip.open(path, "rt", encoding="utf-8") as lines:
            for line in lines:
                row = json.loads(line)
                texts += [row[k] for k in sorted(row) if isinstance(row[k], str)]
        for encoded in fast.encode_batch(texts, add_special_tokens=False):
            ids = array.array("i", [len(encoded.ids)] + encoded.ids)
            digest.update(ids.tobytes())
            tokens += len(encoded.ids)
        out["files"][os.path.relpath(path, data)] = {"texts": len(texts), "tokens": tokens, "sha256": digest.hexdigest()}
    for text in TEXTS:
        ids = fast.encode(text, add_special_tokens=False).ids
        out["texts"].append({"text": text, "ids": ids, "decoded": fast.decode(ids, skip_special_tokens=True)})
    for chat in CHATS:
        for prompt in (False, True):
            text = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=prompt)
            out["chats"].append({"messages": chat, "add_generation_prompt": prompt, "text": text})
    with open(os.path.join(os.path.dirname(__file__), "smollm2.json"), "w", encoding="ascii") as f:
        json.dump(out, f, indent=1)
        f.write("\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
