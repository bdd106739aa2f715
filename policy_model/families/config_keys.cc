#include "policy_model/families/config_keys.h"

#include "common/base/error.h"

namespace plumb::policy_model {

void ConfigKeys::Fail(const std::string& what) const {
  throw Error(ErrorCode::kCorruption, what, path_);
}
void ConfigKeys::Unsupported(const std::string& what) const {
  throw Error(ErrorCode::kUnsupported, what, path_);
}

int64_t ConfigKeys::Int(const char* key) const {
  if (!Has(key)) Fail(std::string("has no '") + key + "'");
  if (!At(key).is_number_integer()) Fail(std::string("'") + key + "' is not a whole number");
  return At(key).get<int64_t>();
}

double ConfigKeys::Number(const char* key, double otherwise) const {
  if (!Has(key)) return otherwise;
  if (!At(key).is_number()) Fail(std::string("'") + key + "' is not a number");
  return At(key).get<double>();
}

bool ConfigKeys::Bool(const char* key, bool otherwise) const {
  if (!Has(key)) return otherwise;
  if (!At(key).is_boolean()) Fail(std::string("'") + key + "' is not true or false");
  return At(key).get<bool>();
}

std::string ConfigKeys::Text(const char* key, const std::string& otherwise) const {
  if (!Has(key)) return otherwise;
  if (!At(key).is_string()) Fail(std::string("'") + key + "' is not a text");
  return At(key).get<std::string>();
}

}  // namespace plumb::policy_model
