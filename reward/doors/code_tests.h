// Unit tests of generated code: kind = "code_tests".
//
// Purpose: the score of a Python program that a model wrote, by the tests of its row. Two processes
// per answer, each behind walls of its own (user, pid, network and mount namespaces that show the
// system's files and Python's alone, limits, a system-call filter without fork and exec):
//
//   judge      holds the tests and decides; never executes a line of the code
//   candidate  a new process per answer; holds the code; is asked for calls and answers with plain
//              values
//
//   judge --"call add(1, 2)"--> worker --> candidate
//   candidate --"3"--> worker --> judge --"test 0 passed"--> worker
//
// So there is no secret to keep from the code: the tests, the expected values and the verdict never
// enter its process, its namespaces or a file it can open, and whatever it writes anywhere is at
// most the value of the call that is being asked. What is no plain value (None, bool, numbers,
// text, bytes, tuple, list, set, dict, range and what is derived from them) can be used by a test
// (called, iterated, its attributes read) and never be compared, so an object that equals
// everything passes nothing.
//
// The program: what stands behind </think>, inside <answer>, in the last ``` block, each where
// there is one; where that alone is Python and defines the entry point it runs behind the prompt
// (if the prompt is Python), else as the prompt's continuation. The tests, from the row's columns:
// "test_list" or "tests" (list of texts) or "test" (text, HumanEval's check(candidate) or assert
// lines), else a ground truth with an assert in it; "entry_point"; "test_setup_code" and
// "test_imports" go before. A test is an assert statement, or a text without any. An assert inside
// a loop passes when it always held.
//
//   value   score=fraction (default): passed / tests.  score=all: 1 if every test passed, else 0.
//           0 where the program does not compile or ends, hangs or breaks before a test: those
//           after it fail, too.
// Options (args): score=fraction|all, tests=COLUMN, python=INTERPRETER. timeout_s is the wall clock
// of an answer from the moment its process is ready; memory_mb its address space; workers how many
// answers run at once.
// Details: passed, tests, timeout (1: the deadline ended it).
// Thread safety, errors: as RewardFunction. Without Python, or where the walls cannot be built,
// construction throws. A row without tests, or with tests that are no Python, is a reported
// failure; code that breaks its process is a 0 and never counts against the function. Known limit:
// functions and objects of a test cannot be handed to the code.
#pragma once

#include <memory>
#include <string>

#include "configs/config.h"
#include "reward/doors/plugin.h"
#include "reward/part/reward.h"

namespace plumb::reward {

extern const char* const kCodeTestsRunner;  // the source of both processes

// What `args` say.
struct CodeTestsOptions {
  std::string python = "python3", column;  // column of the tests; empty: the known ones
  bool all = false;                        // score=all
};
// kInvalidArgument for what args does not take; starts nothing.
CodeTestsOptions ReadCodeTestsOptions(const configs::RewardPartConfig& part);

std::unique_ptr<RewardFunction> MakeCodeTests(const configs::RewardPartConfig& part,
                                              bool allow_unsandboxed, HostOptions options = {});

}  // namespace plumb::reward
