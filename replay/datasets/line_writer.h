// Lines into a file that appears whole or not at all; gzip when its name ends in .gz.
//
// Written to PATH.part, synced, then renamed: after an error or a kill the old file (or none) is
// there. Memory: one buffer of 1 MB. Thread safety: none. Errors: kIo, kNoSpace; the part file is
// removed by the destructor unless Finish returned.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "common/base/file.h"

struct z_stream_s;

namespace plumb::replay {

class LineWriter {
 public:
  explicit LineWriter(const std::string& path, FileSystem& files = RealFileSystem());
  ~LineWriter();
  LineWriter(const LineWriter&) = delete;
  LineWriter& operator=(const LineWriter&) = delete;

  void Add(std::string_view line);           // without its line end
  void Finish();                             // durable under its name on return
  uint64_t bytes() const { return bytes_; }  // on disk so far

 private:
  void Flush(bool last);
  void Write(std::string_view bytes);

  FileSystem& files_;
  const std::string path_;  // of a link: what it links to
  const bool through_;      // a device or a pipe: written to as it is
  std::unique_ptr<AppendFile> file_;
  std::unique_ptr<z_stream_s> packer_;  // nullptr: plain
  std::string pending_;
  uint64_t bytes_ = 0;
  bool finished_ = false;
};

}  // namespace plumb::replay
