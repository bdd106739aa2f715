"""What `tokenizers` makes of tokenizer.json files, for tests/policy_model/gguf/tokenizer_files_test.cc.

argv: a file of jobs, the file to write. A job is {"tokenizer": tokenizer.json, "texts": list}; its answer is a list of
[ids without begin and end tokens, ids with them, the text that the first decode to]."""
import json
import sys

from tokenizers import Tokenizer

answers = []
for job in json.load(open(sys.argv[1], encoding="utf-8")):
    tokenizer = Tokenizer.from_file(job["tokenizer"])
    answer = []
    for text in job["texts"]:
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        answer.append([ids, tokenizer.encode(text).ids, tokenizer.decode(ids, skip_special_tokens=False)])
    answers.append(answer)
json.dump(answers, open(sys.argv[2], "w", encoding="utf-8"))
