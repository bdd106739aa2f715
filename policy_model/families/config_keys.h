// Typed look-ups in a config.json, with errors that name file and key.
//
// Ownership: keeps a reference to the JSON. Thread safety: const. Errors: kCorruption.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>

namespace plumb::policy_model {

using ConfigJson = nlohmann::ordered_json;

class ConfigKeys {
 public:
  ConfigKeys(const ConfigJson& json, std::string path) : json_(json), path_(std::move(path)) {}
  const std::string& path() const { return path_; }
  bool Has(const char* key) const { return json_.contains(key) && !json_.at(key).is_null(); }
  bool Mentions(const char* key) const { return json_.contains(key); }   // also as null
  const ConfigJson& At(const char* key) const { return json_.at(key); }  // REQUIRES: Has(key)
  int64_t Int(const char* key) const;                                    // has to be there
  int64_t Int(const char* key, int64_t otherwise) const { return Has(key) ? Int(key) : otherwise; }
  double Number(const char* key, double otherwise) const;
  bool Bool(const char* key, bool otherwise) const;
  std::string Text(const char* key, const std::string& otherwise) const;
  [[noreturn]] void Fail(const std::string& what) const;         // kCorruption
  [[noreturn]] void Unsupported(const std::string& what) const;  // kUnsupported

 private:
  const ConfigJson& json_;
  std::string path_;
};

}  // namespace plumb::policy_model
