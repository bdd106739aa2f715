#include "run/commands/spooled_input.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <iterator>

#include "common/base/error.h"
#include "common/base/file.h"
#include "common/base/files/scratch_folder.h"

namespace plumb::run {
namespace {

bool CanBeReadOnce(const std::string& path) {
  std::error_code ignored;
  const auto type = std::filesystem::status(path, ignored).type();
  return path == "-" || type == std::filesystem::file_type::fifo ||
         type == std::filesystem::file_type::character ||
         type == std::filesystem::file_type::socket;
}

}  // namespace

SpooledInput::SpooledInput(const std::string& path)
    : name_(path == "-" ? "standard input" : path), file_(path) {
  if (!CanBeReadOnce(path)) return;
  std::string name = (TemporaryFolder() / "plumb_input_XXXXXX").string();
  descriptor_ = ::mkostemp(name.data(), O_CLOEXEC);
  if (descriptor_ < 0) ThrowFileError(errno, "could not make a file", name);
  ::unlink(name.c_str());
  file_ = "/proc/self/fd/" + std::to_string(descriptor_);
  try {
    std::ifstream in(path == "-" ? "/dev/stdin" : path, std::ios::binary);
    if (!in) throw Error(ErrorCode::kIo, "could not open it", name_);
    std::ofstream out(file_, std::ios::binary);
    std::string piece(size_t{1} << 20, '\0');
    while (in.read(piece.data(), static_cast<std::streamsize>(piece.size())), in.gcount() > 0) {
      out.write(piece.data(), in.gcount());
    }
    if (!in.eof()) throw Error(ErrorCode::kIo, "could not read it", name_);
    if (!out.flush())
      throw Error(ErrorCode::kNoSpace, "could not write a copy of it (TMPDIR names another place)",
                  name_);
  } catch (...) {
    ::close(descriptor_);
    throw;
  }
}

SpooledInput::~SpooledInput() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

std::string SpooledInput::Named(std::string text) const {
  if (descriptor_ < 0) return text;
  for (size_t at = text.find(file_); at != std::string::npos;
       at = text.find(file_, at + name_.size()))
    text.replace(at, file_.size(), name_);
  return text;
}

std::string TextOfStandardInput() {
  std::string text(std::istreambuf_iterator<char>(std::cin), {});
  if (text.ends_with('\n')) text.pop_back();
  if (text.ends_with('\r')) text.pop_back();
  return text;
}

}  // namespace plumb::run
