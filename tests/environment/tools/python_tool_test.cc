// The Python interpreter: what it says, and what its walls stop.
#include "environment/tools/python_tool.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "common/sandbox/python_walls.h"
#include "environment/tools/tool.h"

namespace plumb::environment {
namespace {

ToolResult RunCode(Tool& tool, const std::string& code, int seconds = 20) {
  Problem problem;
  Prompt prompt;
  return tool.Begin(prompt, &problem)->Call({{"code", code}}, After(std::chrono::seconds(seconds)));
}

TEST(PythonTool, RunsPrograms) {
  EXPECT_NE(std::string(kPythonWalls).find("def wall("), std::string::npos);
  SandboxOptions sandbox;
  sandbox.memory_mb = 512;
  const auto tool = MakePythonTool(sandbox);
  EXPECT_EQ(RunCode(*tool, "print(1)\nx = 2\nx + 3").text, "1\n5");
  EXPECT_EQ(RunCode(*tool, "def f(n):\n    return n * 2\nprint(f(4))").text, "8");
  EXPECT_EQ(RunCode(*tool, "x = 1").text, "(no output)");
  EXPECT_EQ(RunCode(*tool, "print(x)").text, "NameError: name 'x' is not defined (line 1)");
  const ToolResult wrong = RunCode(*tool, "a = 1\n1 / 0");
  EXPECT_TRUE(wrong.failed);
  EXPECT_EQ(wrong.text, "ZeroDivisionError: division by zero (line 2)");
  EXPECT_NE(RunCode(*tool, "def").text.find("SyntaxError"), std::string::npos);
  EXPECT_FALSE(RunCode(*tool, "import sys; print(2); sys.exit(3)").failed);
  EXPECT_NE(RunCode(*tool, "print('x' * 100000)").text.find("more characters"), std::string::npos);
}

TEST(PythonTool, HoldsPrograms) {
  SandboxOptions sandbox;
  sandbox.memory_mb = 512;
  const auto tool = MakePythonTool(sandbox);
  const auto before = std::chrono::steady_clock::now();
  const ToolResult slow = RunCode(*tool, "while True: pass", 1);
  EXPECT_EQ(slow.text, "error: the program ran too long and was ended");
  EXPECT_LT(std::chrono::steady_clock::now() - before, std::chrono::seconds(30));
  EXPECT_TRUE(RunCode(*tool, "import socket\nsocket.create_connection(('1.1.1.1', 80), 1)").failed);
  EXPECT_TRUE(RunCode(*tool, "import subprocess\nsubprocess.run(['true'])").failed);
  EXPECT_TRUE(RunCode(*tool, "open('" PLUMB_SOURCE_DIR "/README.md')").failed);
  EXPECT_NE(RunCode(*tool, "import os\nos._exit(7)").text.find("exit code 7"), std::string::npos);
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
  EXPECT_NE(RunCode(*tool, "x = bytearray(2 << 30)").text.find("MemoryError"), std::string::npos);
#endif
  EXPECT_EQ(RunCode(*tool, "print('still here')").text, "still here");
}

}  // namespace
}  // namespace plumb::environment
