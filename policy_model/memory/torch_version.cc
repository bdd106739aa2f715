#include "policy_model/memory/torch_version.h"

#include <ATen/Version.h>
#include <torch/csrc/api/include/torch/version.h>

namespace plumb::policy_model {

std::string BuildSetting(std::string_view settings, std::string_view name) {
  const std::string key = " " + std::string(name) + "=";
  const size_t at = settings.find(key);
  if (at == std::string_view::npos) return "";
  const std::string_view rest = settings.substr(at + key.size());
  return std::string(rest.substr(0, rest.find_first_of(",\n")));
}

std::string TorchVersion() {
  const std::string settings = at::show_config();
  std::string version = BuildSetting(settings, "TORCH_VERSION");
  if (version.empty()) version = TorchVersionOfHeaders();  // one that was built without saying it
  const std::string cuda = BuildSetting(settings, "CUDA_VERSION");
  return cuda.empty() ? version : version + ", CUDA " + cuda;
}

std::string TorchVersionOfHeaders() { return TORCH_VERSION; }

}  // namespace plumb::policy_model
