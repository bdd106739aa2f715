// A student and a teacher of other sizes over one vocabulary, for the tests of distillation.
#pragma once

#include <fstream>
#include <string>
#include <vector>

#include "common/text/tokenizer/tokenizer.h"
#include "configs/config.h"
#include "learner/distill/teacher.h"
#include "tests/learner/tiny_learner.h"
#include "tests/testing/temp_folder.h"

namespace plumb::learner {

struct TeachingRig {
  static policy_model::ModelShape Shape(int64_t hidden, int64_t vocab) {
    policy_model::ModelShape shape = TinyShape();
    shape.hidden = hidden;
    shape.heads = hidden / shape.head_dim;
    shape.kv_heads = shape.heads / 2;
    shape.vocab = vocab;
    return shape;
  }
  static int64_t Vocab() { return Tokenizer::BuiltIn("arithmetic")->size(); }

  // A folder of a model with the built-in vocabulary "arithmetic", padded by so many rows.
  std::string Folder(const std::string& name, int64_t hidden, uint64_t seed, int64_t padded = 0,
                     double spread = 0.3) {
    const std::string folder = temp / name;
    policy_model::Weights weights(Shape(hidden, Vocab() + padded), Device::kCpu, DType::kFloat32);
    weights.Initialise(seed, spread);
    policy_model::SaveModelDirectory(weights, folder, "");
    std::ofstream(folder + "/tokenizer.json") << Tokenizer::BuiltIn("arithmetic")->json();
    return folder;
  }

  explicit TeachingRig(int64_t micro_batch_tokens = 64, Ranks* ranks = nullptr)
      : train(transformer, micro_batch_tokens, ranks) {
    weights.Initialise(3, 0.3);
    config.model.vocabulary = configs::Vocabulary::kArithmetic;
    config.optimizer.micro_batch_tokens = micro_batch_tokens;
    config.optimizer.grad_clip = 0;
    data = RandomDemonstrations(5, 21);
    for (const Demonstration& d : data) views.push_back({d.tokens, d.loss_mask});
  }

  plumb::testing::TempFolder temp;
  configs::Config config;
  policy_model::Weights weights{Shape(32, Vocab()), Device::kCpu, DType::kFloat32};
  policy_model::Transformer transformer{Shape(32, Vocab()), Device::kCpu, DType::kFloat32};
  TrainStep train;
  std::vector<Demonstration> data;
  std::vector<SequenceView> views;
};

}  // namespace plumb::learner
