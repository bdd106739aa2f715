#include "reward/doors/python.h"

#include <filesystem>

#include <nlohmann/json.hpp>

#include "common/record/json_text.h"
#include "common/sandbox/host_command.h"
#include "reward/doors/subprocess.h"
#include "reward/part/file_digest.h"

namespace plumb::reward {

PythonOptions ReadPythonOptions(const configs::RewardPartConfig& part) {
  const std::string place = "reward part '" + part.name + "'";
  PythonOptions out;
  for (const std::string& argument : part.args) {
    const size_t equals = argument.find('=');
    const std::string key = argument.substr(0, equals);
    const std::string value = equals == std::string::npos ? "" : argument.substr(equals + 1);
    if (key == "function") {
      out.function = value;
    } else if (key == "style" &&
               (value == "auto" || value == "trl" || value == "verl" || value == "openrlhf")) {
      out.style = value;
    } else if (key == "completions" &&
               (value == "auto" || value == "text" || value == "messages")) {
      out.completions = value;
    } else if (key == "python") {
      out.interpreter = value;
    } else if (key == "kwargs") {
      out.constants = value;
      if (TooDeep(value, 64) || !nlohmann::json::accept(value) ||
          !nlohmann::json::parse(value).is_object()) {
        throw Error(ErrorCode::kInvalidArgument,
                    "kwargs= is no JSON object, like kwargs={\"max_words\": 50}: " + Shown(value),
                    place);
      }
    } else {
      throw Error(
          ErrorCode::kInvalidArgument,
          "args has '" + argument +
              "'; it takes function=NAME, style=auto|trl|verl|openrlhf, "
              "completions=auto|text|messages, python=INTERPRETER, kwargs={\"name\": value}",
          place);
    }
  }
  return out;
}

std::unique_ptr<RewardFunction> MakePython(const configs::RewardPartConfig& part,
                                           bool allow_unsandboxed, HostOptions options) {
  const std::string place = "reward part '" + part.name + "'";
  const auto [function, style, completions, interpreter, constants] = ReadPythonOptions(part);
  std::error_code error;
  const std::filesystem::path file = std::filesystem::canonical(part.path, error);
  if (error) throw Error(ErrorCode::kNotFound, "no such Python file: '" + part.path + "'", place);
  ProgramSpec spec;
  spec.path = FindExecutable(interpreter, place);
  spec.args = {"-u", "-c", kPythonRunner, file.string(), style, function, constants, completions};
  // Raised when what functions are given changes: a score may then be another one.
  constexpr const char* kRunnerVersion = "3";
  const std::string how = kRunnerVersion + style + "\n" + function +
                          (constants == "{}" ? "" : "\n" + constants) +
                          (completions == "auto" ? "" : "\ncompletions=" + completions);
  spec.digest = "sha256:" + TextSha256(FileSha256(file.string()) + "\n" + how);
  spec.greets = spec.tokens = true;
  // its neighbours, which it may import
  options.sandbox.visible.push_back(file.parent_path().string());
  const std::filesystem::path environment =
      std::filesystem::path(spec.path).parent_path().parent_path();
  if (std::filesystem::exists(environment / "pyvenv.cfg", error))
    options.sandbox.visible.push_back(environment.string());
  return MakeProgramFrom(spec, part, allow_unsandboxed, std::move(options));
}

}  // namespace plumb::reward
