// Calls the command line inside the test process and catches what it prints.
#pragma once

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "run/commands/cli.h"

namespace plumb::run::testing {

struct CliOutput {
  int code = 0;
  std::string out, err;
};

inline CliOutput RunPlumb(std::vector<std::string> arguments) {
  arguments.insert(arguments.begin(), "plumb");
  std::vector<char*> argv;
  for (std::string& a : arguments) argv.push_back(a.data());
  argv.push_back(nullptr);
  ::testing::internal::CaptureStdout();
  ::testing::internal::CaptureStderr();
  CliOutput output;
  output.code = RunCli(static_cast<int>(arguments.size()), argv.data());
  std::fflush(stdout);
  output.out = ::testing::internal::GetCapturedStdout();
  output.err = ::testing::internal::GetCapturedStderr();
  return output;
}

inline bool Has(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

}  // namespace plumb::run::testing
