#!/bin/bash
# Generation and the hand-over of weights on the GPUs of one machine (docs/ranks.md, "Generating by a group").
#
#   bench/scale_engine.sh [folder for the models]
#
# Prints the hand-over of 0.5 B and 7 B parameters from the first GPU to the second, to a thread and to a process, then tokens a second
# of decoding a 7 B model with random weights on one GPU and on two (--tp 2), at 1, 64 and 256 rows.
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
