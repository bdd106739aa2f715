#include "common/base/output_path.h"

#include <filesystem>
#include <system_error>

namespace plumb {

namespace fs = std::filesystem;

std::optional<std::string> ReplaceablePath(const std::string& path) {
  std::error_code none;
  const fs::file_status status = fs::status(path, none);
  if (fs::exists(status) && fs::is_other(status)) return std::nullopt;
  fs::path at = path;
  constexpr int kMostLinks = 40;  // as the kernel has it; more are a circle
  for (int links = 0; links < kMostLinks && fs::is_symlink(at, none); ++links) {
    const fs::path target = fs::read_symlink(at, none);
    at = target.is_absolute() ? target : at.parent_path() / target;
  }
  return fs::is_symlink(at, none) ? path : at.string();
}

}  // namespace plumb
