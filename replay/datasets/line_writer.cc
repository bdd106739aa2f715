#include "replay/datasets/line_writer.h"

#include <zlib.h>

#include <filesystem>
#include <utility>

#include "common/base/error.h"
#include "common/base/output_path.h"

namespace plumb::replay {
namespace {

constexpr size_t kBuffer = size_t{1} << 20;

std::string PartOf(const std::string& path) { return path + ".part"; }

}  // namespace

LineWriter::LineWriter(const std::string& path, FileSystem& files)
    : files_(files), path_(ReplaceablePath(path).value_or(path)), through_(!ReplaceablePath(path)) {
  file_ = files_.OpenAppend(through_ ? path_ : PartOf(path_), /*truncate=*/!through_);
  if (path_.ends_with(".gz")) {
    packer_ = std::make_unique<z_stream>();
    constexpr int kGzipWindow = 15 + 16;
    if (deflateInit2(packer_.get(), Z_DEFAULT_COMPRESSION, Z_DEFLATED, kGzipWindow, 8,
                     Z_DEFAULT_STRATEGY) != Z_OK) {
      packer_.reset();
      throw Error(ErrorCode::kIo, "no memory for packing", path_);
    }
  }
  pending_.reserve(kBuffer + (kBuffer >> 2));
}

LineWriter::~LineWriter() {
  if (packer_) deflateEnd(packer_.get());
  file_.reset();
  if (finished_ || through_) return;
  try {
    files_.Remove(PartOf(path_));
  } catch (const Error&) {  // the error that ends the export is the one to tell
  }
}

void LineWriter::Add(std::string_view line) {
  pending_.append(line).push_back('\n');
  if (pending_.size() >= kBuffer) Flush(/*last=*/false);
}

void LineWriter::Finish() {
  Flush(/*last=*/true);
  if (through_) return;
  file_->Sync();
  file_.reset();
  files_.Rename(PartOf(path_), path_);
  finished_ = true;
  const std::string folder = std::filesystem::path(path_).parent_path().string();
  files_.SyncDirectory(folder.empty() ? "." : folder);
}

void LineWriter::Write(std::string_view bytes) {
  file_->Append(bytes);
  bytes_ += bytes.size();
}

void LineWriter::Flush(bool last) {
  if (!packer_) {
    if (!pending_.empty()) Write(pending_);
    pending_.clear();
    return;
  }
  std::string out(kBuffer >> 2, '\0');
  packer_->next_in = reinterpret_cast<Bytef*>(pending_.data());
  packer_->avail_in = static_cast<uInt>(pending_.size());
  do {
    packer_->next_out = reinterpret_cast<Bytef*>(out.data());
    packer_->avail_out = static_cast<uInt>(out.size());
    const int result = deflate(packer_.get(), last ? Z_FINISH : Z_NO_FLUSH);
    PLUMB_CHECK(result == Z_OK || result == Z_STREAM_END || result == Z_BUF_ERROR, path_);
    Write(std::string_view(out).substr(0, out.size() - packer_->avail_out));
  } while (packer_->avail_out == 0);
  pending_.clear();
}

}  // namespace plumb::replay
