// A text as standard input of the test process, until this goes out of scope.
#pragma once

#include <unistd.h>

#include <cstdio>
#include <iostream>
#include <string>

#include "common/base/error.h"

namespace plumb::testing {

class StandardInput {
 public:
  explicit StandardInput(const std::string& text) : before_(::dup(STDIN_FILENO)) {
    std::FILE* file = std::tmpfile();
    PLUMB_CHECK(file != nullptr);
    PLUMB_CHECK(std::fwrite(text.data(), 1, text.size(), file) == text.size());
    std::rewind(file);
    ::dup2(::fileno(file), STDIN_FILENO);
    std::fclose(file);
    std::clearerr(stdin);
    std::cin.clear();
  }
  ~StandardInput() {
    ::dup2(before_, STDIN_FILENO);
    ::close(before_);
    std::clearerr(stdin);
    std::cin.clear();
  }
  StandardInput(const StandardInput&) = delete;

 private:
  const int before_;
};

}  // namespace plumb::testing
