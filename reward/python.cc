#include "reward/python.h"

#include <filesystem>

#include "reward/file_digest.h"
#include "reward/subprocess.h"

namespace plumb::reward {

std::unique_ptr<RewardFunction> MakePython(const configs::RewardPartConfig& part, bool allow_unsandboxed,
                                           HostOptions options) {
  const std::string place = "reward part '" + part.name + "'";
  std::string function, style = "auto", interpreter = "python3";
  for (const std::string& argument : part.args) {
    const size_t equals = argument.find('=');
    const std::string key = argument.substr(0, equals);
    const std::string value = equals == std::string::npos ? "" : argument.substr(equals + 1);
    if (key == "function") {
      function = value;
    } else if (key == "style" && (value == "auto" || value == "trl" || value == "verl" || value == "openrlhf")) {
      style = value;
    } else if (key == "python") {
      interpreter = value;
    } else {
      throw Error(ErrorCode::kInvalidArgument, "args has '" + argument +
                  "'; it takes function=NAME, style=auto|trl|verl|openrlhf, python=INTERPRETER", place);
    }
  }
  std::error_code error;
  const std::filesystem::path file = std::filesystem::canonical(part.path, error);
  if (error) throw Error(ErrorCode::kNotFound, "no such Python file: '" + part.path + "'", place);
  ProgramSpec spec;
  spec.path = FindExecutable(interpreter, part);
  spec.args = {"-u", "-c", kPythonRunner, file.string(), style, function};
  spec.digest = "sha256:" + TextSha256(FileSha256(file.string()) + "\n" + style + "\n" + function);
  spec.greets = true;
  options.sandbox.visible.push_back(file.parent_path().string());  // its neighbours, which it may import
  return MakeProgramFrom(spec, part, allow_unsandboxed, std::move(options));
}

}  // namespace plumb::reward
