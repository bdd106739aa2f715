#!/usr/bin/env bash
# transformers 5.23.0: in a folder of a Llama whose tokenizer.json puts a "▁" in front of words (as that of Llama 2 does)
# AutoTokenizer gives other ids than that file: the first word behind a special token loses its "▁", so each turn of a chat begins otherwise.
#
# The class LlamaTokenizer takes vocabulary and merges from the file, and in the place of its normalizer a pre-tokenizer of its own:
# Metaspace, which puts "▁" in front of the first piece of a text only, where Prepend puts it in front of each stretch between
# special tokens. A chat template writes <s> first, so that not even the first turn has it. "legacy": true in tokenizer_config.json
# mends that, but not a leading space, which is lost either way. A plain text to which <s> is added comes out right, so the usual
# comparison finds nothing. With model_type mistral, or the class PreTrainedTokenizerFast, the same folder follows the file, as
# tokenizers itself does, so two programs that share a checkpoint disagree on its prompts. Seen 2026-11-30, PyPI
# transformers 5.23.0 and tokenizers 0.23.3; tokens of "hi why" with <s> added, of " hi", and of the chat
# <s>[INST] hi [/INST]yes</s><s>[INST] why [/INST]:
#   the file                 <s> ▁hi ▁why | ▁ ▁hi | <s> ▁[INST] ▁hi ▁[/INST] yes </s> <s> ▁[INST] ▁why ▁[/INST]
#   llama                    <s> ▁hi ▁why | ▁hi | <s> [ INST] ▁hi ▁[/INST] yes </s> <s> [ INST] ▁why ▁[/INST]
#   llama, legacy            <s> ▁hi ▁why | ▁hi | <s> ▁[INST] ▁hi ▁[/INST] yes </s> <s> ▁[INST] ▁why ▁[/INST]
#   mistral                  as the file
#   PreTrainedTokenizerFast  as the file
# Fails when that changes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q --disable-pip-version-check transformers==5.23.0 tokenizers==0.23.3 jinja2
export HF_HUB_OFFLINE=1 TRANSFORMERS_VERBOSITY=error
"$work/venv/bin/python" - "$work" <<'PY'
import json
import pathlib
import sys

from tokenizers import Tokenizer, decoders, models, normalizers, processors, trainers
from transformers import AutoTokenizer

TEMPLATE = ("{% for m in messages %}{% if m.role == 'user' %}{{ '<s>[INST] ' + m.content + ' [/INST]' }}"
            "{% else %}{{ m.content + '</s>' }}{% endif %}{% endfor %}")
TALK = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yes"}, {"role": "user", "content": "why"}]

# A tokenizer of Llama 2's parts: BPE with bytes to fall back to, spaces as "▁", one more in front.
special, bytes_ = ["<unk>", "<s>", "</s>"], [f"<0x{b:02X}>" for b in range(256)]
original = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
original.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
original.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
original.train_from_iterator(["[INST]", "[/INST]", "hi", "yes", "why", "i"] * 20, trainers.BpeTrainer(
    vocab_size=320, special_tokens=special + bytes_, show_progress=False))
original.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
state = json.loads(original.to_str())
state["added_tokens"] = state["added_tokens"][: len(special)]  # bytes are not special
text = json.dumps(state)
original = Tokenizer.from_str(text)


def load(name, model_type, **config):
    folder = pathlib.Path(sys.argv[1], name)
    folder.mkdir()
    (folder / "tokenizer.json").write_text(text)
    (folder / "config.json").write_text(json.dumps(dict(model_type=model_type)))
    (folder / "tokenizer_config.json").write_text(json.dumps(
        dict(tokenizer_class="LlamaTokenizer", bos_token="<s>", eos_token="</s>", unk_token="<unk>") | config))
    return AutoTokenizer.from_pretrained(folder)


def tokens(tokenizer):
    chat = tokenizer.apply_chat_template(TALK, chat_template=TEMPLATE, tokenize=False)
    seen = [tokenizer("hi why")["input_ids"], tokenizer(" hi", add_special_tokens=False)["input_ids"],
            tokenizer(chat, add_special_tokens=False)["input_ids"]]
    assert seen[2] == tokenizer.apply_chat_template(TALK, chat_template=TEMPLATE, return_dict=False)
    return [tokenizer.convert_ids_to_tokens(ids) for ids in seen], chat


cases = [
    ("llama", dict(model_type="llama"), True, True),
    ("llama, legacy", dict(model_type="llama", legacy=True), True, False),
    ("mistral", dict(model_type="mistral"), False, False),
    ("PreTrainedTokenizerFast", dict(model_type="llama", tokenizer_class="PreTrainedTokenizerFast"), False, False),
]
ok, first = True, True
for name, arguments, loses_space, loses_prefix in cases:
    seen, chat = tokens(load(name, **arguments))
    file = [original.encode("hi why").tokens, original.encode(" hi", add_special_tokens=False).tokens,
            original.encode(chat, add_special_tokens=False).tokens]
    for shown, rows in (("the file", file),) * first + ((name, seen),):
        print(f"{shown:24} " + " | ".join(" ".join(row) for row in rows))
    first = False
    ok &= [a != b for a, b in zip(seen, file)] == [False, loses_space, loses_prefix]
sys.exit(0 if ok else "the behaviour changed")
PY
