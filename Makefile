# A thin front over tools/setup.sh and CMake; `make help` lists the targets.
SHELL := /bin/bash
JOBS ?= $(shell nproc)
ENV := $(CURDIR)/.env/bin
CMAKE = PATH="$(ENV):$$PATH" $(ENV)/cmake
NINJA = PATH="$(ENV):$$PATH" $(ENV)/ninja
TORCH_FLAG = $(if $(PLUMB_TORCH),-DPLUMB_TORCH=$(PLUMB_TORCH))
NVCC := $(shell command -v nvcc 2>/dev/null)
RUN ?= runs/demo

.PHONY: help setup build demo test test-cuda test-reliability bench format lint install clean

help:
	@echo "make demo     install what is needed, build, train the small model, show before and after"
	@echo "make test     install, build, run every test"
	@echo "make build    release binary at build/plumb"
	@echo "make install  copy it to PREFIX (default /usr/local)"
	@echo "make bench    speed as ratios against peers and rooflines (docs/benchmarks.md)"
	@echo "make test-reliability   the larger sizes of docs/reliability.md"
	@echo "make format | lint | setup | clean"

setup:
	@tools/setup.sh

build: setup
	@$(CMAKE) --preset release $(TORCH_FLAG) --log-level=WARNING >/dev/null
	@$(NINJA) -C build -j$(JOBS) plumb

demo: build
	@build/plumb train configs/arithmetic_grpo.toml --out $(RUN) --overwrite

test: setup
	@$(CMAKE) --preset release $(TORCH_FLAG) --log-level=WARNING >/dev/null
	@$(NINJA) -C build -j$(JOBS)
	@tools/fetch_smollm2.sh build/plumb || echo "test: WITHOUT the SmolLM2 weights: tests that need them are skipped"
	@$(MAKE) --no-print-directory test-cuda
	@cd build && $(ENV)/ctest --output-on-failure --no-tests=error

# Without a GPU this proves that the CUDA build compiles and links.
test-cuda: setup
ifeq ($(NVCC),)
	@echo "test: SKIPPED the CUDA build: no nvcc on PATH"
else
	@$(CMAKE) --preset cuda $(TORCH_FLAG) --log-level=WARNING >/dev/null
	@$(NINJA) -C build-cuda -j$(JOBS) plumb kernels_test
endif

test-reliability: setup
	@$(CMAKE) --preset release $(TORCH_FLAG) --log-level=WARNING >/dev/null
	@$(NINJA) -C build -j$(JOBS)
	@cd build && PLUMB_TEST_SIZE=ci $(ENV)/ctest --output-on-failure --no-tests=error -L reliability

bench: build
	@$(CMAKE) --preset release $(TORCH_FLAG) -DPLUMB_BENCH=ON --log-level=WARNING >/dev/null
	@$(NINJA) -C build -j$(JOBS)
	@bench/run.sh build

format:
	@git ls-files '*.h' '*.cc' '*.cu' | xargs clang-format -i

lint: build
	@git ls-files '*.h' '*.cc' '*.cu' | xargs clang-format --dry-run -Werror
	@git ls-files '*.cc' | xargs clang-tidy -p build --quiet

PREFIX ?= /usr/local
install: build
	@$(CMAKE) --install build --prefix $(PREFIX)

clean:
	@rm -rf build build-*
