"""Ids of texts around added tokens, unknown characters and chains of normalizers, by Hugging Face's tokenizers.

    pip install tokenizers==0.23.*
    python tests/golden/make_added_tokens_golden.py

Writes tests/golden/added_tokens.json: {name: {"tokenizer": tokenizer.json, "texts": [...], "ids": [[...], ...]}}.
"""
import json
import pathlib
import random

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

PARTS = ["a", "b", "ab", " ", "  ", "\t", "\n", "\u00a0", "\u3000", "<l>", "<r>", "<lr>", "<w>", "<n>", "<wlr>", "<l", "x<w>", "<w>_", "<w>\u0301",
         "\u00e9", "e\u0301", "<\u00e9>", "<e\u0301>", "_", ".", "1", "\u24d0", "\u200d", "cat", "cats", "Cat", "  cat", "c", "!", "\u6771"]


def base(alphabet=True, unk=None):
    t = Tokenizer(models.BPE(unk_token=unk))
    t.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    t.decoder = decoders.ByteLevel()
    kw = {"initial_alphabet": pre_tokenizers.ByteLevel.alphabet()} if alphabet else {}
    t.train_from_iterator(["the cat and the cats sat", "a b ab abc."] * 5,
                          trainers.BpeTrainer(vocab_size=280 if alphabet else 40, show_progress=False,
                                              special_tokens=[unk] if unk else [], **kw))
    return t


def texts(seed, n=250, parts=PARTS):
    random.seed(seed)
    return ["", " "] + parts + ["".join(random.choices(parts, k=random.randint(2, 9))) for _ in range(n)]


def strips():
    t = base()
    t.add_tokens([AddedToken("<l>", lstrip=True), AddedToken("<r>", rstrip=True, normalized=False),
                  AddedToken("<lr>", lstrip=True, rstrip=True, special=True, normalized=False),
                  AddedToken("<w>", single_word=True), AddedToken("<n>", normalized=True),
                  AddedToken("<wlr>", single_word=True, lstrip=True, rstrip=True, normalized=False),
                  AddedToken("cat", single_word=True), AddedToken("  ", normalized=False), AddedToken("\n", normalized=False)])
    return t


# A word that hides a shorter one where it is no word of its own; white space that two tokens want.
def overlaps():
    t = base()
    t.add_tokens([AddedToken("cats", single_word=True), AddedToken("cat"), AddedToken(" ", rstrip=True), AddedToken("a", rstrip=True),
                  AddedToken("b", lstrip=True, normalized=False), AddedToken("_", single_word=True)])
    return t


def normalized():
    t = base()
    t.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Sequence([]), normalizers.NFC()])
    t.add_tokens([AddedToken("<e\u0301>", normalized=True), AddedToken("<\u00e9", normalized=False), AddedToken("<e\u0301", normalized=False)])
    return t


def empty_sequence():
    t = base()
    t.normalizer = normalizers.Sequence([])
    return t


def twice():
    t = base()
    t.add_tokens([AddedToken("<l>"), AddedToken("<r>")])
    j = json.loads(t.to_str())
    first = j["added_tokens"][0]
    j["added_tokens"] += [dict(first, lstrip=True), dict(j["added_tokens"][1])]
    return Tokenizer.from_str(json.dumps(j))


# Ids that the file gives and the vocabulary contradicts.
def in_vocabulary():
    t = base()
    t.add_tokens([AddedToken("cat", special=True, normalized=False), AddedToken("c", normalized=False)])
    return t


def unknown(fuse):
    t = base(alphabet=False, unk="<unk>")
    j = json.loads(t.to_str())
    j["model"]["fuse_unk"] = fuse
    return Tokenizer.from_str(json.dumps(j))


def unknown_plain():
    t = Tokenizer(models.BPE(vocab={"<unk>": 0, "a": 1, "b": 2, "ab": 3}, merges=[("a", "b")], unk_token="<unk>"))
    return t


def many():
    t = base()
    t.add_tokens([AddedToken(f"<|speech_{i:05}|>", normalized=i % 2 == 0, lstrip=i % 3 == 0) for i in range(2000)])
    return t


CASES = {
    "strips": (strips, texts(1)),
    "overlaps": (overlaps, texts(2)),
    "normalized": (normalized, texts(3)),
    "empty_sequence": (empty_sequence, texts(4, 50)),
    "twice": (twice, texts(5, 50)),
    "in_vocabulary": (in_vocabulary, texts(6, 50)),
    "unknown": (lambda: unknown(False), texts(7, 100)),
    "unknown_fused": (lambda: unknown(True), texts(8, 100)),
    "unknown_plain": (unknown_plain, texts(9, 100)),
    "many": (many, texts(10, 100, ["a", " ", "  ", "<|speech_00000|>", "<|speech_01999|>", "<|speech_0199", "<|speech_02000|>", "<|"])),
}


def main():
    out = {}
    for name, (make, lines) in CASES.items():
        t = make()
        out[name] = {"tokenizer": t.to_str(), "texts": lines, "ids": [t.encode(x, add_special_tokens=False).ids for x in lines]}
    path = pathlib.Path(__file__).parent / "added_tokens.json"
    path.write_text(json.dumps(out, separators=(",", ":")) + "\n", encoding="ascii")


if __name__ == "__main__":
    main()
