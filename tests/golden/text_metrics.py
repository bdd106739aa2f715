"""Writes text_metrics.json: ROUGE, BLEU, F1, stems and lower case of text pairs, as rouge-score 0.1.2, sacrebleu and Python say.

Pairs: hand-made edge cases, answers of GSM8K and HH-RLHF against each other or against a changed copy, and random texts over
alphabets that tokenizers find hard. Needs rouge-score, sacrebleu. Run: python tests/golden/text_metrics.py [DATA FOLDER]
"""
import collections
import gzip
import json
import logging
import pathlib
import random
import re
import string
import sys

import sacrebleu
from nltk.stem.porter import PorterStemmer
from rouge_score import rouge_scorer
from sacrebleu.metrics import BLEU
from sacrebleu.tokenizers.tokenizer_13a import Tokenizer13a

HERE = pathlib.Path(__file__).resolve().parent
DATA = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else HERE.parent.parent / "../shared/data"
rng = random.Random(6)
logging.getLogger("sacrebleu").setLevel(logging.ERROR)  # BLEU without effective_order is meant here

EDGES = [
    ("", ""), ("a", ""), ("", "a"), ("the", "the"), ("the", "a"), (" ", "\n"), ("...", "..."), ("!?", "the cat"),
    ("The cat sat on the mat.", "The cat sat on the mat."), ("The cat sat on the mat.", "the cat SAT on a mat"),
    ("cat the on mat", "the cat is on the mat"), ("a a a a a", "a a"), ("a a", "a a a a a"), ("one two three four", "four three two one"),
    ("It costs $1,234.56, or 3.5%.", "It costs $1234.56 or 3.5 %."), ("1-2-3", "1 - 2 - 3"), ("well-known facts", "well known facts"),
    ("end-\nline", "endline"), ("a\nb\nc", "a b c"), ("a\r\nb", "a b"), ("<skipped> text", "text"), ("x &lt;b&gt; &amp;amp; &quot;y&quot;", "x <b> & \"y\""),
    ("&amp;lt;", "<"), ("caf\u00e9 cr\u00e8me", "cafe creme"), ("na\u00efve r\u00e9sum\u00e9", "na\u00efve r\u00e9sum\u00e9"),
    ("\u4f60\u597d\uff0c\u4e16\u754c\u3002", "\u4f60\u597d \u4e16\u754c"), ("\u3053\u3093\u306b\u3061\u306f", "\u3053\u3093\u306b\u3061\u306f"),
    ("\u0645\u0631\u062d\u0628\u0627 \u0628\u0627\u0644\u0639\u0627\u0644\u0645", "\u0645\u0631\u062d\u0628\u0627"), ("\u041f\u0440\u0438\u0432\u0435\u0442, \u043c\u0438\u0440!", "\u043f\u0440\u0438\u0432\u0435\u0442 \u043c\u0438\u0440"),
    ("\U0001f600 smile", "smile \U0001f600\U0001f600"), ("\u212aelvin \u0130stanbul", "kelvin istanbul"), ("\u03a3\u039f\u03a6\u039f\u03a3 \u03a3\u0391\u03a3.", "\u03c3\u03bf\u03c6\u03bf\u03c2 \u03c3\u03b1\u03c2"),
    ("a\u00a0b\u2003c\u3000d", "a b c d"), ("a\u2028b\x1cc\x85d", "a b c d"), ("zero\u200bwidth", "zerowidth"), ("x\u00ad y", "x y"),
    ("The an a THE answer", "answer"), ("the-answer", "answer"), ("the\u2014answer", "answer"), ("isn't it?", "isnt it"), ("a.b.c.", "a . b . c ."),
    ("..,,..", ". . , , . ."), ("3.14 .5 5. ,5 5,", "3.14 . 5 5 . , 5 5 ,"), ("U.S.A. 1,000.", "U.S.A. 1000"), ("x_y x-y x/y", "x y x y x y"),
    ("#### 72", "72"), ("{curly} [square] (round)", "{ curly } [ square ] ( round )"), ("`~^|\\", "` ~ ^ | \\"), ("100% of @user's #tag", "100 % of @ user 's # tag"),
    ("\u00bd \u00b2 \u2460 \u0661", "1/2"), ("e\u0301tude", "\u00e9tude"), ("\ufb01ne of\ufb01ce", "fine office"), ("stra\u00dfe STRASSE \u1e9e", "strasse stra\u00dfe"), ("\u01c5 \u01c6", "\u01c6 \u01c6"),
    ("flies flying flew skies dying", "fly sky die"), ("relational conditional rationally", "relate condition rational"),
    ("word " * 70, "word " * 64), ("a b " * 100, "b a " * 90), ("x " * 200 + "y", "y " + "x " * 190),
]


def read(name):
    with gzip.open(DATA / name, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def changed(text):
    words = text.split(" ")
    for _ in range(max(1, len(words) // 6)):
        at = rng.randrange(len(words))
        what = rng.randrange(4)
        if what == 0 and len(words) > 1:
            del words[at]
        elif what == 1:
            words.insert(at, rng.choice(words))
        elif what == 2:
            words[at] = words[at].upper()
        else:
            other = rng.randrange(len(words))
            words[at], words[other] = words[other], words[at]
    return " ".join(words)


def noise():
    alphabet = rng.choice(["ab ", "abc .,-", "0123456789.,-% ", string.printable, "aeiouy bcd", "the an\u00e9\u4f60\u2014\u00a0.,'\n",
                           "\u03a3\u03c3\u03b1 \u0410\u0430\u0301.", "&ltgquoamp;<> -\n"])
    return "".join(rng.choice(alphabet) for _ in range(rng.randrange(1, 60)))


pairs = list(EDGES)
gsm = read("gsm8k/test.jsonl.gz")
for i in range(0, 60):
    pairs.append((gsm[i]["answer"], gsm[i + 1]["answer"]) if i % 2 else (changed(gsm[i]["answer"]), gsm[i]["answer"]))
    if i % 4 == 0:
        pairs.append((gsm[i]["question"], gsm[i]["answer"]))
hh = read("hh-rlhf/harmless-base-test-1800.jsonl.gz")
for row in hh[:40]:
    pairs.append((row["chosen"].split("\n\nAssistant:")[-1], row["rejected"].split("\n\nAssistant:")[-1]))
for row in hh[40:52]:
    pairs.append((row["chosen"][:1500], changed(row["chosen"][:1500])))
pairs += [(changed(" ".join(r["answer"] for r in gsm[60:68])), " ".join(r["answer"] for r in gsm[60:68]))]
for _ in range(60):
    one = noise()
    pairs.append((one, changed(one) if rng.random() < 0.5 else noise()))


def normalized(text):  # SQuAD
    text = "".join(c for c in text.lower() if c not in set(string.punctuation))
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split())


def f1(answer, truth):
    a, t = normalized(answer).split(), normalized(truth).split()
    if not a or not t:
        return float(a == t)
    same = sum((collections.Counter(a) & collections.Counter(t)).values())
    return 2 * same / (len(a) + len(t)) if same else 0.0


plain = rouge_scorer.RougeScorer(["rouge1", "rouge2", "rougeL"], use_stemmer=False)
stemmed = rouge_scorer.RougeScorer(["rouge1", "rouge2", "rougeL"], use_stemmer=True)
tokenizer = Tokenizer13a()
METHODS = {"exp": {}, "floor": {"smooth_method": "floor"}, "add-k": {"smooth_method": "add-k"}, "none": {"smooth_method": "none"}}
bleus = {name: BLEU(effective_order=True, **kw) for name, kw in METHODS.items()}
whole_order = BLEU(effective_order=False)
cases = []
for answer, truth in pairs:
    p, s = plain.score(truth, answer), stemmed.score(truth, answer)
    rouge = [list(x[k]) for x in (p, s) for k in ("rouge1", "rouge2", "rougeL")]
    cases.append({"answer": answer, "truth": truth, "rouge": rouge,
                  "bleu": [bleus[m].sentence_score(answer, [truth]).score for m in METHODS],
                  "bleu_whole": whole_order.sentence_score(answer, [truth]).score,
                  "tokens": tokenizer(answer.rstrip()).split(), "f1": f1(answer, truth), "squad": normalized(answer)})
assert len(cases) >= 200

answers, truths = [a for a, _ in pairs], [t for _, t in pairs]
corpora = []
for begin, end in ((0, len(pairs)), (0, 50), (60, 120), (8, 9)):
    for name, kw in METHODS.items():
        score = BLEU(**kw).corpus_score(answers[begin:end], [truths[begin:end]])
        corpora.append({"begin": begin, "end": end, "smooth": name, "score": score.score, "bp": score.bp,
                        "answer_length": score.sys_len, "reference_length": score.ref_len})
several = []
for i in range(0, 60, 3):
    references = [truths[i], answers[i + 1], truths[i + 2]]
    several.append({"answer": answers[i], "references": references,
                    "bleu": bleus["exp"].sentence_score(answers[i], references).score,
                    "rougeL": stemmed.score_multi(references, answers[i])["rougeL"].fmeasure})

words = set(re.findall(r"[a-z0-9]+", " ".join(answers + truths).lower()))
words |= set("caresses ponies ties caress cats feed agreed plastered bled motoring sing conflated troubled sized hopping tanned "
             "falling hissing fizzed failing filing happy sky relational conditional rational valenci hesitanci digitizer "
             "conformabli radicalli differentli vileli analogousli vietnamization predication operator feudalism decisiveness "
             "hopefulness callousness formaliti sensitiviti sensibiliti triplicate formative formalize electriciti electrical "
             "hopeful goodness revival allowance inference airliner gyroscopic adjustable defensible irritant replacement "
             "adjustment dependent adoption homologou communism activate angulariti homologous effective bowdlerize probate rate "
             "cease controll roll enjoy enjoyment spied died dies lied flies skies news innings proceed succeed syzygy yyyy yyyed "
             "toy say says saying boyish ied ing eed sses ion tion xion logi geologi apologi fulli hopefulli alli really "
             "generally oed us is as ied2 by eying yes oxes axis bbed ss zz".split())
for _ in range(1500):  # every suffix behind random stems
    stem = "".join(rng.choice("aeiouybcdlstz") for _ in range(rng.randrange(1, 6)))
    suffix = rng.choice("ational tional enci anci izer bli alli entli eli ousli ization ation ator alism iveness fulness ousness aliti iviti "
                        "biliti fulli logi icate ative alize iciti ical ful ness al ance ence er ic able ible ant ement ment ent sion tion "
                        "ou ism ate iti ous ive ize ed ing eed ied ies sses s e ll y ying lled zzing ating bled".split())
    words.add(stem + suffix)
stemmer = PorterStemmer()
stems = {w: stemmer.stem(w) for w in sorted(words) if w}
lower = "".join(chr(c) for c in range(0x20, 0x1F000) if not 0xD800 <= c < 0xE000 and chr(c).lower() != chr(c) and c not in (0x130, 0x3A3))

json.dump({"made_by": "text_metrics.py: rouge-score 0.1.2, sacrebleu " + sacrebleu.__version__, "cases": cases, "corpora": corpora,
           "several": several, "stems": stems, "capitals": lower, "lower": lower.lower()},
          open(HERE / "text_metrics.json", "w", encoding="ascii"), separators=(",", ":"))
print(len(cases), "pairs,", len(stems), "stems,", len(lower), "capital letters")
