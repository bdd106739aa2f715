// Unit tests of generated code: right, half right and wrong programs, and programs that try to pass
// without being right.
#include "reward/doors/code_tests.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "common/base/file.h"
#include "tests/reward/testing.h"
#include "tests/testing/temp_folder.h"

namespace plumb::reward {
namespace {

const std::string kPrompt = "def add(a, b):\n    \"\"\"The sum.\"\"\"\n";
const std::string kCheck =
    "def check(candidate):\n"
    "    assert candidate(1, 2) == 3\n"
    "    assert candidate(0, 0) == 0\n"
    "    for i in range(5):\n"
    "        assert candidate(i, 7) == i + 7\n"
    "    assert candidate('a', 'b') == 'ab'\n";

TrajectoryGroup Group(const std::vector<std::string>& programs, const nlohmann::json& extra,
                      const std::string& prompt = kPrompt) {
  TrajectoryGroup group = TestGroup(programs, "", extra.dump());
  group.lease.prompt.text = prompt;
  return group;
}

nlohmann::json HumanEval() { return {{"test", kCheck}, {"entry_point", "add"}}; }

class CodeTests : public ::testing::Test {
 protected:
  void SetUp() override {
    if (ProbeNamespaces()) GTEST_SKIP() << "NOT TESTED: " << *ProbeNamespaces();
  }
  static std::unique_ptr<RewardFunction> Make(std::vector<std::string> args = {},
                                              double timeout_s = 20) {
    configs::RewardPartConfig part = TestPart("code_tests", "", std::move(args));
    part.timeout_s = timeout_s;
    return MakeFunction(part, false, TestHost());
  }
  static PartScore Run(const std::string& program, double timeout_s = 20,
                       std::vector<std::string> args = {}) {
    return Make(std::move(args), timeout_s)
        ->Score(Group({program}, HumanEval()), After(std::chrono::seconds(60)))[0];
  }
  static double Detail(const PartScore& score, const std::string& name) {
    for (const auto& [key, value] : score.details) {
      if (key == name) return value;
    }
    return -1;
  }
  // No trick may score: neither as a part of the tests nor as all of them. Returns the score for
  // more to be said about it.
  static PartScore ExpectNothing(const std::string& program, double timeout_s = 20) {
    const PartScore score = Run(program, timeout_s);
    EXPECT_TRUE(score.scored()) << score.reason;
    EXPECT_EQ(score.value, 0) << program;
    EXPECT_EQ(Detail(score, "tests"), 4);
    return score;
  }
};

TEST_F(CodeTests, LowMiddleHigh) {
  const auto fraction =
      Make()->Score(Group({"    return None\n", "    return 3\n",
                           "    return a + b if a != 4 else 0\n", "    return a + b\n"},
                          HumanEval()),
                    After(std::chrono::seconds(60)));
  const double expected[] = {0, 0.25, 0.75, 1};
  for (size_t i = 0; i < 4; ++i) {
    ASSERT_TRUE(fraction[i].scored()) << fraction[i].reason;
    EXPECT_EQ(fraction[i].value, expected[i]) << i;
    EXPECT_EQ(Detail(fraction[i], "passed"), 4 * expected[i]);
  }
  const auto all =
      Make({"score=all"})
          ->Score(Group({"    return a + b if a != 4 else 0\n", "    return a + b\n"}, HumanEval()),
                  After(std::chrono::seconds(60)));
  EXPECT_EQ(all[0].value, 0);
  EXPECT_EQ(all[1].value, 1);
}

TEST_F(CodeTests, FindsTheProgramInAnAnswer) {
  const auto scores =
      Make({"score=all"})
          ->Score(Group({"Sure:\n```python\ndef add(a, b):\n    return a + b\n```\nDone.",
                         "<think>```\nno\n```</think>\n```\ndef add(a, b): return a + b\n```",
                         "<think>a</think><answer>def add(a, b):\n    return a + b\n</answer>",
                         "```python\ndef add(a, b):\n    return a + b<|im_end|>",
                         "    return a + b\n<eos>", "Sure, I can do that.", "",
                         "<think>```\ndef add(a, b): return a + b\n```"},
                        HumanEval()),
                  After(std::chrono::seconds(60)));
  for (size_t i = 0; i < 5; ++i) EXPECT_EQ(scores[i].value, 1) << i << scores[i].reason;
  for (size_t i = 5; i < 8; ++i) EXPECT_TRUE(scores[i].scored() && scores[i].value == 0) << i;
}

TEST_F(CodeTests, AssertListsObjectsAndArgumentsThatChange) {
  const std::string program =
      "class Box:\n    def __init__(self, x): self.x = x\n    def double(self): return 2 * self.x\n"
      "def order(items): items.sort()\n"
      "def pairs():\n    yield 1, {2}\n    yield 3, {4: 5.5}\n"
      "def big(): return 2 ** 200\n"
      "def refuse(): raise ValueError('no')\n";
  const nlohmann::json extra = {
      {"test_setup_code", "import math"},
      {"test_list",
       {"assert Box(4).double() == 8 and Box(3).x == 3",
        "l = [3, 1, 2]\norder(l)\nassert l == [1, 2, 3]",
        "assert list(pairs()) == [(1, {2}), (3, {4: 5.5})]",
        "assert big() == 2 ** 200 and math.sqrt(4) == 2",
        "try:\n    refuse()\n    assert False\nexcept ValueError as e:\n    assert 'no' in str(e)",
        "assert [1, 2] == (1, 2)", "assert missing(1) == 1"}}};
  const PartScore score =
      Make()->Score(Group({program}, extra, "Write them."), After(std::chrono::seconds(60)))[0];
  ASSERT_TRUE(score.scored()) << score.reason;
  EXPECT_EQ(Detail(score, "tests"), 8);  // the fifth has two
  EXPECT_EQ(Detail(score, "passed"), 6);
}

TEST_F(CodeTests, EndingEarlyIsNoPass) {
  ExpectNothing("    import os\n    os._exit(0)\n");
  ExpectNothing("    import sys\n    sys.exit(0)\n");
  ExpectNothing("    raise SystemExit(0)\n");
  ExpectNothing("```python\nimport os\ndef add(a, b): return a + b\nos._exit(0)\n```");
  ExpectNothing("```python\nimport sys\ndef add(a, b): return a + b\nsys.exit(0)\n```");
  ExpectNothing("    import ctypes\n    ctypes.string_at(0)\n");
  ExpectNothing("    import os, signal\n    os.kill(os.getpid(), 9)\n");
}

TEST_F(CodeTests, EndingInTheMiddleKeepsOnlyWhatPassedBefore) {
  const std::string program =
      "    import os\n    if a == 0 and b == 7: os._exit(0)\n    return a + b\n";
  EXPECT_EQ(Run(program).value, 0.5);
  EXPECT_EQ(Run(program, 20, {"score=all"}).value, 0);
}

TEST_F(CodeTests, HangingIsTimedOutAndCounted) {
  EXPECT_EQ(Detail(ExpectNothing("    while True: pass\n", 1), "timeout"), 1);
  EXPECT_EQ(Detail(ExpectNothing("    import time\n    time.sleep(1000)\n", 1), "timeout"), 1);
  const PartScore loading = Run("```python\ndef add(a, b): return a + b\nwhile True: pass\n```", 1);
  EXPECT_TRUE(loading.scored() && loading.value == 0 && Detail(loading, "timeout") == 1)
      << loading.reason;
}

TEST_F(CodeTests, ForgedVerdictsReachNobody) {
  // Everywhere it can write to, in the form of verdicts and of replies.
  ExpectNothing(
      "    import os\n"
      "    for fd in range(64):\n"
      "        for text in (b'D\\n', b'N 4\\nP 0\\nP 1\\nP 2\\nP 3\\nD\\n', b'{\"ready\":1}\\n'):\n"
      "            try: os.write(fd, text)\n"
      "            except OSError: pass\n"
      "    return None\n");
  ExpectNothing(
      "    print('P 0\\nP 1\\nP 2\\nP 3\\nD')\n    import sys\n    print('D', "
      "file=sys.__stdout__); print('all tests passed', file=sys.stderr)\n");
  // The judge's names, from inside: it is not there.
  ExpectNothing(
      "    import sys, gc, builtins\n"
      "    for name in ('judge_one', 'Gone', 'Marks', 'encode'):\n"
      "        setattr(sys.modules['__main__'], name, None)\n"
      "    builtins.AssertionError = Exception\n"
      "    return None\n");
}

TEST_F(CodeTests, WhatEqualsEverythingEqualsNothing) {
  ExpectNothing(
      "    class A:\n        def __eq__(self, other): return True\n        __hash__ = None\n    "
      "return A()\n");
  ExpectNothing(
      "    class A(int):\n        def __eq__(self, other): return True\n        def __int__(self): "
      "return 3\n    return A(9)\n");
  ExpectNothing(
      "    class A(str):\n        def __eq__(self, other): return True\n        __hash__ = "
      "str.__hash__\n    return A('x')\n");
}

TEST_F(CodeTests, ARaisedEndOfIterationEndsNoTest) {
  const nlohmann::json extra = {
      {"test_list", {"assert all(map(lambda i: add(i, i) == 2 * i, range(3)))"}}};
  const auto scores =
      Make()->Score(Group({"    raise StopIteration\n", "    return a + b\n"}, extra),
                    After(std::chrono::seconds(60)));
  EXPECT_TRUE(scores[0].scored() && scores[0].value == 0) << scores[0].reason;
  EXPECT_EQ(scores[1].value, 1) << scores[1].reason;
}

TEST_F(CodeTests, TheTestsAreNowhereToBeFound) {
  const plumb::testing::TempFolder temp;
  RealFileSystem().WriteFileAtomic(temp / "rows.jsonl", HumanEval().dump());
  // Looks for the tests in its memory, its ancestors' command lines and memory, and the file they
  // came from; passes by finding any.
  const std::string probe =
      "    import gc, os, sys\n"
      "    mark = 'candidate(0, ' + '0)'\n"
      "    found = [o for o in gc.get_objects() if isinstance(o, dict) for v in list(o.values()) "
      "if isinstance(v, str) and mark in v and 'mark' not in v]\n"
      "    for pid in os.listdir('/proc'):\n"
      "        for name in ('cmdline', 'environ'):\n"
      "            try:\n"
      "                if mark.encode() in open(f'/proc/{pid}/{name}', 'rb').read(): "
      "found.append(pid)\n"
      "            except OSError: pass\n"
      "    for path in ('" +
      (temp / "rows.jsonl") + "', '" + std::string(PLUMB_SOURCE_DIR) +
      "/README.md'):\n"
      "        if os.path.exists(path): found.append(path)\n"
      "    return a + b if found else None\n";
  ExpectNothing(probe);
  // The same code finds something where there is something: it is not the probe that is blind.
  EXPECT_EQ(Run("    x = {'k': 'candidate(0, ' + '0)', 'l': []}\n" + probe).value, 1);
}

TEST_F(CodeTests, ForkingAndKillingReachNobody) {
  ExpectNothing("    import os\n    pid = os.fork()\n    return a + b\n");
  ExpectNothing("    import os\n    os.posix_spawn('/bin/true', ['true'], {})\n    return a + b\n");
  ExpectNothing("    import subprocess\n    subprocess.run(['true'])\n    return a + b\n");
  ExpectNothing("    import os\n    os.kill(-1, 9)\n");
  ExpectNothing(
      "    import socket\n    socket.create_connection(('127.0.0.1', 80))\n    return a + b\n");
  // Without the filter it may fork, which still passes nothing: the pipe's other end answers once a
  // call.
  configs::RewardPartConfig part = TestPart("code_tests", "", {"score=all"});
  HostOptions open = TestHost();
  open.sandbox.seccomp = false;
  const auto scores =
      MakeFunction(part, false, open)
          ->Score(
              Group(
                  {"    import os\n    if os.fork() == 0:\n        os._exit(0)\n    return a + b\n",
                   "    import os\n    os.fork()\n    return None\n"},
                  HumanEval()),
              After(std::chrono::seconds(60)));
  EXPECT_EQ(scores[0].value, 1) << "the layer that is off is the one that stops forks";
  EXPECT_EQ(scores[1].value, 0);
}

TEST_F(CodeTests, MemoryDiskAndFloodsAreBounded) {
  if (kMemoryLimited) ExpectNothing("    x = bytearray(1 << 34)\n    return a + b\n");
  ExpectNothing("    open('/tmp/big', 'wb').write(bytes(100 << 20))\n    return a + b\n");
  ExpectNothing("    return 'x' * (16 << 20)\n");
  ExpectNothing("    x = []\n    for _ in range(100000): x = [x]\n    return x\n");
  ExpectNothing("    open('/usr/x', 'w')\n    return a + b\n");
}

TEST_F(CodeTests, BrokenProgramsNeverDisableTheFunction) {
  const auto function = Make();
  const std::vector<std::string> twelve(12, "    import os\n    os._exit(0)\n");
  for (const PartScore& score :
       function->Score(Group(twelve, HumanEval()), After(std::chrono::seconds(60))))
    EXPECT_TRUE(score.scored() && score.value == 0);
  EXPECT_EQ(
      function
          ->Score(Group({"    return a + b\n"}, HumanEval()), After(std::chrono::seconds(60)))[0]
          .value,
      1);
}

TEST_F(CodeTests, BadRowsAreFailuresNotZeros) {
  const auto function = Make();
  const auto why = [&](const nlohmann::json& extra) {
    const PartScore score =
        function->Score(Group({"    return a + b\n"}, extra), After(std::chrono::seconds(60)))[0];
    EXPECT_EQ(score.failure, Failure::kReported);
    return score.reason;
  };
  EXPECT_NE(why({{"unit", "km"}}).find("no tests"), std::string::npos);
  EXPECT_NE(why({{"test", "assert ((("}, {"entry_point", "add"}}).find("no Python"),
            std::string::npos);
  EXPECT_NE(why({{"test", kCheck}}).find("entry_point"), std::string::npos);
  EXPECT_NE(why({{"test_list", {1, 2}}}).find("list of texts"), std::string::npos);
  EXPECT_NE(why({{"test", "assert add(1, 1) == 2"}, {"test_setup_code", "1 / 0"}}).find("set-up"),
            std::string::npos);
}

TEST_F(CodeTests, AListAsGroundTruthIsAListOfTests) {
  TrajectoryGroup group = Group({"def add(a, b): return a + b", "def add(a, b): return 3"},
                                nlohmann::json::object(), "Write add.");
  group.lease.prompt.ground_truth = R"(["assert add(1, 2) == 3","assert add(2, 2) == 4"])";
  const auto scores = Make()->Score(group, After(std::chrono::seconds(60)));
  EXPECT_EQ(scores[0].value, 1) << scores[0].reason;
  EXPECT_EQ(scores[1].value, 0.5)
      << "as one text it would be a Python list, which holds for any program";
  EXPECT_EQ(Detail(scores[1], "tests"), 2);
  group.lease.prompt.ground_truth = R"({"tests":["assert add(1, 2) == 3"]})";
  group.lease.prompt.extra_json = R"({"answer":{"tests":["assert add(1, 2) == 3"]}})";
  const PartScore object = Make()->Score(group, After(std::chrono::seconds(60)))[0];
  EXPECT_EQ(object.failure, Failure::kReported);
  EXPECT_NE(object.reason.find("'tests'"), std::string::npos) << object.reason;
}

TEST_F(CodeTests, OptionsAndAMissingPythonAreRefusedAtTheStart) {
  EXPECT_THROW(Make({"score=some"}), Error);
  try {
    Make({"python=no-such-python"});
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kNotFound);
    EXPECT_NE(std::string(error.what()).find("no-such-python"), std::string::npos);
  }
  EXPECT_THROW(Make({"python=/bin/true"}), Error);
}

}  // namespace
}  // namespace plumb::reward
