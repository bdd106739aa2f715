// A private (0700) folder of its own for a test, removed at the end.
#pragma once

#include <stdlib.h>

#include <string>

#include "common/base/error.h"
#include "common/base/file.h"

namespace plumb::testing {

class TempFolder {
 public:
  TempFolder() {
    char name[] = "/tmp/plumb_test_XXXXXX";
    PLUMB_CHECK(::mkdtemp(name) != nullptr);
    path_ = name;
  }
  ~TempFolder() { RealFileSystem().RemoveAll(path_); }
  TempFolder(const TempFolder&) = delete;

  const std::string& path() const { return path_; }
  std::string operator/(const std::string& name) const { return path_ + "/" + name; }
  std::string Ipc(const std::string& name) const { return "ipc://" + path_ + "/" + name; }

 private:
  std::string path_;
};

}  // namespace plumb::testing
