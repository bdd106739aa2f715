#!/usr/bin/env bash
# Fetches what a CUDA build of Plumb needs to start beside the CUDA toolkit: the libraries that LibTorch's CUDA side names
# and that neither the toolkit nor the system has. Needs tools/setup.sh first. A second call fetches nothing.
# With a toolkit that brings cuBLAS, cuDNN and NCCL that is about 0.4 GB unpacked; without, about 3 GB.
# Such a build also starts on a machine without a GPU.
set -euo pipefail
cd "$(dirname "$0")/.."

if [ -n "${PLUMB_TORCH:-}" ]; then
  torch=$PLUMB_TORCH
else
  torch=$(echo .env/lib/python3*/site-packages/torch)
fi
[ -e "$torch/lib/libtorch_cuda.so" ] || {
  echo "setup_cuda: $torch/lib/libtorch_cuda.so is missing: run tools/setup.sh, or set PLUMB_TORCH to a LibTorch with CUDA" >&2
  exit 1
}
nvcc=$(command -v nvcc || echo /usr/local/cuda/bin/nvcc)
[ -x "$nvcc" ] || {
  echo "setup_cuda: no nvcc on PATH and none in /usr/local/cuda: install the CUDA 13 toolkit" >&2
  exit 1
}
toolkit=$(cd "$(dirname "$(readlink -f "$nvcc")")/.." && pwd)

# Library that LibTorch 2.11's CUDA side names, and what has it; the versions are those that the torch wheel asks for.
# +x: part x of the wheel cuda-toolkit.
wheels=(
  libcublas.so.13=+cublas
  libcudnn.so.9=nvidia-cudnn-cu13==9.19.0.56
  libcufft.so.12=+cufft
  libcufile.so.0=+cufile
  libcurand.so.10=+curand
  libcusolver.so.12=+cusolver
  libcusparse.so.12=+cusparse
  libcusparseLt.so.0=nvidia-cusparselt-cu13==0.8.0
  libnccl.so.2=nvidia-nccl-cu13==2.28.9
  libnvJitLink.so.13=+nvjitlink
  libnvrtc.so.13=+nvrtc
  libnvshmem_host.so.3=nvidia-nvshmem-cu13==3.4.5
)
known=$(/sbin/ldconfig -p)
present() {
  [ -e "$toolkit/lib64/$1" ] || compgen -G "$torch/../nvidia/*/lib/$1" >/dev/null || grep -q "$1 " <<<"$known"
}
missing=() parts=
for pair in "${wheels[@]}"; do
  present "${pair%%=*}" && continue
  case "${pair#*=}" in
    +*) parts+="${parts:+,}${pair#*+}" ;;
    *) missing+=("${pair#*=}") ;;
  esac
done
if [ -n "$parts" ] || [ "${#missing[@]}" -gt 0 ]; then
  [ -x .env/bin/python3 ] || { echo "setup_cuda: run tools/setup.sh first" >&2; exit 1; }
  echo "setup_cuda: fetching ${parts:+cuda-toolkit[$parts] }${missing[*]} into .env"
  [ "${#missing[@]}" -eq 0 ] || .env/bin/python3 -m pip install -q --disable-pip-version-check --no-deps "${missing[@]}"
  [ -z "$parts" ] || .env/bin/python3 -m pip install -q --disable-pip-version-check --no-warn-conflicts "cuda-toolkit[$parts]==13.0.2"
fi

# The proof: the loader finds everything (the driver's libcuda is loaded later, and only where there is a GPU).
unresolved=$(LD_LIBRARY_PATH="$toolkit/lib64" ldd "$torch/lib/libtorch_cuda.so" | awk '/not found/ {print $1}')
if [ -n "$unresolved" ]; then
  echo "setup_cuda: still missing for $torch/lib/libtorch_cuda.so: $unresolved" >&2
  exit 1
fi
