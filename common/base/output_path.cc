#include "common/base/output_path.h"

#include <poll.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <system_error>

#include "common/base/error.h"

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

void CheckOutput(const std::string& path, const std::vector<std::string>& inputs,
                 const std::string& option) {
  const auto refuse = [&](ErrorCode code, const std::string& why) {
    throw Error(code, option + ": " + why, path);
  };
  if (path == "-") return;
  if (path.empty()) refuse(ErrorCode::kInvalidArgument, "is empty: name a file");
  std::error_code none;
  if (fs::is_directory(path, none) || path.ends_with('/'))
    refuse(ErrorCode::kInvalidArgument, "is a folder: name a file in it");
  const fs::path folder = fs::path(path).parent_path();
  if (!folder.empty() && !fs::is_directory(folder, none))
    refuse(ErrorCode::kNotFound, "there is no folder " + folder.string() + ": make it first");
  // Said now, not when the work is done.
  const bool there = fs::exists(path, none);
  if (access(there            ? path.c_str()
             : folder.empty() ? "."
                              : folder.c_str(),
             there ? W_OK : W_OK | X_OK) != 0)
    refuse(ErrorCode::kIo, std::string("cannot be written: ") + std::strerror(errno));
  if (!fs::is_regular_file(path, none)) return;
  for (const std::string& input : inputs) {
    if (!fs::equivalent(path, input, none)) continue;
    refuse(ErrorCode::kInvalidArgument,
           "is the file that is read, which would be lost: choose another name");
  }
}

void CheckNothingIsLost(const std::string& path, bool overwrite, const std::string& option) {
  std::error_code none;
  if (overwrite || path == "-" || !fs::is_regular_file(path, none) || fs::is_empty(path, none))
    return;
  throw Error(ErrorCode::kConflict,
              option + ": is there already: choose another name, or replace it with --overwrite",
              path);
}

std::string OutputProblem(int code) {
  if (code != 0) return std::strerror(code);
  pollfd out{.fd = STDOUT_FILENO, .events = 0, .revents = 0};
  if (poll(&out, 1, 0) == 1 && (out.revents & POLLERR) != 0) return std::strerror(EPIPE);
  return "what was written before is not all there";
}

void FlushOutput() {
  errno = 0;
  if (std::fflush(stdout) == 0 && std::ferror(stdout) == 0) return;
  throw Error(ErrorCode::kIo, "cannot write: " + OutputProblem(errno), "standard output");
}

}  // namespace plumb
