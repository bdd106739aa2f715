#!/usr/bin/env bash
# Installs what building and testing need, and nothing that is there already. A second call changes nothing.
#   Debian packages: compiler, ZeroMQ, RocksDB, FlatBuffers, ... (about 300 MB installed on a bare Debian 12)
#   PyPI, into ./.env: LibTorch from the torch wheel (530 MB, 1.2 GB unpacked), its CPU needs (13 MB), CMake, ninja
#     and, unless PLUMB_PARQUET=0, Arrow's C++ libraries for Parquet files from the pyarrow wheel (55 MB, 165 MB unpacked)
# PLUMB_TORCH=/path/to/libtorch uses an existing LibTorch 2.11 (a folder with include/ and lib/) instead of the wheel.
# Without root and with every package present, apt is never called.
set -euo pipefail
cd "$(dirname "$0")/.."

packages=(g++ make git pkg-config python3 python3-venv libzmq3-dev cppzmq-dev librocksdb-dev libspdlog-dev
  flatbuffers-compiler libflatbuffers-dev libtomlplusplus-dev nlohmann-json3-dev libcli11-dev libpcre2-dev libre2-dev libutf8proc-dev
  libgmp-dev libseccomp-dev libsqlite3-dev libsimdjson-dev zlib1g-dev libxxhash-dev libssl-dev libgtest-dev libbenchmark-dev libcpp-httplib-dev ccache mold bubblewrap)
# For the tests of the Python workers on ZeroMQ, which are skipped without it: no reason to fail.
[ "$(id -u)" -ne 0 ] || packages+=(python3-zmq)

missing=()
for package in "${packages[@]}"; do
  status=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true)
  [ "$status" = installed ] || missing+=("$package")
done
# A compiler and Python that did not come from packages are as good.
for pair in g++:g++ make:make git:git pkg-config:pkg-config python3:python3; do
  if command -v "${pair%%:*}" >/dev/null 2>&1; then
    missing=("${missing[@]/#%${pair##*:}/}")
  fi
done
if python3 -c 'import venv, ensurepip' >/dev/null 2>&1; then missing=("${missing[@]/#%python3-venv/}"); fi
left=()
for package in "${missing[@]}"; do [ -n "$package" ] && left+=("$package"); done

if [ "${#left[@]}" -gt 0 ]; then
  if [ "$(id -u)" -ne 0 ]; then
    echo "setup: these Debian packages are missing: ${left[*]}" >&2
    echo "setup: install them as root:  apt-get install -y ${left[*]}" >&2
    exit 1
  fi
  echo "setup: installing ${#left[@]} Debian packages: ${left[*]}"
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -qq
  apt-get install -y -qq --no-install-recommends "${left[@]}" >/dev/null
fi

# An environment without pip is what an attempt without ensurepip leaves behind; the call repairs it and keeps the rest.
.env/bin/python3 -m pip --version >/dev/null 2>&1 || python3 -m venv .env
have() { .env/bin/python3 - "$@" <<'PY'
import importlib.metadata as m, sys
for want in sys.argv[1:]:
    name, _, prefix = want.partition("=")
    try:
        version = m.version(name)
    except m.PackageNotFoundError:
        sys.exit(1)
    if not version.startswith(prefix):
        sys.exit(1)
PY
}
if [ -n "${PLUMB_TORCH:-}" ]; then
  [ -e "$PLUMB_TORCH/include/ATen/ATen.h" ] || { echo "setup: PLUMB_TORCH=$PLUMB_TORCH has no include/ATen/ATen.h" >&2; exit 1; }
else
  if ! have torch=2.11.0 nvidia-cuda-runtime=13.0 nvidia-cuda-cupti=13.0; then
    echo "setup: fetching LibTorch 2.11 (530 MB) and its CPU needs (13 MB) into .env"
    .env/bin/python3 -m pip install -q --disable-pip-version-check --no-deps \
      'torch==2.11.0' 'nvidia-cuda-runtime==13.0.*' 'nvidia-cuda-cupti==13.0.*'
  fi
fi
if ! have cmake=4 ninja=; then
  echo "setup: fetching CMake and ninja into .env"
  .env/bin/python3 -m pip install -q --disable-pip-version-check 'cmake==4.*' ninja
fi
# Libraries and headers only: nothing of Python is called. Without them (no such wheel, PLUMB_PARQUET=0) Parquet is refused.
if [ "${PLUMB_PARQUET:-1}" != 0 ] && ! have pyarrow=26; then
  echo "setup: fetching Arrow's libraries (55 MB) into .env"
  .env/bin/python3 -m pip install -q --disable-pip-version-check --no-deps 'pyarrow==26.*' ||
    echo "setup: no pyarrow wheel: Parquet files will be refused" >&2
fi
