#include "environment/doors/python_environment.h"

#include <nlohmann/json.hpp>

#include "common/base/error.h"
#include "common/record/json_text.h"

namespace plumb::environment {

PythonEnvironment ReadPythonEnvironment(const configs::EnvironmentConfig& config) {
  PythonEnvironment out;
  for (const std::string& argument : config.args) {
    const size_t equals = argument.find('=');
    const std::string key = argument.substr(0, equals);
    const std::string value = equals == std::string::npos ? "" : argument.substr(equals + 1);
    if (key == "python" && !value.empty()) {
      out.interpreter = value;
    } else if (key == "kwargs") {
      out.constants = value;
      if (TooDeep(value, 64) || !nlohmann::json::accept(value) ||
          !nlohmann::json::parse(value).is_object()) {
        throw Error(ErrorCode::kInvalidArgument,
                    "kwargs= is no JSON object, like kwargs={\"level\": 3}: " + Shown(value),
                    "environment.args");
      }
    } else {
      throw Error(
          ErrorCode::kInvalidArgument,
          "has '" + argument +
              "'; of a Python file it takes python=INTERPRETER and kwargs={\"name\": value}",
          "environment.args");
    }
  }
  return out;
}

std::vector<std::string> PythonArguments(const PythonEnvironment& python,
                                         const configs::EnvironmentConfig& config,
                                         const std::string& file) {
  return {"-u",
          "-c",
          kEnvironmentRunner,
          file,
          config.name,
          nlohmann::json(config.tools).dump(),
          python.constants};
}

}  // namespace plumb::environment
