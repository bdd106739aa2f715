"""Checks the house rules that a compiler does not: who may include whom, the sizes of files, lines and folders, kernels with
their CPU reference, a test that includes the header it tests, a first comment in every header. Run by CTest as `tree`; prints
what to do about each finding."""
import collections
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
FOLDERS = ["common", "configs", "kernels", "policy_model", "actor", "environment", "reward", "replay", "learner", "run"]
# docs/ARCHITECTURE.md, table of allowed includes. A shelf is a sub-folder with a row of its own; what lies below a folder without
# a row belongs to the nearest one above it that has one.
LEAF = {"common/base", "common/record"}
NET = {"common/net"}
MODEL_FILES = {"policy_model/files", "policy_model/families", "common/text"}
MODEL = {"policy_model", "policy_model/memory", "kernels"} | MODEL_FILES
ALLOWED = {
    "common/base": set(),
    "common/record": {"common/base"},
    "common/text": LEAF,
    "common/sandbox": LEAF,
    "common/net": LEAF,
    "configs": LEAF,
    "kernels": {"common/base"},
    "policy_model/files": LEAF | {"common/text"},
    "policy_model/families": LEAF | {"common/text", "policy_model/files"},
    "policy_model/gguf": LEAF | {"common/text", "policy_model/families", "policy_model/files"},
    "policy_model/memory": LEAF | {"policy_model/families", "policy_model/files", "kernels", "configs"},
    "policy_model/layers": LEAF | {"policy_model/memory", "policy_model/families", "kernels"},
    "policy_model": LEAF | {"policy_model/layers", "policy_model/memory", "policy_model/families", "policy_model/files", "kernels", "configs"},
    "actor": LEAF | NET | MODEL | {"configs"},
    "environment/calls": LEAF | {"common/text", "configs"},
    "environment/tools": LEAF | {"environment/calls", "common/sandbox", "common/text", "configs"},
    "environment/doors": LEAF | NET | {"environment/calls", "environment/tools", "common/sandbox", "common/text", "configs"},
    "environment": LEAF | {"environment/calls", "environment/tools", "environment/doors", "common/text", "configs"},
    "reward/maths": LEAF | {"common/text"},
    "reward/part": LEAF | {"reward/maths", "configs"},
    "reward/rules": LEAF | {"reward/part", "reward/maths", "common/text", "configs"},
    "reward/doors": LEAF | NET | {"reward/part", "common/sandbox", "configs"},
    "reward/models": LEAF | MODEL | {"reward/doors", "reward/part", "configs"},
    "reward": LEAF | {"reward/doors", "reward/rules", "reward/maths", "reward/part", "configs"},
    "replay/datasets/rows": LEAF | MODEL_FILES | {"configs"},
    "replay/store": LEAF | {"configs"},
    "replay/datasets": LEAF | MODEL_FILES | {"replay/datasets/rows", "replay/store", "configs"},
    "replay/table": LEAF | NET | {"replay/store", "configs"},
    "learner/ranks": LEAF,
    "learner/update": LEAF | MODEL | {"learner/ranks", "configs"},
    "learner/distill": LEAF | NET | MODEL | {"learner/update", "learner/ranks", "configs"},
    "learner/algorithms": LEAF | MODEL | {"learner/distill", "learner/update", "learner/ranks", "configs"},
    "learner/offline": LEAF | MODEL | {"learner/distill", "learner/update", "learner/ranks", "configs"},
    "learner/loop": LEAF | NET | MODEL | {"learner/distill", "learner/update", "learner/algorithms", "learner/offline", "learner/ranks", "configs"},
}
ROOMS_OF_RUN = set(ALLOWED)
ALLOWED["run/session"] = ROOMS_OF_RUN
ALLOWED["run/report"] = LEAF
ALLOWED["run/board"] = LEAF | {"common/text", "run/session"}
ALLOWED["run/models"] = ROOMS_OF_RUN | {"run/session"}
ALLOWED["run/serve"] = ROOMS_OF_RUN | {"run/session", "run/models", "run/board"}
ALLOWED["run/agents"] = ROOMS_OF_RUN | {"run/session", "run/serve", "run/board"}
ALLOWED["run/roles"] = ROOMS_OF_RUN | {"run/session", "run/report", "run/agents"}
ALLOWED["run/commands"] = ROOMS_OF_RUN | {"run/session", "run/models", "run/report", "run/board", "run/roles", "run/serve", "run/agents"}
ALLOWED["run"] = {"run/commands"}
# Outside headers and the folders that may see them.
OUTSIDE = {
    r"(torch|ATen|c10)/": {"policy_model", "policy_model/layers", "policy_model/memory", "learner/ranks", "learner/update"},
    r"cuda|cub/": {"kernels", "policy_model", "policy_model/layers", "policy_model/memory"},
    r"rocksdb/": {"replay/store", "replay/datasets"},
    r"zmq": {"common/net"},
    r"flatbuffers/": {"common/net", "common/record"},
    r"CLI/": {"run/commands"},
    r"httplib": {"common/net", "run/board", "run/serve", "run/agents"},
    r"gmp": {"reward/maths", "environment/tools"},
    r"sqlite3": {"environment/tools"},
    r"re2/": {"common/text", "reward/rules"},
    r"pcre2": {"reward/rules", "reward/doors"},
    r"seccomp": {"common/sandbox"},
    r"utf8proc": {"common/text"},
    r"openssl/": {"common/base"},
}
# Kernels without a .cu, and why.
NO_CUDA = {
    "attention_varlen": "on CUDA LibTorch's attention does it, in policy_model",
    "bf16_gemm": "products on CUDA go through cuBLAS, in policy_model",
    "bf16_matvec": "small products on CUDA go through cuBLAS",
    "gemm_rows": "products on CUDA go through cuBLAS, in policy_model",
    "fp8_product": "on CUDA LibTorch's scaled products do it, in policy_model/layers/fp8",
    "head_logprob": "on CUDA the head runs in chunks of rows, in policy_model/transformer.cc",
}
# Source files whose test goes by another name, and which. Both have to exist.
TESTED_BY = {
    "run/main.cc": "tests/run/commands/train_command_test.cc",
    "run/commands/cli.cc": "tests/run/commands/cli_test.cc",
    "run/commands/doctor_command.cc": "tests/run/commands/cli_test.cc",
    "run/commands/generate_command.cc": "tests/run/commands/model_commands_test.cc",
    "run/commands/score_command.cc": "tests/run/commands/model_commands_test.cc",
    "run/commands/eval_command.cc": "tests/run/commands/model_commands_test.cc",
    "run/commands/convert_command.cc": "tests/run/commands/model_commands_test.cc",
    "run/roles/roles.cc": "tests/run/commands/train_command_test.cc",
    "run/roles/local_roles.cc": "tests/run/commands/train_command_test.cc",
    "run/roles/process_roles.cc": "tests/run/commands/train_command_test.cc",
    "run/roles/role_loops.cc": "tests/run/commands/train_command_test.cc",
    "policy_model/memory/threads.cc": "tests/run/ring_train_test.cc",
}
TESTED_BY.update({
    "actor/engine_rows.cc": "tests/actor/engine_test.cc",
    "policy_model/layers/experts_visited.cc": "tests/learner/update/shares/experts/expert_share_test.cc",
    "policy_model/layers/experts_common.cc": "tests/policy_model/layers/experts_stage_test.cc",
    "learner/update/guard/optimizer_guard.cc": "tests/learner/update/guard/fp16_training_test.cc",
    "learner/update/optimizer_experts.cc": "tests/learner/update/shares/experts/expert_share_test.cc",
})
TESTED_BY.update({
    "policy_model/head_pass.cc": "tests/policy_model/fused_head_test.cc",
    "learner/update/optimizer_parts.cc": "tests/learner/update/rank_training_test.cc",
    "common/net/rpc/rpc_client.cc": "tests/common/net/rpc/rpc_test.cc",
    "common/net/rpc/rpc_server.cc": "tests/common/net/rpc/rpc_test.cc",
    "common/net/rpc/call_frame.cc": "tests/common/net/rpc/rpc_test.cc",
    "common/base/metrics/metrics_prometheus.cc": "tests/common/base/metrics/metrics_test.cc",
    "common/net/stream/sender.cc": "tests/common/net/stream/transport_test.cc",
    "common/net/stream/receiver.cc": "tests/common/net/stream/transport_test.cc",
    "common/net/wire_loop.cc": "tests/common/net/stream/transport_test.cc",
    "configs/parse.cc": "tests/configs/config_test.cc",
    "policy_model/files/gguf_blocks.cc": "tests/policy_model/files/gguf_reader_test.cc",
    "policy_model/families/family.cc": "tests/policy_model/layers/families_test.cc",
    "policy_model/families/config_keys.cc": "tests/policy_model/layers/families_test.cc",
    "policy_model/families/llama.cc": "tests/policy_model/layers/families_test.cc",
    "policy_model/families/mistral.cc": "tests/policy_model/layers/families_test.cc",
    "policy_model/families/qwen.cc": "tests/policy_model/layers/families_test.cc",
    "policy_model/families/experts/gpt_oss.cc": "tests/policy_model/layers/families_test.cc",
    "policy_model/families/experts/mixtral.cc": "tests/policy_model/layers/families_test.cc",
    "policy_model/families/experts/olmoe.cc": "tests/policy_model/layers/families_test.cc",
    "policy_model/families/gemma3.cc": "tests/policy_model/layers/families_test.cc",
    "policy_model/families/smollm3.cc": "tests/policy_model/layers/families_test.cc",
    "policy_model/families/olmo3.cc": "tests/policy_model/layers/families_test.cc",
    "policy_model/families/phi3.cc": "tests/policy_model/layers/families_test.cc",
    "policy_model/families/ministral3.cc": "tests/policy_model/layers/families_test.cc",
    "policy_model/families/granite.cc": "tests/policy_model/layers/families_test.cc",
    "policy_model/families/glm4.cc": "tests/policy_model/layers/families_test.cc",
    "policy_model/families/hybrid/lfm2.cc": "tests/policy_model/layers/families_test.cc",
    "policy_model/families/hybrid/qwen_next.cc": "tests/policy_model/families/hybrid/qwen_next_test.cc",
    "policy_model/families/hybrid/state_tensors.cc": "tests/policy_model/layers/families_test.cc",
    "policy_model/layers/attention_stage.cc": "tests/policy_model/layers/families_test.cc",
    "policy_model/layers/ffn_stage.cc": "tests/policy_model/layers/families_test.cc",
    "policy_model/layers/branch.cc": "tests/policy_model/layers/families_test.cc",
    "reward/doors/plugin_host_main.cc": "tests/reward/doors/plugin_test.cc",
    "reward/part/reward.cc": "tests/reward/scorer_test.cc",
})
TESTED_BY["policy_model/families/plumb.cc"] = "tests/policy_model/layers/experts_stage_test.cc"
TESTED_BY["policy_model/families/experts/deepseek.cc"] = "tests/policy_model/layers/families_test.cc"
TESTED_BY["policy_model/families/experts/glm4_moe.cc"] = "tests/policy_model/layers/families_test.cc"
TESTED_BY["run/roles/rank_role.cc"] = "tests/run/roles/ranks_train_test.cc"
TESTED_BY["replay/store/prompt_store.cc"] = "tests/replay/store/store_test.cc"
TESTED_BY["run/roles/offline_roles.cc"] = "tests/run/preference_train_test.cc"
TESTED_BY["kernels/products/dispatch_tokens.cu"] = "tests/kernels/experts_cuda_test.cc"
TESTED_BY["run/commands/store_command.cc"] = "tests/run/commands/data_command_test.cc"
TESTED_BY["replay/table/remote_client.cc"] = "tests/replay/table/remote_test.cc"
TESTED_BY["reward/models/model_part.cc"] = "tests/reward/models/perplexity_test.cc"
TESTED_BY["run/session/reward_samples.cc"] = "tests/run/commands/reward_test_command_test.cc"
TESTED_BY["reward/doors/reward_server.cc"] = "tests/reward/doors/zmq_worker_test.cc"
TESTED_BY["common/sandbox/process_watch.cc"] = "tests/reward/doors/sandbox_test.cc"
TESTED_BY["common/sandbox/host_call.cc"] = "tests/reward/doors/plugin_test.cc"
TESTED_BY["common/record/failure.cc"] = "tests/reward/doors/plugin_test.cc"
TESTED_BY["common/sandbox/host_command.cc"] = "tests/environment/doors/open_environment_test.cc"
TESTED_BY["environment/doors/environment_host_main.cc"] = "tests/environment/doors/open_environment_test.cc"
TESTED_BY["environment/doors/http_peer.cc"] = "tests/environment/doors/open_environment_test.cc"
TESTED_BY["environment/doors/process_peer.cc"] = "tests/environment/doors/open_environment_test.cc"
TESTED_BY["environment/doors/tools_peer.cc"] = "tests/environment/doors/open_environment_test.cc"
TESTED_BY["common/text/template/jinja_tests.cc"] = "tests/common/text/template/jinja_test.cc"
TESTED_BY["reward/part/reply.cc"] = "tests/reward/doors/subprocess_test.cc"
TESTED_BY["common/net/curve_keys.cc"] = "tests/common/net/frame_socket_test.cc"
TESTED_BY["common/base/hash/digest_avx2.cc"] = "tests/common/base/hash/hash_test.cc"
TESTED_BY["replay/datasets/rows/row_notes.cc"] = "tests/replay/datasets/importer_test.cc"
TESTED_BY["replay/datasets/rows/row_detection.cc"] = "tests/replay/datasets/rows/share_gpt_test.cc"
TESTED_BY["replay/datasets/rows/row_turns.cc"] = "tests/replay/datasets/rows/share_gpt_test.cc"
TESTED_BY["replay/datasets/rows/row_pairs.cc"] = "tests/replay/datasets/importer_test.cc"
TESTED_BY["replay/datasets/rows/end_token.cc"] = "tests/replay/datasets/exporter_test.cc"
TESTED_BY["replay/datasets/rows/row_columns.cc"] = "tests/replay/datasets/importer_test.cc"
TESTED_BY["replay/store/aligned_disk.cc"] = "tests/replay/datasets/import_reliability_test.cc"
TESTED_BY["run/board/braille.cc"] = "tests/run/board/watch_view_test.cc"
TESTED_BY["run/session/overlong.cc"] = "tests/run/preference_train_test.cc"
# What would put work of a GPU on the default stream, or wait for all of it.
OFF_STREAM = {
    r"\bcudaDeviceSynchronize\b": "wait for a stream: Stream::Synchronize",
    r"\bcudaStream(?:Legacy|PerThread)\b": "take the stream that was passed down",
    r"\bstream\w*\s*=\s*(?:nullptr|NULL|0)\b": "a stream has no default but the CPU's",
    r"\b(?:at|c10|torch)::kCUDA\b": "name the GPU: TorchDevice of policy_model/memory/torch_stream.h",
}
TORCH_STREAM = "policy_model/memory/torch_stream.cc"
LIMIT, LIMIT_CU = 600, 800
COLUMNS = 100
PAGE = 170  # lines of docs/ARCHITECTURE.md, which is to stay one page
STEMS = 20  # x.h, x.cc, x_cpu.cc and x.cu are one
# Folders of tests that stand for no folder of the product.
OWN_TEST_FOLDERS = ["tests", "tests/fuzz", "tests/golden", "tests/sanitizers", "tests/testing", "tests/environment/plugins", "tests/reward/plugins", "tests/reward/python"]
# Written by a program, or another's.
NOT_OURS = re.compile(r"/nfc_tables\.h$|/tests/fuzz/clang14/")
CODE = {".h", ".cc", ".cu", ".cuh"}
findings = []


def shelf(folder):
    """The row of the table that a folder belongs to; None outside the rooms."""
    while folder and folder not in ALLOWED:
        folder = folder.rpartition("/")[0]
    return folder or None


def folder_of(name):
    return name.rpartition("/")[0]


def code_below(*folders):
    return [p for f in folders for p in sorted((ROOT / f).rglob("*")) if p.suffix in CODE]


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
            problem = f"{call.group(1)} without a stream: use kernels/device/device_memory.h"
            yield line(call.start()), problem
    for pattern, advice in OFF_STREAM.items():
        for use in re.finditer(pattern, code):
            if not (name == TORCH_STREAM and "kCUDA" in use.group()):
                yield line(use.start()), f"{use.group()}: {advice}"


sources = code_below(*FOLDERS)
tests = {p: p.read_text(errors="replace") for p in (ROOT / "tests").rglob("*") if p.suffix in {".cc", ".h"}}
included_by_tests = {m for text in tests.values() for m in re.findall(r'^\s*#\s*include\s+"([^"]+)"', text, re.M)}

for path in sources:
    name = str(path.relative_to(ROOT))
    text = path.read_text(errors="replace")
    here = shelf(folder_of(name))
    if here is None:
        findings.append(f"{name}: no row of ALLOWED holds it; move it to a shelf, or give its folder a row")
        continue
    for line_number, line in enumerate(text.splitlines(), 1):
        quoted = re.match(r'\s*#\s*include\s+"([^"]+)"', line)
        if quoted:
            target = shelf(folder_of(quoted.group(1)))
            if target and target != here and target not in ALLOWED[here]:
                findings.append(f"{name}:{line_number}: {here} may not include {quoted.group(1)}")
        outside = re.match(r"\s*#\s*include\s+<([^>]+)>", line)
        if outside:
            for pattern, folders in OUTSIDE.items():
                if re.match(pattern, outside.group(1)) and here not in folders:
                    findings.append(f"{name}:{line_number}: <{outside.group(1)}> belongs in {', '.join(sorted(folders))}")
        if here.startswith(("policy_model", "learner")) and path.suffix == ".h" and outside and re.match(r"(torch|ATen|c10)/", outside.group(1)):
            findings.append(f"{name}:{line_number}: keep LibTorch out of headers: others include this one")
    findings += [f"{name}:{at}: {problem}" for at, problem in off_stream(text, name)]
    lines = text.count("\n")
    limit = LIMIT_CU if path.suffix in {".cu", ".cuh"} else LIMIT
    if lines > limit:
        findings.append(f"{name}: {lines} lines; past {limit} something wants to be two things")
    if path.suffix == ".h" and not text.lstrip().startswith(("//", "/*")):
        findings.append(f"{name}: a header starts with its purpose, thread safety and ownership")
    if path.suffix in {".cc", ".cu"} and name not in TESTED_BY:
        header = f"{folder_of(name)}/{re.sub(r'(_cpu)?$', '', path.stem)}.h"
        own = ROOT / "tests" / folder_of(name) / f"{path.stem}_test.cc"  # of a source without a header
        if header not in included_by_tests and ((ROOT / header).exists() or not own.exists()):
            findings.append(f"{name}: no test includes {header}, or is {own.relative_to(ROOT)}; write one, or say in TESTED_BY which runs it")

for source, test in TESTED_BY.items():
    for name in (source, test):
        if not (ROOT / name).exists():
            findings.append(f"tests/check_tree.py: TESTED_BY names {name}, which is not there; take the entry out or correct it")

# The table itself: shelves link to each other, so a circle in it would be one in the build.
def reaches(start, goal, seen):
    return any(row == goal or row not in seen and (seen.add(row) or reaches(row, goal, seen)) for row in ALLOWED[start])


for row in ALLOWED:
    if reaches(row, row, set()):
        findings.append(f"tests/check_tree.py: ALLOWED has a circle through {row}")

def rows_of_architecture(text):
    """Folders of the table of includes, as often as they stand there: "learner/algorithms, offline" are two."""
    for line in re.findall(r"^\| ([a-z_]+(?:/[a-z_]+)?(?:, [a-z_]+)*) \|.*\|.*\|.*\|$", text, re.M):
        first, *others = line.split(", ")
        yield from [first] + [f"{folder_of(first)}/{other}" for other in others]


architecture = (ROOT / "docs/ARCHITECTURE.md").read_text()
described = collections.Counter(row for row in rows_of_architecture(architecture) if row != "folder")
for row in ALLOWED.keys() - {"run", "replay/datasets/rows"} | described.keys():
    if described[row] != 1 or row not in ALLOWED:
        findings.append(f"docs/ARCHITECTURE.md: the table of includes has {described[row]} rows for {row}, and ALLOWED {'one' if row in ALLOWED else 'none'}; one each")
if architecture.count("\n") > PAGE:
    findings.append(f"docs/ARCHITECTURE.md: {architecture.count(chr(10))} lines; past {PAGE} it is no page any more: say it where it belongs")


def wide_lines(text):
    """Numbers and widths of lines past COLUMNS, those of raw strings excepted: what such a literal says cannot be broken."""
    closes = None
    for number, line in enumerate(text.splitlines(), 1):
        opens = re.search(r'R"([^\s()\\]{0,16})\(', line)
        if len(line) > COLUMNS and closes is None and not opens:
            yield number, len(line)
        if closes is None and opens:
            closes = f'){opens.group(1)}"'
            line = line[opens.end():]
        if closes is not None and closes in line:
            closes = None


stems = collections.defaultdict(set)
for path in sources + code_below("tests"):
    stems[str(path.parent.relative_to(ROOT))].add(re.sub(r"(_cpu)?$", "", path.stem))
    for line_number, columns in wide_lines(path.read_text(errors="replace")) if not NOT_OURS.search(str(path)) else ():
        findings.append(f"{path.relative_to(ROOT)}:{line_number}: {columns} columns; at most {COLUMNS}")
for folder, names in sorted(stems.items()):
    if len(names) > STEMS:
        findings.append(f"{folder}: {len(names)} files (with their headers); past {STEMS} a folder wants shelves")
    mirrored = folder.removeprefix("tests/")
    if folder.startswith("tests") and folder not in OWN_TEST_FOLDERS and not (ROOT / mirrored).is_dir() and not NOT_OURS.search(f"/{folder}/"):
        findings.append(f"{folder}: there is no {mirrored}; tests lie in the folder that they test")

kernels_by_name = {}  # a kernel's folder
for header in sorted((ROOT / "kernels").rglob("*.h")):
    stem, folder = header.stem, header.parent
    kernels_by_name[stem] = folder
    declares = re.search(r"^  void Cpu\(const Launch&", header.read_text(), re.M)
    if not declares:
        continue
    name = header.relative_to(ROOT).with_suffix("")
    if not (folder / f"{stem}_cpu.cc").exists():
        findings.append(f"{name}.h: no CPU reference {name}_cpu.cc")
    if not (folder / f"{stem}.cu").exists() and stem not in NO_CUDA:
        findings.append(f"{name}.h: no {name}.cu; write it, or say why in NO_CUDA")

for stem in NO_CUDA:
    folder = kernels_by_name.get(stem)
    if folder is None or (folder / f"{stem}.cu").exists():
        findings.append(f"tests/check_tree.py: NO_CUDA names {stem}, which is gone or has a .cu now; take the entry out")

# Every test binary is run under a sanitizer, or left out with a reason.
binaries = {(re.search(r"\bNAME (\w+)", call) or re.match(r"(\S+)", call)).group(1).replace("/", "_") + "_test"
            for call in re.findall(r"^plumb_test\(([^)]*)\)", (ROOT / "tests/CMakeLists.txt").read_text(), re.M)}
listed = set(" ".join(re.findall(r"^\w+_TESTS := (.*)$", (ROOT / "Makefile").read_text(), re.M)).split())
nowhere = set(re.findall(r"^nowhere (\S+) \* \S", (ROOT / "tests/sanitizers/left_out.txt").read_text(), re.M))
for binary in sorted(binaries - listed - nowhere):
    findings.append(f"Makefile: {binary} stands in no list of tests for the sanitizers; put it there, or say why not in tests/sanitizers/left_out.txt")
for binary in sorted((listed | nowhere) - binaries):
    findings.append(f"Makefile or tests/sanitizers/left_out.txt: {binary} is no test binary")

for finding in findings:
    print(finding)
print(f"{len(sources)} source files, {len(findings)} findings")
sys.exit(1 if findings else 0)
