"""A small byte-level vocabulary and its ids of odd texts under every known pre-tokenizer, by Hugging Face's tokenizers.

Writes tests/golden/tokenizer.json: {"tokenizers": {name: tokenizer.json}, "texts": [...], "ids": {name: [[...], ...]}}.
"""
import json
import os
import random

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

TAIL = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
HEAD = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
SPLIT = {"qwen2": HEAD + r"\p{N}" + TAIL, "llama3": HEAD + r"\p{N}{1,3}" + TAIL}
FRAGMENTS = ["a", "the", "The ", "word", " word", "I'm", "we'LL", "it'S", "'d", "'\u017f", "don't", "'re", " 've", "1", "12", "123456", "\u00bd",
             "\u0663\u0664", "\u2167", "\u00b2", " ", "  ", "   ", "\n", "\n\n", "\r\n", "\r", "\t", "\u00a0", "\u2003", "\u3000", "\u200b",
             "\u180e", "\x85", "\x1c", "!", "!?", "...", "()", "_", "-", "\u2014", "\u20ac", "\u00e9", "e\u0301", "E\u0301\u0323",
             "\u0323\u0301", "\u212b", "\u1100\u1161\u11a8", "\uac00\u11a8", "\u0958", "\ufb01", "\u6771\u4eac", "\u0939\u093f\u0928\u094d", "\U0001f600", "\U0001f44d\U0001f3fd",
             "<|x|>", "<|x", "<|xy|>", "<n\u00e9>", "<ne\u0301>", "\U00010330", "\u01c5", "\u02b0", "\ufdfa", "\x00", "\x7f"]


def build(name, base):
    t = Tokenizer.from_str(base)
    if name == "smollm":
        t.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True),
                                                   pre_tokenizers.ByteLevel(add_prefix_space=False)])
    elif name == "gpt2":
        t.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    else:
        t.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(SPLIT[name]), "isolated"),
                                                   pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    if name == "qwen2":
        t.normalizer = normalizers.NFC()
    t.decoder = decoders.ByteLevel()
    t.add_special_tokens([AddedToken("<|x|>", special=True, normalized=False), AddedToken("<|xy|>", special=True, normalized=False)])
    t.add_tokens([AddedToken("<n\u00e9>", normalized=True)])
    j = json.loads(t.to_str())
    j["model"]["ignore_merges"] = name == "llama3"
    return json.dumps(j, ensure_ascii=False)


def main():
    random.seed(7)
    texts = ["", " ", "\n"] + FRAGMENTS + ["".join(random.choices(FRAGMENTS, k=random.randint(2, 14))) for _ in range(600)]
    t = Tokenizer(models.BPE())
    t.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    words = ["the word and a word", "I'm sure we'll do it", "12 123 1234 12345", "\n\n\n  \t the end...", "!?!?  ()()", "東京 東京 größer"]
    t.train_from_iterator(words * 20, trainers.BpeTrainer(vocab_size=340, show_progress=False,
                                                          initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    out = {"tokenizers": {}, "texts": texts, "ids": {}}
    for name in ["smollm", "gpt2", "qwen2", "llama3"]:
        out["tokenizers"][name] = build(name, t.to_str())
        fast = Tokenizer.from_str(out["tokenizers"][name])
        out["ids"][name] = [fast.encode(x, add_special_tokens=False).ids for x in texts]
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "tokenizer.json")
    with open(path, "w", encoding="ascii") as f:
        json.dump(out, f, separators=(",", ":"))
        f.write("\n")


if __name__ == "__main__":
    main()
