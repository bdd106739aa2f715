// A folder for a while: this user's alone (0700), removed with all that is in it.
//
// Purpose: what passes through files. One that a killed program left is removed by the next of the
// same beginning. Thread safety: one thread. Ownership: the folder. Errors: kIo where none can be
// made.
#pragma once

#include <filesystem>
#include <string>

namespace plumb {

// Where they are made: TMPDIR, or /tmp. Throws kIo where that is no folder.
std::filesystem::path TemporaryFolder();

class ScratchFolder {
 public:
  // "beginning-XXXXXX".
  explicit ScratchFolder(const std::filesystem::path& beginning);
  ~ScratchFolder();
  ScratchFolder(const ScratchFolder&) = delete;
  ScratchFolder& operator=(const ScratchFolder&) = delete;

  const std::string& path() const { return path_; }

 private:
  std::string path_;
  int held_ = -1;  // open and locked for as long as the folder is in use
};

}  // namespace plumb
