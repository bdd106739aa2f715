"""Checks the house rules that a compiler does not: who may include whom, file sizes, kernels with their CPU reference, a
test for every source file, a first comment in every header. Run by CTest as `tree`; prints what to do about each finding."""
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
FOLDERS = ["common", "configs", "kernels", "policy_model", "actor", "reward", "replay", "learner", "run"]
# docs/ARCHITECTURE.md, table of allowed includes. Shelves are sub-folders with a row of their own.
SHELVES = ["policy_model/files", "policy_model/families", "policy_model/layers"]
ALLOWED = {
    "common": {"common"},
    "configs": {"configs", "common"},
    "kernels": {"kernels", "common"},
    "policy_model/files": {"policy_model/files", "common"},
    "policy_model/families": {"policy_model/families", "policy_model/files", "common"},
    "policy_model/layers": {"policy_model/layers", "policy_model", "policy_model/families", "kernels", "common"},
    "policy_model": {"policy_model", *SHELVES, "kernels", "configs", "common"},
    "replay": {"replay", "policy_model/files", "configs", "common"},
    "reward": {"reward", "policy_model/files", "configs", "common"},
    "actor": {"actor", "policy_model", "policy_model/families", "policy_model/files", "kernels", "configs", "common"},
    "learner": {"learner", "policy_model", "policy_model/families", "policy_model/files", "kernels", "configs", "common"},
    "run": set(FOLDERS) | {"policy_model/families", "policy_model/files"},
}
# Outside headers and the folders that may see them.
OUTSIDE = {
    r"(torch|ATen|c10)/": {"policy_model"},
    r"cuda|cub/": {"kernels", "policy_model"},
    r"rocksdb/": {"replay"},
    r"zmq": {"common"},
    r"flatbuffers/": {"common"},
    r"CLI/": {"run"},
    r"httplib": {"reward"},
    r"gmp": {"reward"},
    r"(re2/|pcre2|seccomp)": {"reward"},
    r"utf8proc": {"policy_model/files"},
    r"openssl/": {"common"},
}
# Kernels without a .cu, and why.
NO_CUDA = {
    "attention_varlen": "on CUDA LibTorch's attention does it, in policy_model",
    "bf16_gemm": "products on CUDA go through cuBLAS, in policy_model",
    "bf16_matvec": "small products on CUDA go through cuBLAS",
    "gemm_rows": "products on CUDA go through cuBLAS, in policy_model",
}
# Source files whose test goes by another name, and which. Both have to exist.
TESTED_BY = {
    "run/main.cc": "tests/run/train_command_test.cc",
    "run/cli.cc": "tests/run/cli_test.cc",
    "run/inspect_commands.cc": "tests/run/cli_test.cc",
    "run/doctor_command.cc": "tests/run/cli_test.cc",
    "run/generate_command.cc": "tests/run/model_commands_test.cc",
    "run/score_command.cc": "tests/run/model_commands_test.cc",
    "run/eval_command.cc": "tests/run/model_commands_test.cc",
    "run/convert_command.cc": "tests/run/model_commands_test.cc",
    "run/roles.cc": "tests/run/train_command_test.cc",
    "run/local_roles.cc": "tests/run/train_command_test.cc",
    "run/process_roles.cc": "tests/run/train_command_test.cc",
    "run/role_loops.cc": "tests/run/train_command_test.cc",
    "policy_model/threads.cc": "tests/run/ring_train_test.cc",
}
TESTED_BY.update({
    "common/rpc_client.cc": "tests/common/rpc_test.cc",
    "common/rpc_server.cc": "tests/common/rpc_test.cc",
    "common/call_frame.cc": "tests/common/rpc_test.cc",
    "common/metrics_prometheus.cc": "tests/common/metrics_test.cc",
    "common/metrics_tensorboard.cc": "tests/common/metrics_test.cc",
    "common/sender.cc": "tests/common/transport_test.cc",
    "common/receiver.cc": "tests/common/transport_test.cc",
    "common/wire_loop.cc": "tests/common/transport_test.cc",
    "configs/parse.cc": "tests/configs/config_test.cc",
    "policy_model/files/gguf_blocks.cc": "tests/policy_model/families/gguf_test.cc",
    "policy_model/families/family.cc": "tests/policy_model/families_test.cc",
    "policy_model/families/config_keys.cc": "tests/policy_model/families_test.cc",
    "policy_model/families/llama.cc": "tests/policy_model/families_test.cc",
    "policy_model/families/mistral.cc": "tests/policy_model/families_test.cc",
    "policy_model/families/qwen.cc": "tests/policy_model/families_test.cc",
    "policy_model/families/gemma3.cc": "tests/policy_model/families_test.cc",
    "policy_model/families/smollm3.cc": "tests/policy_model/families_test.cc",
    "policy_model/families/olmo3.cc": "tests/policy_model/families_test.cc",
    "policy_model/families/phi3.cc": "tests/policy_model/families_test.cc",
    "policy_model/layers/attention_stage.cc": "tests/policy_model/families_test.cc",
    "policy_model/layers/ffn_stage.cc": "tests/policy_model/families_test.cc",
    "policy_model/layers/branch.cc": "tests/policy_model/families_test.cc",
    "reward/plugin_host_main.cc": "tests/reward/plugin_test.cc",
    "reward/reward.cc": "tests/reward/scorer_test.cc",
})
TESTED_BY["replay/prompt_store.cc"] = "tests/replay/store_test.cc"
TESTED_BY["run/offline_roles.cc"] = "tests/run/preference_train_test.cc"
TESTED_BY["run/store_command.cc"] = "tests/run/data_command_test.cc"
TESTED_BY["replay/remote_client.cc"] = "tests/replay/remote_test.cc"
TESTED_BY["reward/model_part.cc"] = "tests/reward_model/perplexity_test.cc"
TESTED_BY["run/reward_samples.cc"] = "tests/run/reward_test_command_test.cc"
TESTED_BY["reward/reward_server.cc"] = "tests/reward/zmq_worker_test.cc"
TESTED_BY["reward/process_watch.cc"] = "tests/reward/sandbox_test.cc"
TESTED_BY["policy_model/files/jinja_tests.cc"] = "tests/policy_model/files/jinja_test.cc"
TESTED_BY["reward/reply.cc"] = "tests/reward/subprocess_test.cc"
TESTED_BY["common/curve_keys.cc"] = "tests/common/frame_socket_test.cc"
TESTED_BY["common/digest_avx2.cc"] = "tests/common/hash_test.cc"
TESTED_BY["replay/row_notes.cc"] = "tests/replay/importer_test.cc"
TESTED_BY["replay/row_detection.cc"] = "tests/replay/share_gpt_test.cc"
TESTED_BY["replay/row_turns.cc"] = "tests/replay/share_gpt_test.cc"
TESTED_BY["replay/row_pairs.cc"] = "tests/replay/importer_test.cc"
TESTED_BY["replay/end_token.cc"] = "tests/replay/exporter_test.cc"
TESTED_BY["replay/row_columns.cc"] = "tests/replay/importer_test.cc"
TESTED_BY["replay/aligned_disk.cc"] = "tests/replay/import_reliability_test.cc"
TESTED_BY["run/overlong.cc"] = "tests/run/preference_train_test.cc"
# What would put work of a GPU on the default stream, or wait for all of it.
OFF_STREAM = {
    r"\bcudaDeviceSynchronize\b": "wait for a stream: Stream::Synchronize",
    r"\bcudaStream(?:Legacy|PerThread)\b": "take the stream that was passed down",
    r"\bstream\w*\s*=\s*(?:nullptr|NULL|0)\b": "a stream has no default but the CPU's",
    r"\b(?:at|c10|torch)::kCUDA\b": "name the GPU: TorchDevice of policy_model/torch_stream.h",
}
TORCH_STREAM = "policy_model/torch_stream.cc"
LIMIT, LIMIT_CU = 600, 800
findings = []


def room(path):
    return room_of_include(str(path.relative_to(ROOT)))


def room_of_include(target):
    folder = target.rsplit("/", 1)[0]
    return folder if folder in SHELVES else target.split("/")[0]


# The arguments of what begins at `start`, up to `end` on the same level; None where it does not
# end.
def arguments(text, start, end):
    found, depth, begin = [], 0, start
    for at in range(start, len(text)):
        if depth == 0 and text.startswith(end, at):
            return found + [text[begin:at].strip()]
        if text[at] in "([{":
            depth += 1
        elif text[at] in ")]}":
            depth -= 1
        elif text[at] == "," and depth == 0:
            found.append(text[begin:at].strip())
            begin = at + 1
    return None


# Calls of CUDA in `text` that name no stream, as (line, what is wrong).
def off_stream(text, name):
    code = re.sub(r"//[^\n]*", "", text)
    line = lambda at: code.count("\n", 0, at) + 1
    for call in re.finditer(r"<<<", code):
        if len(arguments(code, call.end(), ">>>") or []) < 4:
            yield line(call.start()), "a launch without a stream: it is the fourth of <<<>>>"
    for call in re.finditer(r"\b(cuda(?:Memcpy|Memset)\w*)\s*\(", code):
        given = arguments(code, call.end(), ")") or [""]
        if not call.group(1).endswith("Async") or "stream" not in given[-1].lower():
            problem = f"{call.group(1)} without a stream: use kernels/device_memory.h"
            yield line(call.start()), problem
    for pattern, advice in OFF_STREAM.items():
        for use in re.finditer(pattern, code):
            if not (name == TORCH_STREAM and "kCUDA" in use.group()):
                yield line(use.start()), f"{use.group()}: {advice}"


sources = [p for f in FOLDERS for p in sorted((ROOT / f).rglob("*")) if p.suffix in {".h", ".cc", ".cu", ".cuh"}]
tests = {p: p.read_text(errors="replace") for p in (ROOT / "tests").rglob("*") if p.suffix in {".cc", ".h", ".py", ".sh"}}

for path in sources:
    name = str(path.relative_to(ROOT))
    text = path.read_text(errors="replace")
    here = room(path)
    for line_number, line in enumerate(text.splitlines(), 1):
        quoted = re.match(r'\s*#\s*include\s+"([^"]+)"', line)
        if quoted:
            target = room_of_include(quoted.group(1))
            allowed = ALLOWED[here] | ({"policy_model", "policy_model/families"} if name.startswith(("reward/reward_model.", "reward/perplexity.", "reward/model_part.")) else set())
            if target in FOLDERS + SHELVES and target not in allowed:
                findings.append(f"{name}:{line_number}: {here} may not include {quoted.group(1)}")
        outside = re.match(r"\s*#\s*include\s+<([^>]+)>", line)
        if outside:
            for pattern, folders in OUTSIDE.items():
                if re.match(pattern, outside.group(1)) and here not in folders:
                    findings.append(f"{name}:{line_number}: <{outside.group(1)}> belongs in {', '.join(sorted(folders))}")
        if here.startswith("policy_model") and path.suffix == ".h" and outside and re.match(r"(torch|ATen|c10)/", outside.group(1)):
            findings.append(f"{name}:{line_number}: keep LibTorch out of headers: others include this one")
    findings += [f"{name}:{at}: {problem}" for at, problem in off_stream(text, name)]
    lines = text.count("\n")
    limit = LIMIT_CU if path.suffix in {".cu", ".cuh"} else LIMIT
    if lines > limit:
        findings.append(f"{name}: {lines} lines; past {limit} something wants to be two things")
    if path.suffix == ".h" and not text.lstrip().startswith(("//", "/*")):
        findings.append(f"{name}: a header starts with its purpose, thread safety and ownership")
    if path.suffix in {".cc", ".cu"} and name not in TESTED_BY:
        stem = re.sub(r"(_cpu)?$", "", path.stem)
        header = f"{path.parent.relative_to(ROOT)}/{stem}.h"
        folder = ROOT / "tests" / path.parent.relative_to(ROOT)
        if not any(header in t or (p.parent == folder and p.stem == f"{stem}_test") for p, t in tests.items()):
            findings.append(f"{name}: no test includes {header} or is called {folder.relative_to(ROOT)}/{stem}_test.cc; "
                            "write one, or say in TESTED_BY which test runs it")

for source, test in TESTED_BY.items():
    for name in (source, test):
        if not (ROOT / name).exists():
            findings.append(f"tests/check_tree.py: TESTED_BY names {name}, which is not there; take the entry out or correct it")

for header in sorted((ROOT / "kernels").glob("*.h")):
    stem = header.stem
    declares = re.search(r"^  void Cpu\(const Launch&", header.read_text(), re.M)
    if stem in {"launch", "cpu_common", "cuda_common", "vector_math"} or not declares:
        continue
    if not (ROOT / "kernels" / f"{stem}_cpu.cc").exists():
        findings.append(f"kernels/{stem}.h: no CPU reference kernels/{stem}_cpu.cc")
    if not (ROOT / "kernels" / f"{stem}.cu").exists() and stem not in NO_CUDA:
        findings.append(f"kernels/{stem}.h: no kernels/{stem}.cu; write it, or say why in NO_CUDA")

for stem in NO_CUDA:
    if not (ROOT / "kernels" / f"{stem}.h").exists() or (ROOT / "kernels" / f"{stem}.cu").exists():
        findings.append(f"tests/check_tree.py: NO_CUDA names {stem}, which is gone or has a .cu now; take the entry out")

for finding in findings:
    print(finding)
print(f"{len(sources)} source files, {len(findings)} findings")
sys.exit(1 if findings else 0)
