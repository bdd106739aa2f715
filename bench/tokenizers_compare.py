#!/usr/bin/env python3
"""Ids and speed of Plumb's tokenizers beside Hugging Face's `tokenizers` 0.23: the same lines, one thread each, in one run.

  bench/tokenizers_compare.py [--lines 1000000] [--only llama3,gemma] [--folder NAME=FOLDER ...] [--ranks NAME=PATTERN=FILE ...]

Needs tokenizers==0.23.* and sentencepiece in this Python and tokenizer_bench: cmake --preset release -DPLUMB_BENCH=ON && ninja -C build
tokenizer_bench. For each kind of tests/golden/make_tokenizer_kinds_golden.py a tokenizer is trained here, on the lines of this project and
on what is generated; --folder adds one that there is (a folder with tokenizer.json), --ranks one made of a tiktoken file (or Tekken's JSON)
and one of the patterns, --pieces one made of a SentencePiece model. Lines: a third code and prose of this project with words exchanged, the
others Chinese, emoji with their joiners, any characters of Unicode, and bytes cut at random, of which both sides get what Python's
errors="replace" makes. Every line's ids are compared, but for lines that Plumb refuses because a character has no token (tokenizers leaves it out); a thousandth
of the rows is decoded by both, and token by token by Plumb.
Times are processor times: encode_batch_fast in batches of 10,000 with TOKENIZERS_PARALLELISM off, and Tokenizer::Encode.
"""
import argparse
import array
import base64
import importlib.util
import json
import os
import pathlib
import random
import struct
import subprocess
import sys
import tempfile
import time

os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["RAYON_NUM_THREADS"] = "1"
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers  # noqa: E402

ROOT = pathlib.Path(__file__).resolve().parent.parent
spec = importlib.util.spec_from_file_location("kinds", ROOT / "tests/golden/make_tokenizer_kinds_golden.py")
kinds = importlib.util.module_from_spec(spec)
spec.loader.exec_module(kinds)
parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--bench", type=pathlib.Path, default=ROOT / "build/bench/tokenizer_bench")
parser.add_argument("--lines", type=int, default=1_000_000)
parser.add_argument("--only", default="")
parser.add_argument("--seed", type=int, default=1)
for name in ("folder", "ranks", "pieces"):
    parser.add_argument("--" + name, action="append", default=[])
args = parser.parse_args()

COMMON = "的一是不了人我在有他这为之大来以个中上们到说国和地也子时道出而要于就下得可你年生自会那后能对着事其里所去行过家十用发天如然作方成者多日都三小军二无同么经法当起与好看学进种将还分此心前面又定见只主没公从"
EMOJI = ["😀", "👍🏽", "👨‍👩‍👧‍👦", "🇩🇪", "❤️", "🏳️‍🌈", "1️⃣", "🤷🏻‍♀️", "🎉", "🔥"]


def project_lines():
    out = []
    for path in sorted(ROOT.rglob("*")):
        if path.suffix in (".cc", ".h", ".py", ".md", ".toml", ".cu") and not any(p.startswith((".", "build")) for p in path.relative_to(ROOT).parts):
            out += [x for x in path.read_text(encoding="utf-8").splitlines() if x.strip()]
    return out


def generate(count, rng):
    real = project_lines()
    words = [w for x in real for w in x.split()][:200_000]
    phrases = ["".join(rng.choices(COMMON, k=rng.randint(2, 4))) for _ in range(3000)]
    assigned = [c for c in range(0x20, 0x32000) if not 0xD800 <= c < 0xE000]

    def chinese():
        return "".join(rng.choice(phrases) + (rng.choice("，。！？、；：") if rng.random() < 0.3 else "") for _ in range(rng.randint(1, 4)))

    def code():
        line = rng.choice(real)
        if rng.random() < 0.7:
            parts = line.split(" ")
            parts[rng.randrange(len(parts))] = rng.choice(words)
            line = " ".join(parts)
        at = rng.randrange(max(1, len(line) - 20))
        line = line[at:at + rng.randint(6, 32)]
        return line if rng.random() < 0.9 else line + rng.choice(["\n", "\r\n", "\n\n", "  ", "\t\t"]) + rng.choice(real)

    def emoji():
        return "".join(rng.choice(EMOJI) if rng.random() < 0.6 else rng.choice(words) + " " for _ in range(rng.randint(1, 3)))

    def anything():
        return "".join(chr(rng.choice(assigned)) if rng.random() < 0.5 else rng.choice(" aA1'\n.!") for _ in range(rng.randint(1, 8)))

    def broken():
        data = bytearray(rng.choice([code, chinese, emoji])().encode())
        for _ in range(rng.randint(1, 4)):
            at = rng.randrange(len(data))
            data[at:at + rng.randint(0, 2)] = bytes(rng.choices(range(128, 256), k=rng.randint(0, 2)))
            if not data:
                data = bytearray(b"x")
        return data.decode("utf-8", errors="replace")

    makers = [code, code, chinese, emoji, anything, broken]
    return [makers[i % len(makers)]() for i in range(count)]


def of_ranks(pattern, path):
    """A tokenizer.json of a list of tokens by rank: a merge is how the ranks below cut the token in two."""
    if path.endswith(".json"):
        j = json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
        tokens = [base64.b64decode(v["token_bytes"]) for v in j["vocab"]][:130_072]
    else:
        tokens = [base64.b64decode(x.split()[0]) for x in pathlib.Path(path).read_text().splitlines() if x]
    ranks = {t: i for i, t in enumerate(tokens)}
    alphabet = {b: c for c, b in zip((chr(c) for c in range(256, 324)), [b for b in range(256) if not (33 <= b <= 126 or 161 <= b <= 172 or b >= 174)])}
    spell = [alphabet.get(b, chr(b)) for b in range(256)]
    merges = []
    for token in tokens:
        if len(token) < 2:
            continue
        parts = [token[i:i + 1] for i in range(len(token))]
        while len(parts) > 2:
            best = min(range(len(parts) - 1), key=lambda i: ranks.get(parts[i] + parts[i + 1], 1 << 30))
            parts[best:best + 2] = [parts[best] + parts[best + 1]]
        if all(p in ranks for p in parts):
            merges.append(tuple("".join(spell[b] for b in p) for p in parts))
    t = Tokenizer(models.BPE(vocab={"".join(spell[b] for b in t): i for t, i in ranks.items()}, merges=merges, ignore_merges=True))
    t.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(p), "isolated") for p in kinds.PATTERNS[pattern]] +
                                              [pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    t.decoder = decoders.ByteLevel()
    t.add_special_tokens([AddedToken("<|begin_of_text|>"), AddedToken("<|eot_id|>")])
    return t


def of_pieces(path):
    """Llama 2's form of tokenizer.json for a SentencePiece model of merges; their order is that of the scores."""
    import sentencepiece
    model = sentencepiece.SentencePieceProcessor(model_file=path)
    names = [model.id_to_piece(i) for i in range(model.get_piece_size())]
    vocab = {x: i for i, x in enumerate(names)}
    found = []
    for name, i in vocab.items():
        for cut in range(1, len(name)):
            left, right = name[:cut], name[cut:]
            if left in vocab and right in vocab:
                found.append((-model.get_score(i), vocab[left], vocab[right], (left, right)))
    t = kinds.llama2()
    t.model = models.BPE(vocab=vocab, merges=[m for _, _, _, m in sorted(found)], unk_token="<unk>", byte_fallback=True, fuse_unk=True)
    j = json.loads(t.to_str())
    j["added_tokens"] = [dict(a, id=vocab[a["content"]]) for a in j["added_tokens"] if a["content"] in vocab]
    j["post_processor"] = None
    return Tokenizer.from_str(json.dumps(j))


def compare(name, t, lines, records, folder):
    t.save(str(folder / "tokenizer.json"))
    took, out = 0.0, array.array("i")
    for begin in range(0, len(lines), 10_000):
        batch = lines[begin:begin + 10_000]
        start = time.process_time()
        encoded = t.encode_batch_fast(batch, add_special_tokens=False)
        took += time.process_time() - start
        for e in encoded:
            ids = e.ids
            out.append(len(ids))
            out.extend(ids)
    ours_path = folder / "ids"
    run = subprocess.run([args.bench, folder, records, ours_path], capture_output=True, text=True)
    if run.returncode != 0:
        print(f"{name}: {run.stderr.strip()}")
        return False
    ours_took = float(run.stdout)
    ours = array.array("i", ours_path.read_bytes())
    wrong = refused = a = b = 0
    sample = []
    same = out == ours
    for number, line in enumerate(lines):
        n, m = out[a], ours[b]
        if same and number % 1000:
            a += n + 1
            b = a
            continue
        theirs, mine = out[a:a + n + 1], ours[b:b + m + 1]
        if m == 1 and mine[1] == -1:
            refused += 1  # the reference leaves the character out
        elif theirs != mine:
            wrong += 1
            if wrong <= 3:
                print(f"  {name}: {line!r}\n    plumb      {list(mine[1:])}\n    tokenizers {list(theirs[1:])}", flush=True)
        if number % 1000 == 0:
            sample.append(list(theirs[1:]))
        a, b = a + n + 1, b + m + 1
    # Rows cut at random, so that characters break.
    rng = random.Random(2)
    sample = [s[rng.randint(0, 3):len(s) - rng.randint(0, 3)] for s in sample]
    (folder / "rows").write_bytes(b"".join(struct.pack(f"<{len(s) + 1}I", len(s), *s) for s in sample))
    subprocess.run([args.bench, folder, folder / "texts", folder / "rows", "decode"], check=True, capture_output=True)
    data, at, other = (folder / "texts").read_bytes(), 0, 0
    for s in sample:
        (n,) = struct.unpack_from("<I", data, at)
        other += data[at + 4:at + 4 + n].decode() != t.decode(s, skip_special_tokens=False)
        at += 4 + n
    megabytes = records.stat().st_size / 1e6
    print(f"{name:16} vocabulary {t.get_vocab_size():7}  lines {len(lines)}  wrong {wrong}  refused {refused}  decoded {len(sample)}"
          f"  wrong {other}  plumb {ours_took:7.2f} s ({megabytes / ours_took:5.1f} MB/s)  tokenizers {took:7.2f} s ({megabytes / took:4.1f} MB/s)  ratio {took / ours_took:5.1f}", flush=True)
    return wrong == 0 and other == 0


def main():
    rng = random.Random(args.seed)
    lines = generate(args.lines, rng)
    corpus = lines[:40_000]
    plain = [x for x in corpus if all(c < "\u0250" or c in COMMON for c in x)][:20_000]  # Unigram has to hold every character
    trained = {k: (lambda p: lambda: kinds.byte_level(p, corpus, 8_000))(p) for k, p in kinds.PATTERNS.items()}
    trained |= {"llama2": lambda: kinds.llama2(corpus, 8_000), "mistral": lambda: kinds.mistral(corpus, 8_000), "gemma": lambda: kinds.gemma(corpus, 8_000),
                "unigram": lambda: kinds.unigram(plain, 4_000), "unigram_bytes": lambda: kinds.unigram(plain, 4_000, fallback=True)}
    for given in args.folder:
        name, path = given.split("=", 1)
        trained[name] = lambda path=path: Tokenizer.from_file(path + "/tokenizer.json")
    for given in args.ranks:
        name, pattern, path = given.split("=", 2)
        trained[name] = lambda pattern=pattern, path=path: of_ranks(pattern, path)
    for given in args.pieces:
        name, path = given.split("=", 1)
        trained[name] = lambda path=path: of_pieces(path)
    only = [x for x in args.only.split(",") if x]
    good = True
    with tempfile.TemporaryDirectory() as temp:
        records = pathlib.Path(temp) / "records"
        with open(records, "wb") as f:
            for line in lines:
                data = line.encode()
                f.write(struct.pack("<I", len(data)) + data)
        for name in only or trained:
            folder = pathlib.Path(temp) / name
            folder.mkdir()
            good &= compare(name, trained[name](), lines, records, folder)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
