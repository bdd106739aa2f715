"""tests/golden/gguf_tokenizer.json: SentencePiece BPE models as GGUF files hold them, and what SentencePiece makes of texts.

Two tiny models are trained on the words below, as Llama 2's (a space before the text) and as Gemma's (none, runs of spaces and
line ends as tokens of their own), both with byte tokens. Kept are the lists of tokens, scores and types as llama.cpp's converter
takes them from the model, and for each text SentencePiece's ids and the text that they decode to.
Run: python tests/golden/make_gguf_tokenizer_golden.py   (sentencepiece 0.2)"""
import io
import json
import pathlib

import sentencepiece as spm

HERE = pathlib.Path(__file__).resolve().parent
WORDS = ("the learner asks for the batch of a step and the actor answers with groups of answers that a reward has scored; "
         "there is one stream of numbers, and nothing is dropped without a counter. Größe und Maß: über alle Maßen schön. "
         "Une réponse n'est pas une question; été, élève, état. 12 34 567 8900 (a + b) * c == d[0] {x: 1}").split(" ")
TEXTS = ["the batch", " the batch", "  two spaces", "a\nb\n\nc", "tabs\tand trailing ", "Größe élève", "numbers 1234567890", "日本 🙂",
         "the the the thethethe", "an answer that nobody has seen: zxqj", "", " ", "   ", "x  y   z", "\n", "unk\u2581own", "a<b>c</b>"]
CASES = {"llama": dict(add_dummy_prefix=True), "gemma": dict(add_dummy_prefix=False, user_defined_symbols=["\n", "\n\n", "▁▁", "▁▁▁", "<b>"])}

out = {}
for name, options in CASES.items():
    model = io.BytesIO()
    lines = [" ".join(WORDS[i:i + 7]) for i in range(len(WORDS))] * 3
    spm.SentencePieceTrainer.train(sentence_iterator=iter(lines), model_writer=model, model_type="bpe", vocab_size=430,
                                   byte_fallback=True, character_coverage=1.0, normalization_rule_name="identity",
                                   remove_extra_whitespaces=False, split_digits=True, pad_id=-1, minloglevel=2, **options)
    sp = spm.SentencePieceProcessor(model_proto=model.getvalue())
    tokens, scores, types = [], [], []
    for i in range(sp.get_piece_size()):
        text, score, kind = sp.id_to_piece(i), sp.get_score(i), 1
        if sp.is_unknown(i):
            kind = 2
        elif sp.is_control(i):
            kind = 3
        elif sp.is_byte(i):
            kind = 6
        elif text in options.get("user_defined_symbols", []):
            text, score, kind = text.replace("▁", " "), -1000.0, 4
        tokens.append(text)
        scores.append(score)
        types.append(kind)
    out[name] = dict(tokens=tokens, scores=scores, types=types, bos=sp.bos_id(), eos=sp.eos_id(), unk=sp.unk_id(),
                     add_space_prefix=options["add_dummy_prefix"],
                     texts=[dict(text=t, ids=sp.encode(t), decoded=sp.decode(sp.encode(t))) for t in TEXTS])
(HERE / "gguf_tokenizer.json").write_text(json.dumps(out, ensure_ascii=False, separators=(",", ":")) + "\n")
