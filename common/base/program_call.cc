#include "common/base/program_call.h"

#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <sstream>

namespace plumb {
namespace {

namespace fs = std::filesystem;

std::string& Typed() {
  static std::string typed;
  return typed;
}

// Looked up once, for a file that is replaced while it runs is called "... (deleted)" from then on.
const fs::path& FileAtStart() {
  static const fs::path file = [] {
    std::error_code none;
    return fs::read_symlink("/proc/self/exe", none);
  }();
  return file;
}

bool Same(const fs::path& a, const fs::path& b) {
  std::error_code none;
  return fs::equivalent(a, b, none);
}

}  // namespace

void CalledAs(const std::string& argv0) {
  Typed() = argv0;
  FileAtStart();
}

std::string CallOf(const std::string& program, const std::string& path, const std::string& from,
                   const std::string& typed) {
  const fs::path file = program;
  if (typed.find('/') != std::string::npos && Same(fs::path(from) / typed, file)) return typed;
  std::istringstream folders(path);
  for (std::string folder; std::getline(folders, folder, ':');) {
    const fs::path found = fs::path(folder.empty() ? from : folder) / file.filename();
    if (access(found.c_str(), X_OK) != 0) continue;
    // the first of that name is the one that a shell takes
    if (Same(found, file)) return file.filename().string();
    break;
  }
  const fs::path below = file.lexically_relative(from);
  if (below.empty() || *below.begin() == "..") return program;
  return below.has_parent_path() ? below.string() : "./" + below.string();
}

std::string ProgramCall() {
  std::error_code none;
  const fs::path& program = FileAtStart();
  const fs::path here = fs::current_path(none);
  if (program.empty()) return "plumb";
  const char* path = std::getenv("PATH");
  return CallOf(program.string(), path ? path : "", here.string(), Typed());
}

std::string AsCalled(std::string_view text) {
  constexpr std::string_view kCommand = "`plumb ";
  std::string out;
  size_t begin = 0;
  for (size_t at; (at = text.find(kCommand, begin)) != std::string_view::npos;
       begin = at + kCommand.size()) {
    out.append(text.substr(begin, at - begin)).append("`").append(ProgramCall()).append(" ");
  }
  return out.append(text.substr(begin));
}

}  // namespace plumb
