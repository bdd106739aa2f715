// The tiny models of tests/golden/families.json as folders, for the tests that load them.
//
// Thread safety: constants after the first call. Errors: a missing golden file fails the test.
#pragma once

#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "common/base/file.h"
#include "policy_model/files/safetensors.h"

namespace plumb::policy_model {

inline const nlohmann::json& FamiliesGolden() {
  static const nlohmann::json golden = [] {
    std::ifstream file(PLUMB_SOURCE_DIR "/tests/golden/families.json");
    EXPECT_TRUE(file.good());
    return nlohmann::json::parse(file);
  }();
  return golden;
}

inline std::vector<std::string> FamilyCases() {
  std::vector<std::string> names;
  for (const auto& [name, value] : FamiliesGolden()["families"].items()) names.push_back(name);
  return names;
}

// As `fill` of make_families_golden.py.
inline float FillValue(const std::string& name, int64_t i, double norm_base) {
  uint32_t seed = 2166136261u;
  for (const char c : name) seed = (seed ^ static_cast<uint8_t>(c)) * 16777619u;
  uint32_t u = seed + static_cast<uint32_t>(i) * 0x9E3779B9u;
  u ^= u >> 16;
  u *= 0x85EBCA6Bu;
  u ^= u >> 13;
  u *= 0xC2B2AE35u;
  u ^= u >> 16;
  const double value = (static_cast<double>(u >> 8) / 16777216.0 - 0.5) * 0.7;
  return static_cast<float>(name.find("norm") != std::string::npos ? value + norm_base : value);
}

// A tensor of the case `family`, under the name `as` in the file.
inline TensorToWrite FilledTensor(const std::string& family, const std::string& name,
                                  std::vector<int64_t> shape, const std::string& as) {
  // What norms are stored as distances from; those of gated delta nets never are.
  const bool hybrid = family.starts_with("qwen3_5") || family.starts_with("qwen3_next");
  const double base =
      family.starts_with("gemma") || (hybrid && name.find(".linear_attn.") == std::string::npos)
          ? 0.0
          : 1.0;
  return {.name = as,
          .dtype = DType::kFloat32,
          .shape = std::move(shape),
          .fill = [name, base](std::span<std::byte> to) {
            auto* out = reinterpret_cast<float*>(to.data());
            for (size_t i = 0; i < to.size() / 4; ++i)
              out[i] = FillValue(name, static_cast<int64_t>(i), base);
          }};
}

// The folder that transformers would have written.
inline void WriteFamilyFolder(const std::string& family, const std::string& folder) {
  const nlohmann::json& golden = FamiliesGolden()["families"][family];
  RealFileSystem().CreateDirectories(folder);
  RealFileSystem().WriteFileAtomic(folder + "/config.json", golden["config"].dump());
  std::vector<TensorToWrite> tensors;
  for (const auto& [name, dims] : golden["shapes"].items())
    tensors.push_back(FilledTensor(family, name, dims.get<std::vector<int64_t>>(), name));
  WriteSafetensors(folder + "/model.safetensors", tensors, {});
}

// Mixtures of experts: adapters of other systems take the names of their feed-forward parts for
// those of experts.
inline bool HasExperts(const std::string& family) {
  for (const auto& [name, dims] : FamiliesGolden()["families"][family]["shapes"].items()) {
    if (name.find(".experts.") != std::string::npos) return true;
  }
  return false;
}

// Tokens of the longest sequence as ReadModelConfig wants to know it: the reference saw each
// sequence by itself, and either both are beyond longrope's original length or neither is.
inline int64_t LongestOf(const std::string& family) { return family.ends_with("_beyond") ? 23 : 0; }

}  // namespace plumb::policy_model
