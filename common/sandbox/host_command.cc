#include "common/sandbox/host_command.h"

#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <set>

#include "common/base/error.h"
#include "common/sandbox/child_process.h"

namespace plumb {
namespace fs = std::filesystem;

std::vector<std::string> OwnHost(const std::string& verb) {
  std::error_code error;
  return {fs::read_symlink("/proc/self/exe", error).string(), verb};
}

std::vector<std::string> HostCommand(SandboxOptions sandbox, const std::vector<std::string>& host,
                                     const std::string& verb, const std::string& path,
                                     const std::vector<std::string>& arguments) {
  std::error_code error;
  sandbox.visible.push_back(host.at(0));
  sandbox.visible.push_back(path);
  if (sandbox.relay_port > 0) sandbox.visible.push_back(sandbox.relay_socket);
  // What our own executable has mapped it needs again in there, wherever it was installed.
  if (host[0] == fs::read_symlink("/proc/self/exe", error).string()) {
    std::set<std::string> mapped;
    std::ifstream maps("/proc/self/maps");
    for (std::string line; std::getline(maps, line);) {
      const size_t slash = line.find('/');
      if (slash != std::string::npos && line.find(".so", slash) != std::string::npos)
        mapped.insert(line.substr(slash));
    }
    sandbox.visible.insert(sandbox.visible.end(), mapped.begin(), mapped.end());
  }
  for (const std::string& argument : arguments) {
    if (argument.starts_with("/") && fs::exists(argument, error))
      sandbox.visible.push_back(argument);
  }
  std::vector<std::string> command = NamespaceCommand(sandbox);
  const bool in_namespaces = !command.empty();
  command.insert(command.end(), host.begin(), host.end());
  const auto limits = HostArguments(sandbox, in_namespaces);
  command.insert(command.end(), limits.begin(), limits.end());
  command.insert(command.end(), {verb, path, "--"});
  command.insert(command.end(), arguments.begin(), arguments.end());
  return command;
}

std::string FindExecutable(const std::string& name, const std::string& place) {
  if (name.find('/') == std::string::npos) {
    std::string found = FindInPath(name);
    if (!found.empty()) return found;
    throw Error(ErrorCode::kNotFound, "no such program in PATH: " + name, place);
  }
  if (access(name.c_str(), F_OK) != 0)
    throw Error(ErrorCode::kNotFound, "no such program: " + name, place);
  if (access(name.c_str(), X_OK) != 0) {
    throw Error(ErrorCode::kInvalidArgument,
                name +
                    " is not executable: chmod +x it, or name its interpreter as path "
                    "and the file in args",
                place);
  }
  return std::filesystem::absolute(name).string();
}

int64_t CountedProcesses(const SandboxOptions& sandbox) {
  const bool namespaces = sandbox.namespaces && !ProbeNamespaces();
  return namespaces && sandbox.limits && geteuid() == 0 ? sandbox.processes : 0;
}

}  // namespace plumb
