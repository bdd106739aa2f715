// samples.jsonl: answers of a run for people to read, one JSON object a line.
//
// Purpose: what was appended is in the file, or an Error says why it is not; nothing waits in a
// buffer of the library for a write that may fail unseen. Thread safety: one thread. Ownership:
// borrows the file system. Errors: those of FileSystem: kNoSpace for a full disk, kIo for another
// one; the place is the file. kCorruption for a line of an earlier life that is none of ours, with
// its number: what it was cannot be known.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "common/base/file.h"

namespace plumb::run {

class SampleLog {
 public:
  // Opens for appending. Lines of steps >= `first_step` are dropped first, so that a resumed run's
  // file equals that of an unbroken one, and a last line that a crash tore.
  SampleLog(FileSystem& files, const std::string& path, int64_t first_step);
  // Whole lines, each with its end.
  void Append(const std::string& lines);
  // What was appended since the last call.
  std::string TakeNew();

 private:
  std::string new_;
  std::unique_ptr<AppendFile> file_;
};

}  // namespace plumb::run
