// Lines of a file, or nothing where none was asked for; made with its first line.
//
// Thread safety: none. Ownership: of the open file. Errors: those of the file system; text that is
// no UTF-8 has U+FFFD in its place.
#pragma once

#include <memory>
#include <string>
#include <utility>

#include <nlohmann/json.hpp>

#include "common/base/file.h"

namespace plumb::run {

class LineFile {
 public:
  explicit LineFile(std::string path) : path_(std::move(path)) {}
  explicit operator bool() const { return !path_.empty(); }
  void Write(const nlohmann::ordered_json& line) {
    if (path_.empty()) return;
    if (!file_) file_ = RealFileSystem().OpenAppend(path_, /*truncate=*/true);
    file_->Append(line.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace) +
                  "\n");
  }

 private:
  const std::string path_;
  std::unique_ptr<AppendFile> file_;
};

}  // namespace plumb::run
