#!/usr/bin/env bash
# Runs test binaries of a sanitized build; any report or failure fails.
#   tests/sanitizers/run.sh address|thread BUILD TEST...
set -uo pipefail
cd "$(dirname "$0")/../.."
mode=$1 build=$2
shift 2
here=$PWD/tests/sanitizers
# Libraries that are not instrumented: containers that cross their border look overflown to ASan, and locks that they hold are
# unknown to TSan (thread.supp).
export ASAN_OPTIONS="detect_container_overflow=0:detect_leaks=1:strict_string_checks=1:check_initialization_order=1"
export UBSAN_OPTIONS="print_stacktrace=1:halt_on_error=1"
export TSAN_OPTIONS="suppressions=$here/thread.supp:print_suppressions=0:halt_on_error=0:exitcode=66:second_deadlock_stack=1"
export GOMP_SPINCOUNT=1000

failed=0 total=0
for test in "$@"; do
  log=$build/$test.$mode.log
  begin=$(date +%s)
  "$build/tests/$test" --gtest_brief=1 >"$log" 2>&1
  code=$?
  passed=$(sed -n 's/^\[  PASSED  \] \([0-9]*\) test.*/\1/p' "$log" | tail -1)
  reports=$(grep -cE '^(==[0-9]+==ERROR: |WARNING: ThreadSanitizer|.*: runtime error: )' "$log")
  total=$((total + ${passed:-0}))
  printf 'sanitizers: %-8s %-24s %4s passed, %s reports, %s s\n' "$mode" "$test" "${passed:-0}" "$reports" $(($(date +%s) - begin))
  if [ $code -ne 0 ] || [ "$reports" -ne 0 ]; then
    failed=1
    grep -E '^\[  FAILED  \]|SUMMARY|ERROR: |runtime error' "$log" | head -10
  fi
done
printf 'sanitizers: %s: %s tests\n' "$mode" "$total"
exit $failed
