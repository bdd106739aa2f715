#include "replay/datasets/rows/line_reader.h"

#include <zlib.h>
#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>

#include "common/base/error.h"

namespace plumb::replay {
namespace {

constexpr unsigned kLookBytes = 1u << 15;

}  // namespace

ByteSource::ByteSource(const std::string& path) : path_(path), buffer_(2 * kLookBytes + kPadding) {
  std::error_code ignored;
  if (std::filesystem::is_directory(path, ignored))
    throw Error(ErrorCode::kInvalidArgument, "is a folder, not a file", path);
  errno = 0;
  file_ = gzopen(path.c_str(), "rb");  // reads plain files as they are
  if (file_ == nullptr) {
    const int error = errno;
    throw Error(error == ENOENT ? ErrorCode::kNotFound : ErrorCode::kIo,
                std::string("could not open the file: ") +
                    (error == 0 ? "out of memory" : std::strerror(error)),
                path);
  }
  gzbuffer(file_, kLookBytes);
  const auto size = std::filesystem::file_size(path, ignored);
  size_ = ignored ? 0 : size;
}

ByteSource::~ByteSource() { gzclose_r(file_); }

double ByteSource::Progress() const {
  const auto at = gzoffset(file_);
  return size_ == 0 || at < 0 ? 0
                              : std::min(1.0, static_cast<double>(at) / static_cast<double>(size_));
}

bool ByteSource::Fill() {
  // zlib looks at its first buffer to tell whether the file is packed. Where just that is asked for
  // first, and twice as much from then on, a plain file comes without a copy in between.
  const unsigned ask = unpacked_ == 0 ? kLookBytes : 2 * kLookBytes;
  const int got = gzread(file_, buffer_.data(), ask);
  int error = Z_OK;
  const char* text = gzerror(file_, &error);
  if (got < 0 || error == Z_BUF_ERROR) {
    if (error == Z_ERRNO)
      throw Error(ErrorCode::kIo, std::string("could not read: ") + std::strerror(errno), path_);
    throw Error(ErrorCode::kCorruption,
                error == Z_BUF_ERROR
                    ? "the gzip file ends too early: it was cut, get it again"
                    : std::string("the gzip file is damaged (") + text + "): get it again",
                path_);
  }
  begin_ = 0;
  end_ = static_cast<size_t>(got);
  unpacked_ += end_;
  if (unpacked_ > kUnpackFree &&
      unpacked_ / kMaxUnpack > static_cast<uint64_t>(std::max<z_off_t>(gzoffset(file_), 1))) {
    throw Error(ErrorCode::kCorruption,
                "the gzip file unpacks to more than " + std::to_string(kMaxUnpack) +
                    " times its size: if you trust it, unpack it yourself",
                path_);
  }
  return got > 0;
}

LineReader::LineReader(const std::string& path, size_t max_line_bytes)
    : path_(path), max_line_bytes_(max_line_bytes), bytes_(path) {}

std::string LineReader::Where() const { return path_ + ":" + std::to_string(line_number_); }

bool LineReader::Next(std::string& line) {
  std::string_view view;
  if (!Next(view)) return false;
  line.assign(view);
  return true;
}

bool LineReader::Next(std::string_view& line) {
  line = {};
  torn_.clear();
  too_long_ = false;
  bool any = false;
  for (;;) {
    std::string_view chunk;
    try {
      chunk = bytes_.Chunk();
    } catch (const Error& e) {
      throw Error(e.code(), e.message(),
                  path_ + ":" + std::to_string(line_number_ + (any ? 0 : 1)));
    }
    if (chunk.empty()) break;
    if (!any) ++line_number_;
    const size_t newline = chunk.find('\n');
    const bool ends = newline != std::string_view::npos;
    const std::string_view part = chunk.substr(0, newline);
    bytes_.Skip(part.size() + (ends ? 1 : 0));
    if (torn_.size() + part.size() > max_line_bytes_) too_long_ = true;
    if (ends && !any) {
      line = part;
    } else if (!too_long_) {
      torn_.append(part);
    }
    any = true;
    if (ends) break;
  }
  if (!any) return false;
  if (too_long_) {
    line = {};
    torn_ = std::string();
    return true;
  }
  if (line.data() == nullptr) {
    torn_.reserve(torn_.size() + kPadding);
    line = torn_;
  }
  if (line.ends_with('\r')) line.remove_suffix(1);
  if (line_number_ == 1 && line.starts_with("\xEF\xBB\xBF")) line.remove_prefix(3);
  return true;
}

}  // namespace plumb::replay
