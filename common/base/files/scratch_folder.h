// A folder for a while: this user's alone (0700), removed with all that is in it.
//
// Thread safety: one thread. Ownership: the folder. Errors: kIo where none can be made.
#pragma once

#include <stdlib.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <string>

#include "common/base/error.h"

namespace plumb {

class ScratchFolder {
 public:
  // "beginning-XXXXXX".
  explicit ScratchFolder(const std::filesystem::path& beginning)
      : path_(beginning.string() + "-XXXXXX") {
    if (::mkdtemp(path_.data()) == nullptr)
      throw Error(ErrorCode::kIo,
                  std::string("cannot make a temporary folder: ") + std::strerror(errno), path_);
  }
  ~ScratchFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  ScratchFolder(const ScratchFolder&) = delete;
  ScratchFolder& operator=(const ScratchFolder&) = delete;

  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

}  // namespace plumb
