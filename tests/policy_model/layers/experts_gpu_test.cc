// Experts on a GPU (policy_model/layers/experts_gpu.cc) against the CPU, beyond what
// families_cuda_test.cc compares: the router's losses, capacities, loads, told experts and
// adapters.
//
// Tolerance: float32 sums in another order, as in families_cuda_test.cc.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <optional>
#include <utility>

#include "common/base/error.h"
#include "common/base/rng.h"
#include "policy_model/families/adapter_table.h"
#include "policy_model/families/experts/exact_floats.h"
#include "policy_model/layers/experts_stage.h"
#include "policy_model/transformer.h"

namespace plumb::policy_model {
namespace {

constexpr int32_t kVocab = 31;
constexpr double kTolerance = 1e-4;
// Of bfloat16: roundings of three layers, in sums that cancel.
constexpr double kRough = 0.1;

ModelShape Shape(const ExpertsShape& experts) {
  return {.family = "plumb",
          .layers = 3,
          .hidden = 32,
          .heads = 4,
          .kv_heads = 2,
          .head_dim = 8,
          .ffn = 40,
          .vocab = kVocab,
          .max_positions = 256,
          .tied = true,
          .experts = experts,
          .eos_tokens = {2}};
}

std::vector<std::pair<std::string, ExpertsShape>> Kinds() {
  const ExpertsShape plain = {.count = 6, .widths = {24}, .per_token = 2};
  ExpertsShape sigmoid = plain, shared = plain, gated = plain, uneven = plain;
  sigmoid.sigmoid = true;
  sigmoid.bias = true;
  sigmoid.groups = 3;
  sigmoid.groups_per_token = 2;
  sigmoid.temperature = 1.5;
  shared.shared_ffn = 20;
  shared.dense = {1, 0, 0};
  gated.shared_ffn = 20;
  gated.shared_gate = true;
  uneven.widths = {24, 9, 17, 24, 1, 16};
  return {{"plain", plain},
          {"sigmoid", sigmoid},
          {"shared", shared},
          {"gated", gated},
          {"uneven", uneven}};
}

PackedBatch Batch() {
  PackedBatch batch;
  batch.Clear();
  uint64_t seed = 3;
  for (const int n : {13, 3, 121}) {
    RandomStream random(seed++, 1);
    std::vector<int32_t> tokens;
    for (int i = 0; i < n; ++i) tokens.push_back(static_cast<int32_t>(random.NextBelow(kVocab)));
    batch.Append(tokens, std::vector<uint8_t>(tokens.size(), 1));
  }
  return batch;
}

struct Numbers {
  std::vector<float> logprob, grad, adapter_grad;
  std::vector<LayerLoad> load;
};

std::vector<float> ToHost(const FlatBuffer& buffer) {
  std::vector<float> out(static_cast<size_t>(buffer.elements()));
  buffer.CopyToHost(std::as_writable_bytes(std::span<float>(out)));
  return out;
}

void Fill(FlatBuffer& flat, std::span<const float> values) {
  flat.CopyFromHost(std::as_bytes(values));
}

// Gradients of experts' matrices are to be written: nothing is there before, not even zeros.
class WrittenParts : public PassParts {
 public:
  WrittenParts(const Weights& weights, FlatBuffer& grad) : weights_(weights), grad_(grad) {
    std::vector<float> values(static_cast<size_t>(grad.elements()));
    for (const TensorEntry& e : weights.table().entries()) {
      if (!e.name.ends_with("experts_gate_up") && !e.name.ends_with("experts_down")) continue;
      left_[e.offset] = e.elements;
      std::fill_n(values.begin() + e.offset, e.elements, NAN);
    }
    Fill(grad, values);
  }
  void Begin(Way) override {}
  void Enter(Way, int64_t) override {}
  void Leave(Way, int64_t) override {}
  void End(Way) override {}
  const void* Weight(int64_t offset) const override { return weights_.flat().at(offset); }
  float* Gradient(int64_t offset) const override { return grad_.f32() + offset; }
  bool TakeEmpty(int64_t offset, int64_t elements) const override {
    const auto found = left_.find(offset);
    return found != left_.end() && std::exchange(found->second, -1) == elements;
  }
  bool all_taken() const {
    return std::all_of(left_.begin(), left_.end(), [](const auto& e) { return e.second < 0; });
  }

 private:
  const Weights& weights_;
  FlatBuffer& grad_;
  mutable std::map<int64_t, int64_t> left_;
};

enum class Told { kNobody, kSome, kAll };

Numbers RunModel(const ExpertsShape& experts, Device device, const RoutingOptions& routing,
                 Told told, bool adapted, bool recompute = false, DType dtype = DType::kFloat32,
                 bool written = false) {
  const OwnedStream stream(device);
  Weights weights(Shape(experts), stream, dtype);
  weights.Initialise(11, 0.25);
  RandomStream random(5, 5);
  if (dtype == DType::kFloat32) {
    std::vector<float> values = ToHost(weights.flat());
    for (const TensorEntry& e : weights.table().entries()) {
      if (!e.name.ends_with("router_bias")) continue;
      std::vector<float> bias(static_cast<size_t>(e.elements / kExactParts));
      for (float& b : bias) b = 0.3f * random.NextNormal();
      SplitExact(bias, std::span(values).subspan(static_cast<size_t>(e.offset),
                                                 static_cast<size_t>(e.elements)));
    }
    Fill(weights.flat(), values);
  }
  if (adapted) {
    AdapterSpec spec{.rank = 3, .alpha = 5};
    SetTargets({"q_proj", "experts.gate_up_proj", "experts.down_proj"}, spec);
    weights.AddAdapter(spec, 7);
    std::vector<float> own(static_cast<size_t>(weights.adapters()[0]->flat.elements()));
    for (float& x : own) x = 0.2f * random.NextNormal();
    Fill(weights.adapters()[0]->flat, own);
  }
  Transformer model(weights.shape(), stream, dtype);
  model.SetRouting(routing);
  model.SetRoutingPass(7);
  model.RecomputeLayers(recompute);
  PackedBatch batch = Batch();
  if (told != Told::kNobody) {
    const auto last = static_cast<int32_t>(experts.count - 1);
    int32_t layers = 0;
    for (int64_t l = 0; l < 3; ++l) layers += experts.of(l);
    for (int64_t i = 0; i < batch.size() * layers; ++i) {
      const int32_t first = told == Told::kSome && i % 3 == 0 ? -1 : static_cast<int32_t>(i % last);
      batch.experts.push_back(first);
      batch.experts.push_back(first < 0 ? 0 : last);
    }
  }
  Numbers out;
  out.logprob.resize(batch.rows.size());
  model.Forward(weights, batch, {.entropy = false}, true, out.logprob, {});
  std::vector<float> g;
  for (size_t i = 0; i < batch.rows.size(); ++i) g.push_back(random.NextNormal());
  FlatBuffer grad(stream, DType::kFloat32, weights.flat().elements());
  std::optional<WrittenParts> parts;
  if (written) model.SetParts(&weights.base(), &parts.emplace(weights, grad));
  if (adapted) {
    FlatBuffer own(stream, DType::kFloat32, weights.adapters()[0]->flat.elements());
    FlatBuffer* const owns[] = {&own};
    Gradients both(grad);
    both.adapters = owns;
    model.Backward(weights, batch, g, {}, both);
    out.adapter_grad = ToHost(own);
  } else {
    model.Backward(weights, batch, g, {}, grad);
  }
  if (parts) {
    EXPECT_TRUE(parts->all_taken());
    model.SetParts(nullptr, nullptr);
  }
  out.grad = ToHost(grad);
  out.load = model.TakeLoad();
  return out;
}

void ExpectNear(std::span<const float> a, std::span<const float> b, const std::string& what,
                double tolerance = kTolerance) {
  ASSERT_EQ(a.size(), b.size()) << what;
  double diff = 0, norm = 0;
  for (size_t i = 0; i < b.size(); ++i) {
    diff += std::pow(static_cast<double>(a[i]) - static_cast<double>(b[i]), 2);
    norm += std::pow(static_cast<double>(b[i]), 2);
  }
  EXPECT_LT(std::sqrt(diff), tolerance * std::sqrt(norm) + 1e-6) << what;
}

void ExpectSame(const Numbers& cuda, const Numbers& cpu, const ExpertsShape& experts,
                const std::string& what) {
  ExpectNear(cuda.logprob, cpu.logprob, what + ", log-probs");
  const TensorTable table(Shape(experts));
  for (const TensorEntry& e : table.entries()) {
    const auto at = static_cast<size_t>(e.offset), n = static_cast<size_t>(e.elements);
    ExpectNear(std::span(cuda.grad).subspan(at, n), std::span(cpu.grad).subspan(at, n),
               what + ", " + e.name);
  }
  ASSERT_EQ(cuda.load.size(), cpu.load.size());
  for (size_t i = 0; i < cpu.load.size(); ++i) {
    const LayerLoad &a = cuda.load[i], &b = cpu.load[i];
    EXPECT_EQ(a.layer, b.layer) << what;
    EXPECT_EQ(a.tokens, b.tokens) << what;
    EXPECT_EQ(a.rows, b.rows) << what;
    EXPECT_EQ(a.dropped, b.dropped) << what;
    EXPECT_EQ(a.given, b.given) << what;
    EXPECT_EQ(a.otherwise, b.otherwise) << what;
    EXPECT_NEAR(a.entropy, b.entropy, kTolerance * b.entropy) << what;
    EXPECT_NEAR(a.aux, b.aux, kTolerance * b.aux) << what;
    EXPECT_NEAR(a.z, b.z, kTolerance * b.z) << what;
  }
}

class ExpertsGpuTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!kernels::CudaAvailable()) GTEST_SKIP() << "NO GPU: experts were NOT run on CUDA here";
  }
};

TEST_F(ExpertsGpuTest, LossesCapacitiesAndToldExpertsAreTheCpus) {
  for (const auto& [kind, experts] : Kinds()) {
    for (const RoutingOptions& routing :
         {RoutingOptions{}, RoutingOptions{.aux_coef = 3, .z_coef = 0.5},
          RoutingOptions{.aux_coef = 1, .capacity = 0.8, .capacity_noise = 0.3, .seed = 3}}) {
      for (const Told told : {Told::kNobody, Told::kSome}) {
        const Numbers cpu = RunModel(experts, Device::kCpu, routing, told, false);
        ExpectSame(RunModel(experts, Device::Cuda(0), routing, told, false), cpu, experts,
                   kind + (told == Told::kSome ? " told" : "") + ", capacity " +
                       std::to_string(routing.capacity));
      }
    }
  }
}

TEST_F(ExpertsGpuTest, LayersThatAreComputedAgainAreTheSame) {
  for (const auto& [kind, experts] : Kinds()) {
    const Numbers kept = RunModel(experts, Device::Cuda(0), {.aux_coef = 1}, Told::kNobody, false),
                  again = RunModel(experts, Device::Cuda(0), {.aux_coef = 1}, Told::kNobody, false,
                                   true);
    ExpectSame(again, kept, experts, kind);
  }
}

// In bfloat16 and with as many rows an expert as the tensor cores' products take; experts are told,
// so that a rounding does not send a token elsewhere.
TEST_F(ExpertsGpuTest, GradientsInBfloat16AreTheCpusAddedOrWritten) {
  ExpertsShape plain = {.count = 4, .widths = {24}, .per_token = 2}, shared = plain,
               long_rows = plain;
  shared.shared_ffn = 20;
  shared.shared_gate = true;
  long_rows.widths = {136};
  for (const ExpertsShape& experts : {plain, shared, long_rows}) {
    const auto run = [&](Device device, bool written) {
      return RunModel(experts, device, {.aux_coef = 1, .z_coef = 0.1}, Told::kAll, false, false,
                      DType::kBFloat16, written);
    };
    const Numbers cpu = run(Device::kCpu, false), added = run(Device::Cuda(0), false),
                  written = run(Device::Cuda(0), true);
    ExpectNear(added.logprob, cpu.logprob, "log-probs", 0.02);
    const TensorTable table(Shape(experts));
    for (const TensorEntry& e : table.entries()) {
      const auto at = static_cast<size_t>(e.offset), n = static_cast<size_t>(e.elements);
      const std::span want = std::span(cpu.grad).subspan(at, n);
      ExpectNear(std::span(added.grad).subspan(at, n), want, e.name + " added", kRough);
      ExpectNear(std::span(written.grad).subspan(at, n), want, e.name + " written", kRough);
    }
    ASSERT_EQ(added.load.size(), cpu.load.size());
    for (size_t i = 0; i < cpu.load.size(); ++i) {
      EXPECT_EQ(added.load[i].tokens, cpu.load[i].tokens);
      EXPECT_EQ(added.load[i].rows, cpu.load[i].rows);
      EXPECT_EQ(added.load[i].given, cpu.load[i].given);
    }
  }
}

// The load of passes is added up until it is taken.
TEST_F(ExpertsGpuTest, LoadsOfSeveralPassesAreTakenAtOnce) {
  const ExpertsShape experts = Kinds()[0].second;
  std::vector<LayerLoad> loads[2];
  for (const Device device : {Device(Device::kCpu), Device::Cuda(0)}) {
    const OwnedStream stream(device);
    Weights weights(Shape(experts), stream, DType::kFloat32);
    weights.Initialise(11, 0.25);
    Transformer model(weights.shape(), stream, DType::kFloat32);
    const PackedBatch batch = Batch();
    std::vector<float> logprob(batch.rows.size());
    const auto pass = [&] { model.Forward(weights, batch, {.entropy = false}, true, logprob, {}); };
    pass();
    const std::vector<LayerLoad> one = model.TakeLoad();
    pass();
    pass();
    auto& both = loads[device.is_cpu() ? 0 : 1] = model.TakeLoad();
    ASSERT_EQ(one.size(), both.size());
    for (size_t i = 0; i < one.size(); ++i) {
      EXPECT_EQ(both[i].rows, 2 * one[i].rows);
      for (size_t e = 0; e < one[i].tokens.size(); ++e)
        EXPECT_EQ(both[i].tokens[e], 2 * one[i].tokens[e]);
      EXPECT_NEAR(both[i].entropy, 2 * one[i].entropy, 1e-9 * both[i].entropy);
      EXPECT_NEAR(both[i].aux, 2 * one[i].aux, 1e-9 * both[i].aux);
    }
    for (const LayerLoad& load : model.TakeLoad()) EXPECT_EQ(load.rows, 0) << "taken";
  }
  for (size_t i = 0; i < loads[0].size(); ++i) EXPECT_EQ(loads[0][i].tokens, loads[1][i].tokens);
}

TEST_F(ExpertsGpuTest, AdaptersOfAllExpertsAreTheCpus) {
  const ExpertsShape experts = Kinds()[0].second;
  const Numbers cpu = RunModel(experts, Device::kCpu, {}, Told::kNobody, true),
                cuda = RunModel(experts, Device::Cuda(0), {}, Told::kNobody, true);
  ExpectSame(cuda, cpu, experts, "adapted");
  ExpectNear(cuda.adapter_grad, cpu.adapter_grad, "the adapters' gradient");
  EXPECT_NE(std::count(cpu.adapter_grad.begin(), cpu.adapter_grad.end(), 0.0f),
            static_cast<int64_t>(cpu.adapter_grad.size()));
}

}  // namespace
}  // namespace plumb::policy_model
