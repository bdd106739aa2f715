"""A small tokenizer.json of every kind that Plumb reads, trained here, with ids and decoded texts by Hugging Face's tokenizers.

    pip install tokenizers==0.23.* sentencepiece
    python tests/golden/make_tokenizer_kinds_golden.py

Writes tests/golden/tokenizer_kinds.json: {name: {"tokenizer": tokenizer.json, "texts": [...], "ids": [[...], ...], "whole": ids of the
first texts with what the post-processor puts around them, "decoded": [[ids, text, text without special tokens], ...]}}.
bench/tokenizers_compare.py takes its kinds from here and trains them larger.
"""
import io
import json
import pathlib
import random

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

LINES = r"|\s*[\r\n]+|\s+(?!\S)|\s+"
TAIL = r"| ?[^\s\p{L}\p{N}]+[\r\n]*" + LINES
CONTRACTION = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
WORD = CONTRACTION + r"|[^\r\n\p{L}\p{N}]?\p{L}+|"
CL100K = r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|%s| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"
LOWER = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
UPPER = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
SLASH = r"| ?[^\s\p{L}\p{N}]+[\r\n/]*" + LINES
DEEPSEEK = (r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^""" + "\r\n" + r"""\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[""" + "\r\n" +
            r"]*|\s*[" + "\r\n" + r"]+|\s+(?!\S)|\s+")
PATTERNS = {
    "qwen2": [WORD + r"\p{N}" + TAIL],
    "llama3": [WORD + r"\p{N}{1,3}" + TAIL],
    "minicpm": [r"\p{N}{1,3}", WORD + r"\p{N}+" + TAIL],
    "cl100k": [CL100K % r"\p{N}{1,3}"],
    "bailing": [CL100K % r"\p{N}"],
    "qwen35": [CONTRACTION + r"|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*" + LINES],
    "o200k": [LOWER + CONTRACTION + "?|" + UPPER + CONTRACTION + r"?|\p{N}{1,3}" + SLASH],
    "o200k_digits": [LOWER + CONTRACTION + "?|" + UPPER + CONTRACTION + r"?|\p{N}" + SLASH],
    "tekken": [LOWER + "|" + UPPER + r"|\p{N}" + SLASH],
    "deepseek3": [r"\p{N}{1,3}", "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+", DEEPSEEK],
    "deepseek_coder": [r"[" + "\r\n" + "]", r"\s?\p{L}+", r"\s?\p{P}+", "[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+", r"\p{N}"],
    "lines": [r"[^\n]+|[\n]+", WORD + r"\p{N}" + TAIL],
}
FRAGMENTS = ["a", "the", "The ", "THE", "word", " word", "helloWorld", "HTTPServer", "XMLs", "\u01c5x", "I'm", "we'LL", "it'S", "'d", "'\u017f", "don't",
             "1", "12", "123456", "\u00bd", "\u0663\u0664", "\u2167", " ", "  ", "   ", "\n", "\n\n", " \n ", "\r\n", "\r", "\t", "\u00a0", "\u3000", "\u200b",
             "\x85", "!", "!?", "...", "();", "_x", "__", "-", "\u2014", "\u20ac", "$", "^", "/", "//", "\u00e9", "e\u0301", "\u0301", "E\u0301\u0323", "\u212b",
             "\u1100\u1161\u11a8", "\u0958", "\ufb01", "\ufdfa", "\u6771\u4eac", "\u4f60\u597d\uff0c\u4e16\u754c\u3002", "\u3053\u3093", "\u30ab\u30bf", "\ud55c\uad6d",
             "\u0939\u093f\u0928\u094d\u0926\u0940", "\u0e44\u0e17\u0e22", "\U0001f600", "\U0001f44d\U0001f3fd", "\U0001f468\u200d\U0001f469", "\u2581", "\u2581a", "<0x41>",
             "<s>", "</s>", "<unk>", "<x>", " <l>", "<r> ", "<w>", "a<w>", "\U00010330", "\u02b0", "\x00", "\x7f", "\ufffd", "\ue000", "\u0130", "\u1c89"]
TRAINED = ["the word and a word, the end", "I'm sure we'll do it", "12 123 1234", "  indented(); // code", "\u6771\u4eac \u4f60\u597d\u4e16\u754c", "HelloWorld helloWorld HTTP",
           "gr\u00f6\u00dfer caf\u00e9"]


def byte_level(steps, corpus=TRAINED, size=300, ignore_merges=False):
    t = Tokenizer(models.BPE(ignore_merges=ignore_merges))
    t.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(s), "isolated") for s in steps] +
                                              [pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=not steps)])
    t.decoder = decoders.ByteLevel()
    t.train_from_iterator(corpus, trainers.BpeTrainer(vocab_size=size, show_progress=False, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    t.add_special_tokens([AddedToken("<x>", special=True, normalized=False)])
    return t


def flags(t):
    t.add_tokens([AddedToken("<l>", lstrip=True), AddedToken("<r>", rstrip=True, normalized=False), AddedToken("<w>", single_word=True)])


def begin(t, token="<s>"):
    t.post_processor = processors.TemplateProcessing(single=f"{token} $A", pair=f"{token} $A {token} $B", special_tokens=[(token, t.token_to_id(token))])


def sentencepiece_type(pre, normalizer, decoder, corpus=TRAINED, size=330, fuse=True):
    """Characters, byte fallback and the mark of a space, as Llama 2, Mistral and Gemma have them."""
    t = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=fuse))
    t.normalizer, t.pre_tokenizer = normalizer, pre
    bytes_ = [f"<0x{b:02X}>" for b in range(256)]
    words = Tokenizer(models.BPE())  # trained word by word, as SentencePiece does
    words.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always", split=True)
    words.train_from_iterator(corpus, trainers.BpeTrainer(vocab_size=size - 259, show_progress=False, special_tokens=["<unk>", "<s>", "</s>"] + bytes_))
    j = json.loads(words.to_str())["model"]
    t.model = models.BPE(vocab=j["vocab"], merges=[tuple(m) for m in j["merges"]], unk_token="<unk>", byte_fallback=True, fuse_unk=fuse)
    t.decoder = decoder
    t.add_special_tokens([AddedToken(x, special=True, normalized=False) for x in ("<unk>", "<s>", "</s>")])
    begin(t)
    return t


def spaced(strip):
    steps = [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()]
    return decoders.Sequence(steps + ([decoders.Strip(" ", 1, 0)] if strip else []))


def unigram(corpus=TRAINED, size=120, fallback=False, normalizer=None):
    t = Tokenizer(models.Unigram())
    t.normalizer = normalizer or normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " "), normalizers.Strip(left=False)])
    t.pre_tokenizer = pre_tokenizers.Metaspace()
    t.decoder = decoders.Metaspace()
    special = ["<unk>", "<s>", "</s>"] + ([f"<0x{b:02X}>" for b in range(256)] if fallback else [])
    t.train_from_iterator(corpus, trainers.UnigramTrainer(vocab_size=size + len(special), show_progress=False, special_tokens=special, unk_token="<unk>"))
    if fallback:
        j = json.loads(t.to_str())
        j["model"]["byte_fallback"] = True
        t = Tokenizer.from_str(json.dumps(j))
        t.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace(prepend_scheme="never")])
    t.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", t.token_to_id("</s>"))])
    return t


def precompiled():
    """A map as SentencePiece writes it, of a few rules."""
    import sentencepiece
    rules = {"\ufb01": "fi", "\u00bd": "1/2", "e\u0301": "\u00e9", "\u3000": " ", "\u200b": "", "\t": " ", "\n": " ", "\u212b": "\u00c5", "\U0001f600": ":)"}
    path = pathlib.Path("rules.tsv")
    path.write_text("".join(" ".join(f"{ord(c):X}" for c in k) + "\t" + " ".join(f"{ord(c):X}" for c in v) + "\n" for k, v in rules.items()), encoding="utf-8")
    out = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter(TRAINED * 20), model_writer=out, vocab_size=60, normalization_rule_tsv=str(path),
                                             minloglevel=2, hard_vocab_limit=False)
    path.unlink()
    return normalizers.Precompiled(charsmap(out.getvalue()))


def charsmap(model):
    """normalizer_spec (field 3) . precompiled_charsmap (field 2) of a ModelProto."""
    def fields(data):
        at = 0
        def varint():
            nonlocal at
            value = shift = 0
            while True:
                b = data[at]
                at += 1
                value |= (b & 127) << shift
                shift += 7
                if b < 128:
                    return value
        while at < len(data):
            key = varint()
            if key & 7 == 2:
                n = varint()
                yield key >> 3, data[at:at + n]
                at += n
            elif key & 7 == 5:
                at += 4
            elif key & 7 == 1:
                at += 8
            else:
                varint()
    return dict(fields(dict(fields(model))[3]))[2]


def llama2(corpus=TRAINED, size=330):
    t = sentencepiece_type(None, normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")]), spaced(True), corpus, size)
    flags(t)
    return t


def mistral(corpus=TRAINED, size=330):
    t = sentencepiece_type(pre_tokenizers.Metaspace(prepend_scheme="first", split=False), None, spaced(True), corpus, size)
    flags(t)
    return t


def gemma(corpus=TRAINED, size=330):
    t = sentencepiece_type(pre_tokenizers.Split(" ", "merged_with_previous"), normalizers.Replace(" ", "\u2581"), spaced(False), corpus, size)
    t.add_tokens([AddedToken("\n" * n, normalized=False) for n in (2, 3)] + [AddedToken("\u2581" * n, normalized=False) for n in (2, 3, 4)])
    return t


def some_bytes():
    """Few of the bytes are tokens, so that unknown characters and bytes mix."""
    t = sentencepiece_type(None, None, spaced(False), fuse=False)
    j = json.loads(t.to_str())
    vocab = {k: v for k, v in j["model"]["vocab"].items() if not (k.startswith("<0x") and v % 3 == 0)}
    names = sorted(vocab, key=vocab.get)
    j["model"]["vocab"] = {k: i for i, k in enumerate(names)}
    return Tokenizer.from_str(json.dumps(j))


def split_with(behavior, invert):
    t = byte_level([r"\s+"])
    t.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(r"\p{N}{1,3}"), behavior, invert), pre_tokenizers.Split("a", behavior),
                                               pre_tokenizers.ByteLevel(add_prefix_space=True)])
    return t


def classes(last):
    t = byte_level([])
    t.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation("contiguous"), pre_tokenizers.Digits(), last,
                                               pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    return t


def normalized(steps):
    t = byte_level([])
    t.normalizer = normalizers.Sequence(steps)
    flags(t)
    return t


def metaspace_split():
    t = sentencepiece_type(pre_tokenizers.Metaspace(prepend_scheme="always", split=True), None, decoders.Metaspace(prepend_scheme="always", split=True))
    flags(t)
    return t


def roberta():
    t = byte_level([])
    t.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    t.add_special_tokens(["<s>", "</s>"])
    t.post_processor = processors.RobertaProcessing(("</s>", t.token_to_id("</s>")), ("<s>", t.token_to_id("<s>")))
    return t


def sequence_of_processors():
    t = byte_level(PATTERNS["llama3"], ignore_merges=True)
    t.add_special_tokens(["<s>"])
    begin(t)
    t.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), t.post_processor])
    return t


def no_decoder():
    t = byte_level([])
    t.decoder = None
    return t


def joined_decoder():
    """Steps behind one that makes a single token of all."""
    t = llama2()
    t.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse(), decoders.Replace("\u2581", " "), decoders.Replace(" a", "bc"), decoders.Strip(" ", 2, 3)])
    return t


def stripped_tokens():
    t = llama2()
    t.decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.Strip(" ", 1, 1), decoders.Fuse()])
    return t


KINDS = {name: (lambda p: lambda: byte_level(p))(p) for name, p in PATTERNS.items()}
KINDS |= {
    "llama2": llama2, "mistral": mistral, "gemma": gemma, "some_bytes": some_bytes, "metaspace_split": metaspace_split,
    "unigram": unigram, "unigram_bytes": lambda: unigram(fallback=True),
    "precompiled": lambda: unigram(normalizer=normalizers.Sequence([precompiled(), normalizers.Replace(Regex(" {2,}"), " ")])),
    "isolated": lambda: split_with("isolated", False), "removed": lambda: split_with("removed", True), "removed_matches": lambda: split_with("removed", False),
    "merged_with_previous": lambda: split_with("merged_with_previous", False), "merged_with_next": lambda: split_with("merged_with_next", True),
    "contiguous": lambda: split_with("contiguous", False),
    "classes": lambda: classes(pre_tokenizers.Whitespace()), "delimiter": lambda: classes(pre_tokenizers.CharDelimiterSplit("e")),
    "folded": lambda: normalized([normalizers.NFKC(), normalizers.Lowercase(), normalizers.Strip(), normalizers.Replace("word", "w")]),
    "accents": lambda: normalized([normalizers.NFD(), normalizers.StripAccents(), normalizers.Replace(Regex(r"\s+"), "_")]),
    "nfkd": lambda: normalized([normalizers.NFKD(), normalizers.Prepend("~"), normalizers.NFC()]),
    "roberta": roberta, "processors": sequence_of_processors, "no_decoder": no_decoder, "joined_decoder": joined_decoder, "stripped_tokens": stripped_tokens,
}


def decoded(t, row):
    try:
        return [row, t.decode(row, skip_special_tokens=False), t.decode(row)]
    except BaseException as e:  # Strip panics where nothing is left
        assert "Panic" in type(e).__name__, e
        return None


def main():
    out = {}
    for number, (name, make) in enumerate(KINDS.items()):
        random.seed(number)
        t = make()
        texts = ["", " "] + random.sample(FRAGMENTS, 25) + ["".join(random.choices(FRAGMENTS, k=random.randint(2, 9))) for _ in range(40)]
        encoded = [t.encode(x, add_special_tokens=False).ids for x in texts]
        size = t.get_vocab_size()
        rows = encoded[27:47] + [random.choices(range(size), k=random.randint(1, 14)) for _ in range(20)]
        # Bytes by themselves: the tokens of one byte and of the fallback.
        single = [i for i in range(size) if len(t.id_to_token(i) or "") == 1 or (t.id_to_token(i) or "").startswith("<0x")]
        rows += [random.choices(single, k=random.randint(1, 12)) for _ in range(15)]
        out[name] = {"tokenizer": json.dumps(json.loads(t.to_str()), separators=(",", ":"), ensure_ascii=False), "texts": texts, "ids": encoded,
                     "whole": [t.encode(x).ids for x in texts[:3]],
                     "decoded": [d for d in (decoded(t, r) for r in rows) if d]}
    path = pathlib.Path(__file__).parent / "tokenizer_kinds.json"
    path.write_text(json.dumps(out, separators=(",", ":")) + "\n", encoding="ascii")


if __name__ == "__main__":
    main()
