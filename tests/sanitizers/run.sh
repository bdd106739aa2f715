#!/usr/bin/env bash
# Runs test binaries of a sanitized build, and `plumb` itself for one small run; any report or failure fails.
#   tests/sanitizers/run.sh address|thread BUILD TEST...     TEST: a binary of BUILD/tests, or plumb
set -uo pipefail
cd "$(dirname "$0")/../.."
mode=$1 build=$2
shift 2
here=$PWD/tests/sanitizers
# Reports go to files: those of a process that a test starts, too.
reports=$PWD/$build/reports-$mode
rm -rf "$reports" && mkdir -p "$reports"
# Libraries that are not instrumented: containers that cross their border look overflown to ASan, and locks that they hold are
# unknown to TSan (thread.supp). A size that nobody has is an exception, as without a sanitizer; tests fork and go on. GCC 13 (its bug
# 110027) lays vectors of 64 bytes askew into the stack that ASan keeps for use after return, and the processor refuses the access.
export ASAN_OPTIONS="detect_stack_use_after_return=0:detect_container_overflow=0:detect_leaks=1:strict_string_checks=1:check_initialization_order=1:allocator_may_return_null=1:log_path=$reports/asan"
export LSAN_OPTIONS="suppressions=$here/leak.supp:print_suppressions=0"
export UBSAN_OPTIONS="print_stacktrace=1:halt_on_error=1:log_path=$reports/ubsan"
export TSAN_OPTIONS="suppressions=$here/thread.supp:print_suppressions=0:halt_on_error=0:exitcode=66:second_deadlock_stack=1:allocator_may_return_null=1:die_after_fork=0:log_path=$reports/tsan"
export GOMP_SPINCOUNT=1000

# A small run with roles in one process, resumed for one more step, and one with a process for each role.
run_plumb() {
  local runs
  runs=$(mktemp -d) || return 1
  local toy=(configs/toy_grpo.toml --set rollout.prompts_per_step=4 --set data.eval_prompts=4 --set eval.bar=0)
  "$build/plumb" train "${toy[@]}" --out "$runs/local" --steps 2 &&
    "$build/plumb" train "${toy[@]}" --out "$runs/local" --steps 3 --resume &&
    "$build/plumb" train "${toy[@]}" --out "$runs/processes" --steps 2 --roles processes
  local code=$?
  rm -rf "$runs"
  return $code
}

failed=0 total=0
for test in "$@"; do
  log=$build/$test.$mode.log
  begin=$(date +%s)
  left_out=$(sed -n "s/^$mode $test \([^ ]*\).*/\1/p" "$here/left_out.txt" | paste -sd:)
  if [ "$test" = plumb ]; then
    run_plumb >"$log" 2>&1
  else
    "$build/tests/$test" --gtest_brief=1 ${left_out:+"--gtest_filter=-$left_out"} >"$log" 2>&1
  fi
  code=$?
  cat "$reports"/* >>"$log" 2>/dev/null
  passed=$(sed -n 's/^\[  PASSED  \] \([0-9]*\) test.*/\1/p' "$log" | tail -1)
  count=$(grep -cE '^(==[0-9]+==ERROR: |WARNING: ThreadSanitizer|.*: runtime error: )' "$log")
  rm -f "$reports"/*
  total=$((total + ${passed:-0}))
  printf 'sanitizers: %-8s %-26s %4s passed, %s reports, %s s%s\n' "$mode" "$test" "${passed:--}" "$count" \
    $(($(date +%s) - begin)) "${left_out:+; left out: $left_out}"
  if [ $code -ne 0 ] || [ "$count" -ne 0 ]; then
    failed=1
    echo "sanitizers: $test ended with $code; all of it: $log"
    grep -E '^\[  FAILED  \]|SUMMARY|ERROR: |runtime error' "$log" | head -10
  fi
done
printf 'sanitizers: %s: %s tests\n' "$mode" "$total"
exit $failed
