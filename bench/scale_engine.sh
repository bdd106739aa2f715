#!/bin/bash
# Generation and the hand-over of weights on the GPUs of one machine (docs/ranks.md, "Generating by a group").
#
#   bench/scale_engine.sh [folder for the models]
#
# Prints the hand-over of 0.5 B and 7 B parameters from the first GPU to the second, to a thread and to a process, then tokens a second
# of decoding a 7 B model with random weights on one GPU and on two (--tp 2), at 1, 64 and 256 rows, and of two engines at the same time
# with a GPU and half of the processors each, beside one alone with its half.
# BUILD (build-cuda), SHAPE (7B), BATCHES ("1 64 256"), TPS ("1 2"), NEW (128 tokens), DEVICE (cuda) may be set.
set -u
cd "$(dirname "$0")/.."
build=${BUILD:-build-cuda} shape=${SHAPE:-7B} batches=${BATCHES:-1 64 256} tps=${TPS:-1 2} new=${NEW:-128} device=${DEVICE:-cuda}
out=${1:-$(mktemp -d)}
mkdir -p "$out"
for processes in 1 2; do
  "$build/bench/hand_over_bench" --device "$device" --processes "$processes" || echo "hand_over_bench failed"
done
[ -e "$out/$shape/config.json" ] || python3 bench/make_shape.py "$shape" "$out/$shape" || exit 1
for batch in $batches; do
  for tp in $tps; do
    "$build/bench/model_bench" decode "$out/$shape" --device "$device" --batch "$batch" --prompt 128 --new "$new" --rounds 3 --tp "$tp" ||
      echo "decode with $batch rows and tp = $tp failed"
  done
done

# Two engines at once: what the second GPU adds where host, memory and PCIe are shared.
half=$(($(nproc) / 2))
alone() {  # GPU, rows: the words of one engine on that GPU
  CUDA_VISIBLE_DEVICES=$1 taskset -c $(($1 * half))-$(($1 * half + half - 1)) "$build/bench/model_bench" decode "$out/$shape" --device "$device" --batch "$2" \
    --greedy 0 --prompt 128 --new "$new" --rounds 3
}
speed() { grep -o '"tokens_per_s": *[0-9.]*' "$1" | grep -o '[0-9.]*$'; }
for batch in $batches; do
  alone 0 "$batch" >"$out/one" || { echo "one engine with $batch rows failed"; continue; }
  alone 0 "$batch" >"$out/first" &
  alone 1 "$batch" >"$out/second" || echo "the second engine with $batch rows failed"
  wait
  awk -v rows="$batch" -v one="$(speed "$out/one")" -v a="$(speed "$out/first")" -v b="$(speed "$out/second")" \
    'BEGIN { printf "two engines, %d rows each: %.0f and %.0f tok/s, alone %.0f: %.2f times\n", rows, a, b, one, (a + b) / (one ? one : 1) }'
done
