// A tiny random model folder with the built-in vocabulary, for tests of what uses a model.
#pragma once

#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <vector>

#include "common/base/file.h"
#include "common/text/tokenizer/tokenizer.h"
#include "policy_model/memory/weights.h"
#include "policy_model/transformer.h"

namespace plumb::run::testing {

struct ToyModel {
  int64_t max_positions = 64;
  uint64_t seed = 5;
  // Messages behind <bos>, each with a "=" behind it, answers with <eos>.
  bool chat_template = false;
  bool end_token = true;
};

inline constexpr char kToyTemplate[] =
    "<bos>{% for m in messages %}{% if m.role == 'assistant' %}{{ m.content }}<eos>"
    "{% else %}{{ m.content }}={% endif %}{% endfor %}";

inline void WriteFile(const std::string& path, const std::string& text) {
  RealFileSystem().WriteFileAtomic(path, text);
}

inline policy_model::ModelShape ToyShape(const ToyModel& toy = {}) {
  const auto tokenizer = Tokenizer::BuiltIn("arithmetic");
  policy_model::ModelShape shape{.layers = 2,
                                 .hidden = 32,
                                 .heads = 4,
                                 .kv_heads = 2,
                                 .head_dim = 8,
                                 .ffn = 64,
                                 .vocab = tokenizer->size(),
                                 .max_positions = toy.max_positions};
  shape.bos_token = tokenizer->Find("<bos>");
  if (toy.end_token) shape.eos_tokens = {tokenizer->Find("<eos>")};
  return shape;
}

inline policy_model::Weights ToyWeights(const ToyModel& toy = {}) {
  policy_model::SetThreads(1);
  policy_model::Weights weights(ToyShape(toy), Device::kCpu, DType::kFloat32);
  weights.Initialise(toy.seed, 0.3);
  return weights;
}

// A folder with the tokenizer's files, from which models get theirs.
inline void WriteToyTokenizer(const std::string& folder) {
  RealFileSystem().CreateDirectories(folder);
  WriteFile(folder + "/tokenizer.json", Tokenizer::BuiltIn("arithmetic")->json());
}

inline void WriteToyModel(const std::string& folder, const ToyModel& toy = {}) {
  WriteToyTokenizer(folder + ".tokenizer");
  policy_model::SaveModelDirectory(ToyWeights(toy), folder, folder + ".tokenizer");
  if (toy.chat_template) WriteFile(folder + "/chat_template.jinja", kToyTemplate);
}

inline std::vector<nlohmann::json> JsonLines(const std::string& text) {
  std::vector<nlohmann::json> out;
  std::istringstream in(text);
  for (std::string line; std::getline(in, line);) out.push_back(nlohmann::json::parse(line));
  return out;
}

}  // namespace plumb::run::testing
