// policy_model/transformer.h with tensor_table.h, weights.h, ops.h: against
// transformers' numbers, finite differences, and itself seen two ways.
#include "policy_model/transformer.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <tuple>

#include "common/base/error.h"
#include "common/base/rng.h"
#include "common/record/kept_tokens.h"
#include "policy_model/families/model_config.h"
#include "policy_model/families/tensor_table.h"
#include "policy_model/files/safetensors.h"
#include "policy_model/layers/ops.h"
#include "policy_model/packing.h"
#include "tests/testing/temp_folder.h"

namespace plumb::policy_model {
namespace {

using Json = nlohmann::json;

Json ReadGolden(const char* name) {
  std::ifstream file(std::string(PLUMB_SOURCE_DIR "/tests/golden/") + name);
  EXPECT_TRUE(file.good()) << name;
  return Json::parse(file);
}

ModelShape Shape(bool tied, bool bias, int64_t kv_heads = 2) {
  return {.family = bias ? "qwen2" : "llama",
          .layers = 2,
          .hidden = 32,
          .heads = 4,
          .kv_heads = kv_heads,
          .head_dim = 8,
          .ffn = 40,
          .vocab = 31,
          .max_positions = 96,
          .tied = tied,
          .attention_bias = bias,
          .eos_tokens = {2}};
}

PackedBatch RandomBatch(std::initializer_list<int> lengths, uint64_t seed, int32_t vocab = 31) {
  PackedBatch batch;
  RandomStream random(seed, 1);
  batch.Clear();
  for (int n : lengths) {
    std::vector<int32_t> tokens;
    for (int i = 0; i < n; ++i)
      tokens.push_back(static_cast<int32_t>(random.NextBelow(static_cast<uint32_t>(vocab))));
    const std::vector<uint8_t> mask(tokens.size(), 1);
    batch.Append(tokens, mask);
  }
  return batch;
}

TEST(TensorTableTest, SlicesAreAlignedDisjointAndComplete) {
  for (bool tied : {true, false}) {
    for (bool bias : {true, false}) {
      const TensorTable table(Shape(tied, bias));
      std::map<int64_t, int64_t> ranges;
      int64_t parameters = 0;
      for (const TensorEntry& e : table.entries()) {
        EXPECT_EQ(e.offset % 64, 0) << e.name;
        ranges[e.offset] = e.offset + e.elements;
        parameters += e.elements;
        int64_t row = 0;
        for (const TensorPart& part : e.parts) {
          EXPECT_EQ(part.row_begin, row) << part.file_tensor;
          row = part.row_end;
        }
        EXPECT_EQ(row, e.shape[0]) << e.name;
      }
      int64_t at = 0;
      for (const auto& [begin, end] : ranges) {
        EXPECT_GE(begin, at);
        at = end;
      }
      EXPECT_LE(at, table.flat_elements());
      EXPECT_EQ(parameters, table.parameters());
      EXPECT_EQ(tied, table.lm_head() == table.embedding());
    }
  }
}

TEST(WeightsTest, SaveAndLoadKeepEveryBit) {
  const testing::TempFolder folder;
  Weights a(Shape(false, true), Device::kCpu, DType::kFloat32);
  a.Initialise(5, 0.1);
  SaveModelDirectory(a, folder.path(), "");
  EXPECT_EQ(ReadModelConfig(folder.path()), a.shape());
  Weights b(ReadModelConfig(folder.path()), Device::kCpu, DType::kFloat32);
  EXPECT_NE(a.ComputeDigest(), b.ComputeDigest());
  b.Load(folder.path());
  EXPECT_EQ(a.ComputeDigest(), b.ComputeDigest());
  // A model of another shape refuses the file and names the tensor.
  ModelShape other = a.shape();
  other.ffn = 48;
  Weights c(other, Device::kCpu, DType::kFloat32);
  try {
    c.Load(folder.path());
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kCorruption);
    EXPECT_NE(std::string(e.what()).find("mlp"), std::string::npos) << e.what();
  }
  other = a.shape();
  other.layers = 1;  // tensors are left over
  EXPECT_THROW(Weights(other, Device::kCpu, DType::kFloat32).Load(folder.path()), Error);
  other.layers = 3;  // tensors are missing
  EXPECT_THROW(Weights(other, Device::kCpu, DType::kFloat32).Load(folder.path()), Error);
}

// Of a tied pair either name may be the one in the file; two that differ are two tensors, in a
// model that is then not tied.
TEST(WeightsTest, ATiedHeadIsReadUnderEitherName) {
  const testing::TempFolder folder, head_only, both;
  Weights tied(Shape(true, false), Device::kCpu, DType::kFloat32);
  tied.Initialise(5, 0.1);
  SaveModelDirectory(tied, folder.path(), "");
  const auto reader = SafetensorsReader::OpenDirectory(folder.path());
  const auto copy = [&](const std::string& to, bool embedding, float shift) {
    std::vector<TensorToWrite> tensors;
    const auto add = [&](const std::string& name, const TensorView& view, float plus) {
      tensors.push_back({name, view.dtype, view.shape, [&view, plus](std::span<std::byte> out) {
                           std::memcpy(out.data(), view.bytes.data(), out.size());
                           auto* values = reinterpret_cast<float*>(out.data());
                           for (size_t i = 0; i < out.size() / sizeof(float); ++i)
                             values[i] += plus;
                         }});
    };
    for (const auto& [name, view] : reader->tensors()) {
      const bool is_embedding = name == "model.embed_tokens.weight";
      if (!is_embedding || embedding) add(name, view, 0);
      if (is_embedding) add("lm_head.weight", view, shift);
    }
    WriteModelConfig(tied.shape(), to, "float32");
    WriteSafetensors(to + "/model.safetensors", tensors, {});
  };
  copy(head_only.path(), false, 0);
  Weights a(ReadModelConfig(head_only.path()), Device::kCpu, DType::kFloat32);
  a.Load(head_only.path());
  EXPECT_EQ(a.ComputeDigest(), tied.ComputeDigest());
  copy(both.path(), true, 0.5f);
  Weights b(ReadModelConfig(both.path()), Device::kCpu, DType::kFloat32);
  ASSERT_FALSE(b.shape().tied);
  b.Load(both.path());
  EXPECT_EQ(b.flat().f32()[b.table().lm_head()], b.flat().f32()[b.table().embedding()] + 0.5f);
}

// Whole model in fp32 against float64 of transformers: at most 4 times the reference's own fp32
// error.
TEST(TransformerTest, MatchesTransformersForwardAndBackward) {
  const Json golden = ReadGolden("transformer.json");
  const std::string folder = PLUMB_SOURCE_DIR "/tests/golden/tiny_llama";
  Weights weights(ReadModelConfig(folder), Device::kCpu, DType::kFloat32);
  weights.Load(folder);
  Transformer model(weights.shape(), Device::kCpu, DType::kFloat32);
  PackedBatch batch;
  batch.Clear();
  std::vector<float> g_logprob, g_entropy;
  for (size_t s = 0; s < golden["sequences"].size(); ++s) {
    const auto tokens = golden["sequences"][s].get<std::vector<int32_t>>();
    batch.Append(tokens, std::vector<uint8_t>(tokens.size(), 1));
    for (double w : golden["weights"][s]) g_logprob.push_back(static_cast<float>(w));
    for (double w : golden["entropy_weights"][s]) g_entropy.push_back(static_cast<float>(w));
  }
  std::vector<float> logprob(batch.rows.size()), entropy(batch.rows.size());
  model.Forward(weights, batch, {.temperature = golden["temperature"].get<float>()}, true, logprob,
                entropy);
  ASSERT_EQ(logprob.size(), golden["logprobs"].size());
  for (size_t i = 0; i < logprob.size(); ++i) {
    EXPECT_NEAR(logprob[i], golden["logprobs"][i].get<double>(),
                4 * golden["logprob_gap"].get<double>());
    EXPECT_NEAR(entropy[i], golden["entropies"][i].get<double>(),
                4 * golden["entropy_gap"].get<double>());
  }
  FlatBuffer grad(Device::kCpu, DType::kFloat32, weights.flat().elements());
  model.Backward(weights, batch, g_logprob, g_entropy, grad);
  int tensors = 0;
  for (const TensorEntry& e : weights.table().entries()) {
    for (const TensorPart& part : e.parts) {
      if (!golden["gradients"].contains(part.file_tensor)) continue;
      const Json& want = golden["gradients"][part.file_tensor];
      const int64_t row = e.elements / e.shape[0];
      const float* at = grad.f32() + e.offset + part.row_begin * row;
      double diff = 0;
      const auto stride = want["stride"].get<int64_t>();
      for (size_t k = 0; k < want["values"].size(); ++k) {
        diff += std::pow(static_cast<double>(at[static_cast<int64_t>(k) * stride]) -
                             want["values"][k].get<double>(),
                         2);
      }
      // A sample of the elements has at most the norm of all of them; inputs g_* were rounded to
      // float: eps times norm.
      EXPECT_LE(std::sqrt(diff),
                4 * want["gap"].get<double>() + 1.2e-7 * want["norm"].get<double>())
          << part.file_tensor;
      ++tensors;
    }
  }
  EXPECT_EQ(tensors, static_cast<int>(golden["gradients"].size()));
}

// A prompt with three answers and a sequence alone, the prompt laid once or with each answer.
PackedBatch AnswersToOnePrompt(bool shared) {
  RandomStream random(8, 1);
  const auto draw = [&](size_t n) {
    std::vector<int32_t> tokens;
    while (tokens.size() < n) tokens.push_back(static_cast<int32_t>(random.NextBelow(31)));
    return tokens;
  };
  const std::vector<int32_t> prompt = draw(19), alone = draw(7);
  PackedBatch batch;
  batch.Clear();
  batch.Append(alone, std::vector<uint8_t>(alone.size(), 1));
  if (shared) batch.AppendPrefix(std::span(prompt).first(18));
  for (const size_t length : {5, 1, 21}) {
    std::vector<int32_t> tokens = prompt;
    for (const int32_t token : draw(length)) tokens.push_back(token);
    std::vector<uint8_t> mask(tokens.size(), 0);
    std::fill(mask.begin() + 19, mask.end(), uint8_t{1});
    batch.Append(tokens, mask, shared ? 18 : 0);
  }
  return batch;
}

TEST(TransformerTest, APromptLaidOnceGivesTheSameNumbers) {
  for (const ModelShape& shape : {Shape(true, false), Shape(false, true), Shape(false, false, 4)}) {
    Weights weights(shape, Device::kCpu, DType::kFloat32);
    weights.Initialise(11, 0.15);
    Transformer model(shape, Device::kCpu, DType::kFloat32);
    std::vector<float> logprob[2], entropy[2];
    FlatBuffer grad[2] = {{Device::kCpu, DType::kFloat32, weights.flat().elements()},
                          {Device::kCpu, DType::kFloat32, weights.flat().elements()}};
    for (const bool shared : {false, true}) {
      const PackedBatch batch = AnswersToOnePrompt(shared);
      ASSERT_EQ(batch.size(), shared ? 7 + 18 + 6 + 2 + 22 : 7 + 24 + 20 + 40);
      const size_t rows = batch.rows.size();
      ASSERT_EQ(rows, 6u + 5 + 1 + 21);
      logprob[shared].resize(rows), entropy[shared].resize(rows);
      std::vector<float> g_logprob(rows), g_entropy(rows);
      RandomStream random(4, 4);
      for (float& g : g_logprob) g = random.NextNormal();
      for (float& g : g_entropy) g = 0.3f * random.NextNormal();
      model.Forward(weights, batch, {.temperature = 0.9f}, true, logprob[shared], entropy[shared]);
      model.Backward(weights, batch, g_logprob, g_entropy, grad[shared]);
    }
    // Products of another number of rows sum in another order: a few roundings of numbers near 4.
    for (size_t i = 0; i < logprob[0].size(); ++i) {
      EXPECT_NEAR(logprob[1][i], logprob[0][i], 1e-5);
      EXPECT_NEAR(entropy[1][i], entropy[0][i], 1e-5);
    }
    for (const TensorEntry& e : weights.table().entries()) {
      double diff = 0, norm = 0;
      for (int64_t i = e.offset; i < e.offset + e.elements; ++i) {
        diff += std::pow(
            static_cast<double>(grad[1].f32()[i]) - static_cast<double>(grad[0].f32()[i]), 2);
        norm += std::pow(static_cast<double>(grad[0].f32()[i]), 2);
      }
      EXPECT_GT(norm, 0) << e.name;
      EXPECT_LE(std::sqrt(diff), 1e-5 * std::sqrt(norm)) << e.name;
    }
  }
}

// For some of the batch's targets a set that holds it and every third other token.
std::vector<uint8_t> KeepSome(PackedBatch& batch, int64_t vocab) {
  std::vector<uint8_t> sets;
  std::vector<size_t> ends;
  for (size_t r = 0; r < batch.targets.size(); ++r) {
    std::vector<uint32_t> words(static_cast<size_t>((vocab + 31) / 32), 0);
    for (int64_t j = 0; j < vocab; ++j) {
      if (r % 4 == 0 || j == batch.targets[r] || (j + static_cast<int64_t>(r)) % 3 == 0)
        words[static_cast<size_t>(j / 32)] |= 1u << (j % 32);
    }
    AppendKeptTokens(words, vocab, sets);
    ends.push_back(sets.size());
  }
  for (size_t r = 0; r < ends.size(); ++r) {
    const size_t begin = r == 0 ? 0 : ends[r - 1];
    batch.kept[r] = std::span<const uint8_t>(sets).subspan(begin, ends[r] - begin);
  }
  batch.filtered = true;
  return sets;  // moved, not copied: the spans stay valid
}

// Log-probs and entropies over sets are those of the logits of the sets alone.
TEST(TransformerTest, FilteredTargetsAreScoredOverTheirSets) {
  const ModelShape shape = Shape(true, false);
  Weights weights(shape, Device::kCpu, DType::kFloat32);
  weights.Initialise(11, 0.15);
  Transformer model(shape, Device::kCpu, DType::kFloat32);
  PackedBatch batch = RandomBatch({13, 3, 21}, 2);
  const std::vector<uint8_t> sets = KeepSome(batch, shape.vocab);
  const size_t rows = batch.rows.size(), vocab = static_cast<size_t>(shape.vocab);
  std::vector<float> logprob(rows), entropy(rows), logits(rows * vocab);
  model.Logits(weights, batch, logits);
  model.Forward(weights, batch, {.temperature = 0.9f}, false, logprob, entropy);
  for (size_t r = 0; r < rows; ++r) {
    double sum = 0, weighted = 0;
    for (size_t j = 0; j < vocab; ++j) {
      if (!Keeps(batch.kept[r], static_cast<int32_t>(j))) continue;
      const double z = static_cast<double>(logits[r * vocab + j]) / 0.9;
      sum += std::exp(z), weighted += std::exp(z) * z;
    }
    const double z =
        static_cast<double>(logits[r * vocab + static_cast<size_t>(batch.targets[r])]) / 0.9;
    EXPECT_NEAR(logprob[r], z - std::log(sum), 1e-5) << r;
    EXPECT_NEAR(entropy[r], std::log(sum) - weighted / sum, 1e-5) << r;
  }
  batch.kept[1] =
      std::span<const uint8_t>(reinterpret_cast<const uint8_t*>("\x02\x40"), 2);  // token 64 of 31
  EXPECT_THROW(model.Forward(weights, batch, {}, false, logprob, entropy), Error);
}

// Backward against central differences of Forward along random directions: tied, untied, biases,
// one KV head, a prompt laid once; without and with sets of kept tokens.
TEST(TransformerTest, BackwardMatchesFiniteDifferences) {
  for (const auto& [shape, shared, filtered] :
       {std::tuple(Shape(true, false), false, true), std::tuple(Shape(false, true), true, false),
        std::tuple(Shape(true, true, 1), false, false),
        std::tuple(Shape(false, false, 4), true, true)}) {
    Weights weights(shape, Device::kCpu, DType::kFloat32);
    weights.Initialise(11, 0.15);
    Transformer model(shape, Device::kCpu, DType::kFloat32);
    PackedBatch batch = shared ? AnswersToOnePrompt(true) : RandomBatch({13, 3, 21}, 2);
    const std::vector<uint8_t> sets =
        filtered ? KeepSome(batch, shape.vocab) : std::vector<uint8_t>();
    const size_t rows = batch.rows.size();
    std::vector<float> logprob(rows), entropy(rows), g_logprob(rows), g_entropy(rows);
    RandomStream random(4, 4);
    for (size_t i = 0; i < rows; ++i) {
      g_logprob[i] = random.NextNormal();
      g_entropy[i] = 0.3f * random.NextNormal();
    }
    const auto value = [&] {
      model.Forward(weights, batch, {.temperature = 0.9f}, false, logprob, entropy);
      double sum = 0;
      for (size_t i = 0; i < rows; ++i) {
        sum += static_cast<double>(g_logprob[i]) * static_cast<double>(logprob[i]) +
               static_cast<double>(g_entropy[i]) * static_cast<double>(entropy[i]);
      }
      return sum;
    };
    FlatBuffer grad(Device::kCpu, DType::kFloat32, weights.flat().elements());
    model.Forward(weights, batch, {.temperature = 0.9f}, true, logprob, entropy);
    model.Backward(weights, batch, g_logprob, g_entropy, grad);
    for (const TensorEntry& e : weights.table().entries()) {
      // One direction a tensor, of the size of its gradient's: sum of direction * gradient is then
      // far from 0.
      std::vector<float> keep(weights.flat().f32() + e.offset,
                              weights.flat().f32() + e.offset + e.elements);
      double slope = 0, norm = 0;
      for (int64_t i = 0; i < e.elements; ++i)
        norm += std::pow(static_cast<double>(grad.f32()[e.offset + i]), 2);
      ASSERT_GT(norm, 0) << e.name;
      const double h = 3e-3 / std::sqrt(norm);
      double at[2];
      for (int side = 0; side < 2; ++side) {
        for (int64_t i = 0; i < e.elements; ++i) {
          const auto step =
              static_cast<float>((side ? -h : h) * static_cast<double>(grad.f32()[e.offset + i]));
          weights.flat().f32()[e.offset + i] = keep[static_cast<size_t>(i)] + step;
        }
        at[side] = value();
      }
      std::copy(keep.begin(), keep.end(), weights.flat().f32() + e.offset);
      slope = (at[0] - at[1]) / (2 * h);
      // fp32 values of about 100 summed numbers carry about 1e-5; the step moves the sum by 6e-3 *
      // sqrt(norm).
      EXPECT_NEAR(slope, norm, 0.01 * norm + 2e-5 / h) << e.name;
    }
  }
}

struct Paged {
  explicit Paged(const ModelShape& shape, int32_t page_tokens, int32_t slots)
      : pages_a_slot(static_cast<int32_t>((shape.max_positions + page_tokens - 1) / page_tokens)) {
    kv = {.dtype = DType::kFloat32,
          .layers = static_cast<int32_t>(shape.layers),
          .num_pages = slots * pages_a_slot,
          .page_tokens = page_tokens,
          .kv_heads = static_cast<int32_t>(shape.kv_heads),
          .head_dim = static_cast<int32_t>(shape.head_dim)};
    memory.assign(static_cast<size_t>(kv.bytes() / 4), NAN);  // what was not written is noticed
    kv.pages = memory.data();
    for (int32_t p = 0; p < kv.num_pages; ++p) table.push_back(kv.num_pages - 1 - p);
  }
  int32_t pages_a_slot;
  kernels::PagedKv kv;
  std::vector<float> memory;
  std::vector<int32_t> table;
};

// One forward of the given (slot, position, token) rows; logits of every row.
std::vector<float> PagedLogits(Transformer& model, const Weights& weights, Paged& paged,
                               const std::vector<int32_t>& slot,
                               const std::vector<int32_t>& position,
                               const std::vector<int32_t>& tokens) {
  std::vector<int32_t> all(tokens.size());
  for (size_t i = 0; i < all.size(); ++i) all[i] = static_cast<int32_t>(i);
  const kernels::PagedRows rows{.rows = static_cast<int32_t>(tokens.size()),
                                .slot = slot.data(),
                                .position = position.data(),
                                .page_table = paged.table.data(),
                                .page_table_stride = paged.pages_a_slot};
  const float* logits = model.ForwardPaged(weights, tokens, rows, paged.kv, all);
  return {logits, logits + tokens.size() * static_cast<size_t>(weights.shape().vocab)};
}

TEST(TransformerTest, PagedEqualsPackedAndDoesNotDependOnTheBatch) {
  const ModelShape shape = Shape(false, true);
  Weights weights(shape, Device::kCpu, DType::kFloat32);
  weights.Initialise(3, 0.2);
  Transformer model(shape, Device::kCpu, DType::kFloat32);
  RandomStream random(8, 8);
  std::vector<std::vector<int32_t>> sequences(32);
  for (auto& s : sequences) {
    const uint32_t n = 4 + random.NextBelow(40);
    for (uint32_t i = 0; i < n; ++i) s.push_back(static_cast<int32_t>(random.NextBelow(31)));
  }
  const auto v = static_cast<size_t>(shape.vocab);
  std::vector<std::vector<float>> alone;
  for (const auto& s : sequences) {  // token by token, one sequence at a time
    Paged paged(shape, 16, 1);
    std::vector<float> logits;
    for (size_t i = 0; i < s.size(); ++i) {
      const auto row = PagedLogits(model, weights, paged, {0}, {static_cast<int32_t>(i)}, {s[i]});
      logits.insert(logits.end(), row.begin(), row.end());
    }
    PackedBatch batch;
    batch.Clear();
    batch.Append(s, std::vector<uint8_t>(s.size(), 1));
    std::vector<float> packed(batch.rows.size() * v);
    model.Logits(weights, batch, packed);
    double worst = 0;
    for (size_t i = 0; i < packed.size(); ++i)
      worst = std::max(worst, std::abs(static_cast<double>(packed[i] - logits[i])));
    EXPECT_LT(worst, 1e-4);  // other products, other order of additions
    alone.push_back(std::move(logits));
  }
  for (size_t batch_size : {2, 3, 5, 32}) {
    Paged paged(shape, 16, static_cast<int32_t>(batch_size));
    // Prefill of a ragged half in one call, then step by step together: bit for bit as alone.
    std::vector<int32_t> slot, position, tokens;
    for (size_t b = 0; b < batch_size; ++b) {
      for (size_t i = 0; i < sequences[b].size() / 2; ++i) {
        slot.push_back(static_cast<int32_t>(b));
        position.push_back(static_cast<int32_t>(i));
        tokens.push_back(sequences[b][i]);
      }
    }
    for (size_t step = 0; !tokens.empty(); ++step) {
      const auto logits = PagedLogits(model, weights, paged, slot, position, tokens);
      for (size_t r = 0; r < tokens.size(); ++r) {
        const auto& want = alone[static_cast<size_t>(slot[r])];
        ASSERT_EQ(
            0, std::memcmp(logits.data() + r * v,
                           want.data() + static_cast<size_t>(position[r]) * v, v * sizeof(float)))
            << "batch " << batch_size << " slot " << slot[r] << " position " << position[r];
      }
      slot.clear();
      position.clear();
      tokens.clear();
      for (size_t b = 0; b < batch_size; ++b) {
        const size_t i = sequences[b].size() / 2 + step;
        if (i >= sequences[b].size()) continue;
        slot.push_back(static_cast<int32_t>(b));
        position.push_back(static_cast<int32_t>(i));
        tokens.push_back(sequences[b][i]);
      }
    }
  }
}

// A head padded with rows that are no token is the head without them: log-probs, entropies and
// gradients; such a row gets none.
TEST(TransformerTest, RowsWithoutATokenAreNotThere) {
  const ModelShape plain = Shape(false, false);
  ModelShape padded = plain;
  padded.vocab = 40;
  // The plain model's token 30 has the number 34 here: rows without a token lie in the middle, too.
  padded.unused_tokens = {30, 31, 32, 33, 35, 36, 37, 38, 39};
  Weights a(plain, Device::kCpu, DType::kFloat32), b(padded, Device::kCpu, DType::kFloat32);
  a.Initialise(11, 0.15);
  b.Initialise(12, 2.0);  // rows that would be likely
  for (const TensorEntry& from : a.table().entries()) {
    const auto to = std::find_if(b.table().entries().begin(), b.table().entries().end(),
                                 [&](const TensorEntry& e) { return e.name == from.name; });
    const bool by_token = from.name == "embedding" || from.name == "lm_head";
    const int64_t rows = by_token ? 30 : from.shape[0], width = from.elements / from.shape[0];
    std::copy_n(a.flat().f32() + from.offset, rows * width, b.flat().f32() + to->offset);
    if (by_token)
      std::copy_n(a.flat().f32() + from.offset + 30 * width, width,
                  b.flat().f32() + to->offset + 34 * width);
  }
  PackedBatch batch = RandomBatch({13, 3, 21}, 2), renamed = batch;
  for (auto* list : {&renamed.tokens, &renamed.targets})
    std::replace(list->begin(), list->end(), 30, 34);
  const size_t rows = batch.rows.size();
  std::vector<float> logprob[2], entropy[2], g(rows, 0.7f), h(rows, 0.2f);
  FlatBuffer grad[2] = {{Device::kCpu, DType::kFloat32, a.flat().elements()},
                        {Device::kCpu, DType::kFloat32, b.flat().elements()}};
  for (const int i : {0, 1}) {
    logprob[i].resize(rows), entropy[i].resize(rows);
    Transformer model(i == 0 ? plain : padded, Device::kCpu, DType::kFloat32);
    model.Forward(i == 0 ? a : b, i == 0 ? batch : renamed, {.temperature = 0.9f}, true, logprob[i],
                  entropy[i]);
    model.Backward(i == 0 ? a : b, i == 0 ? batch : renamed, g, h, grad[i]);
  }
  for (size_t r = 0; r < rows; ++r) {
    EXPECT_NEAR(logprob[1][r], logprob[0][r], 1e-5);
    EXPECT_NEAR(entropy[1][r], entropy[0][r], 1e-5);
  }
  for (const int32_t id : padded.unused_tokens) {
    for (int64_t k = 0; k < 32; ++k)
      EXPECT_EQ(grad[1].f32()[b.table().lm_head() + id * 32 + k], 0.0f) << id;
  }
  for (int64_t k = 0; k < 32; ++k) {
    EXPECT_NEAR(grad[1].f32()[b.table().lm_head() + 34 * 32 + k],
                grad[0].f32()[a.table().lm_head() + 30 * 32 + k], 1e-5);
  }
  Transformer model(padded, Device::kCpu, DType::kFloat32);
  renamed.targets[3] = 31;
  EXPECT_THROW(model.Forward(b, renamed, {}, false, logprob[1], entropy[1]), Error);
}

TEST(TransformerTest, RefusesTokensAndPositionsOutsideTheModel) {
  const ModelShape shape = Shape(true, false);
  Weights weights(shape, Device::kCpu, DType::kFloat32);
  Transformer model(shape, Device::kCpu, DType::kFloat32);
  std::vector<float> out(4);
  PackedBatch batch;
  batch.Clear();
  batch.Append(std::vector<int32_t>{1, 31, 2, 3, 4}, std::vector<uint8_t>(5, 1));
  EXPECT_THROW(model.Forward(weights, batch, {.entropy = false}, false, out, {}), Error);
  PackedBatch longer = RandomBatch({97}, 1);
  std::vector<float> many(longer.rows.size());
  EXPECT_THROW(model.Forward(weights, longer, {.entropy = false}, false, many, {}), Error);
}

TEST(TransformerTest, BFloat16StaysNearFloat) {
  const ModelShape shape = Shape(true, false);
  Weights full(shape, Device::kCpu, DType::kFloat32), half(shape, Device::kCpu, DType::kBFloat16);
  full.Initialise(3, 0.1);
  half.Initialise(3, 0.1);
  Transformer a(shape, Device::kCpu, DType::kFloat32), b(shape, Device::kCpu, DType::kBFloat16);
  const PackedBatch batch = RandomBatch({30, 12}, 6);
  std::vector<float> lp(batch.rows.size()), lp16(batch.rows.size()), h(batch.rows.size()),
      h16(batch.rows.size());
  a.Forward(full, batch, {}, true, lp, h);
  b.Forward(half, batch, {}, true, lp16, h16);
  double mean = 0;
  for (size_t i = 0; i < lp.size(); ++i) mean += std::abs(static_cast<double>(lp[i] - lp16[i]));
  // bf16 keeps 8 bits; logits of size about 1 after two layers are good to a few times 2^-8.
  EXPECT_LT(mean / static_cast<double>(lp.size()), 0.03);
  const std::vector<float> g(lp.size(), 1.0f);
  FlatBuffer grad(Device::kCpu, DType::kFloat32, full.flat().elements()),
      grad16(Device::kCpu, DType::kFloat32, full.flat().elements());
  a.Backward(full, batch, g, {}, grad);
  b.Backward(half, batch, g, {}, grad16);
  double dot = 0, n1 = 0, n2 = 0;
  for (int64_t i = 0; i < grad.elements(); ++i) {
    const auto x = static_cast<double>(grad.f32()[i]), y = static_cast<double>(grad16.f32()[i]);
    dot += x * y;
    n1 += x * x;
    n2 += y * y;
  }
  EXPECT_GT(dot / std::sqrt(n1 * n2), 0.99);
}

}  // namespace
}  // namespace plumb::policy_model
