#include "run/session/fresh_folder.h"

namespace plumb::run {
namespace {

namespace fs = std::filesystem;

fs::path WithoutSlash(const std::string& path) {
  fs::path full = fs::absolute(path);
  return full.has_filename() ? full : full.parent_path();
}

// What cannot be looked at counts as there.
bool IsThere(const fs::path& path) {
  std::error_code error;
  return fs::symlink_status(path, error).type() != fs::file_type::not_found;
}

}  // namespace

FreshFolder::FreshFolder(const std::string& path)
    : path_(WithoutSlash(path)), was_there_(IsThere(path_)), first_made_(path_) {
  while (!IsThere(first_made_.parent_path())) first_made_ = first_made_.parent_path();
}

FreshFolder::~FreshFolder() {
  if (was_there_ || kept_) return;
  std::error_code ignored;
  fs::remove_all(path_, ignored);
  for (fs::path at = path_; at != first_made_;) {
    at = at.parent_path();
    if (!fs::remove(at, ignored) || ignored) break;  // not empty
  }
}

}  // namespace plumb::run
