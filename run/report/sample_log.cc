#include "run/report/sample_log.h"

#include <fstream>
#include <nlohmann/json.hpp>
#include <utility>

#include "common/base/error.h"

namespace plumb::run {
namespace {

using Json = nlohmann::json;

// The lines of steps before `step`.
std::string KeptLines(const std::string& path, int64_t step) {
  std::ifstream in(path);
  std::string line, kept;
  for (int64_t number = 1; std::getline(in, line); ++number) {
    const bool torn = in.eof();  // no line break behind it
    const Json j = Json::parse(line, nullptr, /*allow_exceptions=*/false);
    if (j.is_object() && j.contains("step") && j["step"].is_number_integer()) {
      if (j["step"].get<int64_t>() < step) kept += line + '\n';
    } else if (!torn) {
      throw Error(ErrorCode::kCorruption,
                  "the line is not an entry with a step, so the file cannot be continued: move it "
                  "away or take "
                  "the line out, then resume again",
                  path + ":" + std::to_string(number));
    }
  }
  return kept;
}

}  // namespace

SampleLog::SampleLog(FileSystem& files, const std::string& path, int64_t first_step) {
  if (files.Exists(path)) files.WriteFileAtomic(path, KeptLines(path, first_step));
  file_ = files.OpenAppend(path);
}

void SampleLog::Append(const std::string& lines) {
  file_->Append(lines);
  new_ += lines;
}

std::string SampleLog::TakeNew() { return std::exchange(new_, {}); }

}  // namespace plumb::run
