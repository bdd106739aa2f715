#include "common/base/program_call.h"

#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <sstream>

namespace plumb {

namespace fs = std::filesystem;

std::string CallOf(const std::string& program, const std::string& path, const std::string& from) {
  const fs::path file = program;
  std::istringstream folders(path);
  for (std::string folder; std::getline(folders, folder, ':');) {
    const fs::path found = fs::path(folder.empty() ? from : folder) / file.filename();
    if (access(found.c_str(), X_OK) != 0) continue;
    std::error_code none;
    // the first of that name is the one that a shell takes
    if (fs::equivalent(found, file, none)) return file.filename().string();
    break;
  }
  const fs::path below = file.lexically_relative(from);
  if (below.empty() || *below.begin() == "..") return program;
  return below.has_parent_path() ? below.string() : "./" + below.string();
}

std::string ProgramCall() {
  std::error_code none;
  const fs::path program = fs::read_symlink("/proc/self/exe", none);
  const fs::path here = fs::current_path(none);
  if (program.empty()) return "plumb";
  const char* path = std::getenv("PATH");
  return CallOf(program.string(), path ? path : "", here.string());
}

}  // namespace plumb
