#!/usr/bin/env bash
# Runs test binaries of a sanitized build and, under address, whole runs of the program; any report fails.
#   tests/sanitizers/run.sh address|thread BUILD TEST...
set -uo pipefail
cd "$(dirname "$0")/../.."
mode=$1 build=$2
shift 2
here=$PWD/tests/sanitizers
# Libraries that are not instrumented: containers that cross their border look overflown to ASan, and locks that they hold are
# unknown to TSan (thread.supp).
export ASAN_OPTIONS="detect_container_overflow=0:detect_leaks=1:strict_string_checks=1:check_initialization_order=1"
export LSAN_OPTIONS="suppressions=$here/leak.supp:print_suppressions=0"
export UBSAN_OPTIONS="print_stacktrace=1:halt_on_error=1"
export TSAN_OPTIONS="suppressions=$here/thread.supp:print_suppressions=0:halt_on_error=0:exitcode=66:second_deadlock_stack=1"
export GOMP_SPINCOUNT=1000

# What cannot be true under a sanitizer, by name: bounds on resident memory, which its shadow breaks, and limits on the address
# space, of which it wants terabytes.
declare -A without=(
  [address/replay_test]='-*MemoryIsFlat*:*Memory*'
  [address/reward_test]='-*memory*:*Memory*:*allocate*'
)
failed=0 total=0
for test in "$@"; do
  filter=${without[$mode/$test]:-}
  log=$build/$test.$mode.log
  begin=$(date +%s)
  "$build/tests/$test" ${filter:+--gtest_filter="$filter"} --gtest_brief=1 >"$log" 2>&1
  code=$?
  passed=$(sed -n 's/^\[  PASSED  \] \([0-9]*\) test.*/\1/p' "$log" | tail -1)
  reports=$(grep -cE '^(==[0-9]+==ERROR: |WARNING: ThreadSanitizer|.*: runtime error: )' "$log")
  total=$((total + ${passed:-0}))
  printf 'sanitizers: %-8s %-24s %4s passed, %s reports, %s s%s\n' "$mode" "$test" "${passed:-0}" "$reports" $(($(date +%s) - begin)) \
    "${filter:+, without ${filter#-}}"
  if [ $code -ne 0 ] || [ "$reports" -ne 0 ]; then
    failed=1
    grep -E '^\[  FAILED  \]|SUMMARY|ERROR: |runtime error' "$log" | head -10
  fi
done
printf 'sanitizers: %s: %s tests\n' "$mode" "$total"
if [ "$mode" = address ] && [ -x "$build/plumb" ]; then
  for roles in local processes; do
    log=$build/run-$roles.log
    if "$build/plumb" train configs/toy_grpo.toml --out "$build/runs/$roles" --overwrite --steps 3 --roles "$roles" --set eval.bar=0 \
        --set data.eval_prompts=8 >"$log" 2>&1 && ! grep -qE 'ERROR: |runtime error' "$log" "$build/runs/$roles"/logs/* 2>/dev/null; then
      echo "sanitizers: address: a whole run, roles = $roles: 0 reports"
    else
      echo "sanitizers: address: a whole run, roles = $roles: FAILED, see $log"
      grep -hE 'ERROR: |runtime error|SUMMARY' "$log" "$build/runs/$roles"/logs/* 2>/dev/null | head -5
      failed=1
    fi
  done
fi
exit $failed
