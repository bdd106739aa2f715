#!/usr/bin/env bash
# Runs every fuzz target for SECONDS_EACH, two at a time, and fails when one finds something.
#   tests/fuzz/run.sh BINARY SECONDS_EACH FOLDER [TARGET...]
# FOLDER/TARGET keeps the corpus from call to call; FOLDER/TARGET.found-* is an input that ends the process, hangs for 20 s or
# takes 1 GB. Try one again with: BINARY --target=TARGET FILE
set -euo pipefail
binary=$1 seconds=$2 folder=$3
shift 3
targets=("$@")
[ "${#targets[@]}" -gt 0 ] || mapfile -t targets < <("$binary" --list)
mkdir -p "$folder"
# Arrow and RocksDB are not instrumented: containers that cross the border look overflown.
export ASAN_OPTIONS="${ASAN_OPTIONS:-detect_container_overflow=0:allocator_may_return_null=0}"

one() {
  local target=$1
  mkdir -p "$folder/$target"
  # -max_len: parsers meet all of their states in a few KB; larger seeds are read whole once and cut for mutation.
  if "$binary" --target="$target" --seeds="$folder/$target" -max_total_time="$seconds" -timeout=20 -rss_limit_mb=1024 -max_len=8192 \
      -print_final_stats=1 -verbosity=1 -artifact_prefix="$folder/$target.found-" "$folder/$target" >"$folder/$target.log" 2>&1; then
    local runs coverage
    runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$folder/$target.log")
    coverage=$(grep -o 'cov: [0-9]*' "$folder/$target.log" | tail -1)
    printf 'fuzz: %-18s %9s runs in %s s, %s\n' "$target" "$runs" "$seconds" "$coverage"
  else
    printf 'fuzz: %-18s FOUND SOMETHING: %s\n' "$target" "$folder/$target.log"
    grep -m1 -E 'SUMMARY|ERROR' "$folder/$target.log" || tail -3 "$folder/$target.log"
    return 1
  fi
}

failed=0
for ((i = 0; i < ${#targets[@]}; i += 2)); do
  pids=()
  for target in "${targets[@]:i:2}"; do
    one "$target" &
    pids+=($!)
  done
  for pid in "${pids[@]}"; do wait "$pid" || failed=1; done
done
exit "$failed"
