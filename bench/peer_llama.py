"""llama.cpp on the CPU through its batch interface: greedy decoding of several sequences at once from an f16 GGUF. Prints the
JSON object of bench/model_bench.cc. The clock runs over prompts and new tokens, as there. Run by bench/compare.py and
bench/in_turns.py."""
import argparse
import json
import random
import resource
import time

import llama_cpp
import numpy as np

parser = argparse.ArgumentParser()
parser.add_argument("gguf")
for name, default in dict(batch=32, prompt=32, new=64, rounds=3, threads=2).items():
    parser.add_argument(f"--{name}", type=int, default=default)
args = parser.parse_args()

llama_cpp.llama_backend_init()
silent = llama_cpp.llama_log_callback(lambda level, text, data: None)
llama_cpp.llama_log_set(silent, None)
model_params = llama_cpp.llama_model_default_params()
load = getattr(llama_cpp, "llama_model_load_from_file", None) or llama_cpp.llama_load_model_from_file
model = load(args.gguf.encode(), model_params)
assert model, f"llama.cpp cannot load {args.gguf}"
params = llama_cpp.llama_context_default_params()
params.n_ctx = args.batch * (args.prompt + args.new)
params.n_batch = params.n_ubatch = max(512, args.batch)
params.n_seq_max = args.batch
params.n_threads = params.n_threads_batch = args.threads
init = getattr(llama_cpp, "llama_init_from_model", None) or llama_cpp.llama_new_context_with_model
context = init(model, params)
assert context, "llama.cpp made no context"
vocab = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(model))
batch = llama_cpp.llama_batch_init(params.n_batch, 0, 1)
random.seed(1)
prompts = [[random.randrange(vocab) for _ in range(args.prompt)] for _ in range(args.batch)]


def run(rows):
    """rows: (token, position, sequence, wants logits)."""
    batch.n_tokens = len(rows)
    for i, (token, position, sequence, logits) in enumerate(rows):
        batch.token[i] = token
        batch.pos[i] = position
        batch.n_seq_id[i] = 1
        batch.seq_id[i][0] = sequence
        batch.logits[i] = logits
    assert llama_cpp.llama_decode(context, batch) == 0


def greedy(i):
    return int(np.ctypeslib.as_array(llama_cpp.llama_get_logits_ith(context, i), (vocab,)).argmax())


def one_round():
    if hasattr(llama_cpp, "llama_memory_clear"):
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(context), True)
    else:
        llama_cpp.llama_kv_self_clear(context)
    last = []
    for s, prompt in enumerate(prompts):
        run([(t, i, s, i + 1 == args.prompt) for i, t in enumerate(prompt)])
        last.append(greedy(args.prompt - 1))
    out = [list(last)]
    for step in range(args.new - 1):
        run([(last[s], args.prompt + step, s, True) for s in range(args.batch)])
        last = [greedy(s) for s in range(args.batch)]
        out.append(list(last))
    return out


first = one_round()
seconds = []
before = resource.getrusage(resource.RUSAGE_SELF)
for _ in range(args.rounds):
    begin = time.perf_counter()
    assert one_round() == first, "llama.cpp gave other tokens for the same prompts"
    seconds.append(time.perf_counter() - begin)
after = resource.getrusage(resource.RUSAGE_SELF)
median = sorted(seconds)[len(seconds) // 2]
tokens = args.batch * args.new
print(json.dumps({"bench": "decode", "dtype": "f16", "threads": args.threads, "tokens": tokens, "seconds": median,
                  "tokens_per_s": tokens / median, "rounds": args.rounds,
                  "user_s": after.ru_utime - before.ru_utime, "system_s": after.ru_stime - before.ru_stime}))
