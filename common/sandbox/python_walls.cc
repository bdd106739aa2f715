#include "common/sandbox/python_walls.h"

#include <linux/filter.h>

#include <nlohmann/json.hpp>
#include <span>

#include "common/base/error.h"
#include "common/base/text.h"
#include "common/sandbox/child_process.h"

namespace plumb {
namespace {

constexpr size_t kMaxLine = 1 << 16;

std::string FilterHex(const SandboxOptions& sandbox) {
  if (!sandbox.seccomp) return "";
  const auto filter = SeccompFilter(SeccompProfile::kSharedObject, /*network=*/false);
  return Hex(std::as_bytes(std::span(filter)));
}

std::string Limits(const SandboxOptions& sandbox) {
  if (!sandbox.limits) return "{}";
  const int64_t mib = 1 << 20;
  nlohmann::ordered_json limits = {{"RLIMIT_CORE", 0},
                                   {"RLIMIT_FSIZE", sandbox.file_mb * mib},
                                   {"RLIMIT_NOFILE", sandbox.open_files}};
  if (sandbox.memory_mb > 0) limits["RLIMIT_AS"] = sandbox.memory_mb * mib;
  return limits.dump();
}

}  // namespace

Python AskPython(const std::string& python, const std::string& place) {
  ChildProcess child({.command = {python, "-I", "-c",
                                  "import "
                                  "json,sys,os;print(json.dumps({'exe':os.path.realpath(sys."
                                  "executable),'version':sys.version,"
                                  "'prefixes':[sys.prefix,sys.base_prefix,sys.exec_prefix]}))"}});
  child.Start();
  std::string line;
  if (child.ReadLine(kMaxLine, &line, After(std::chrono::seconds(20))) == Failure::kNone) {
    const auto said = nlohmann::json::parse(line, nullptr, /*allow_exceptions=*/false);
    if (said.is_object() && said.contains("exe"))
      return {said["exe"], said["version"], said["prefixes"]};
  }
  throw Error(
      ErrorCode::kInvalidArgument,
      python + " is no Python 3 that starts; name one with args = [\"python=/path/to/python3\"]",
      place);
}

std::vector<std::string> WalledPython(const Python& python, SandboxOptions sandbox,
                                      const std::string& runner,
                                      const std::vector<std::string>& arguments,
                                      const std::string& place) {
  sandbox.system_only = true;
  sandbox.network = false;
  sandbox.visible = {python.exe};
  sandbox.visible.insert(sandbox.visible.end(), python.prefixes.begin(), python.prefixes.end());
  const std::string filter = FilterHex(sandbox);
  if (filter.empty() && sandbox.seccomp && !sandbox.allow_unsandboxed) {
    throw Error(ErrorCode::kUnsupported,
                "no system-call filter for this processor: generated code cannot be held; "
                "reward.allow_unsandboxed = true goes on without",
                place);
  }
  std::vector<std::string> command = NamespaceCommand(sandbox);
  command.insert(command.end(), {python.exe, "-I", "-u", "-c", kPythonWalls + runner});
  command.insert(command.end(), arguments.begin(), arguments.end());
  command.insert(command.end(), {Limits(sandbox), filter});
  return command;
}

}  // namespace plumb
