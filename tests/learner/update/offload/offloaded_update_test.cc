// An optimizer whose masters and moments lie in the host's memory
// (learner/update/offload/offloaded_update.h): the bits of one whose state lies on the device, in
// every form of it, through checkpoints and ranks that keep a part each.
#include "learner/update/offload/offloaded_update.h"

#include <gtest/gtest.h>

#include <chrono>
#include <cstdio>

#include "common/base/error.h"
#include "kernels/device/device_memory.h"
#include "learner/update/checkpoint_copy.h"
#include "learner/update/optimizer_file.h"
#include "tests/learner/rank_threads.h"
#include "tests/learner/tiny_learner.h"
#include "tests/testing/temp_folder.h"

namespace plumb::learner {
namespace {

using configs::Gradients;
using configs::Masters;
using configs::Moments;
using plumb::testing::TempFolder;
using policy_model::FlatBuffer;
using policy_model::Weights;

struct Form {
  DType dtype = DType::kBFloat16;
  Masters masters = Masters::kFloat32;
  Moments moments = Moments::kFloat32;
  Gradients gradients = Gradients::kFloat32;
};
const std::vector<Form> kForms = {
    {},
    {.dtype = DType::kFloat32},
    {.moments = Moments::kInt8},
    {.masters = Masters::kNone},
    {.masters = Masters::kNone, .moments = Moments::kInt8},
    {.dtype = DType::kFloat32, .moments = Moments::kInt8},
    {.gradients = Gradients::kBFloat16},
    {.masters = Masters::kNone, .moments = Moments::kInt8, .gradients = Gradients::kBFloat16}};

policy_model::ModelShape Shape(int64_t hidden = 96, int64_t ffn = 48) {
  policy_model::ModelShape shape = TinyShape();
  shape.hidden = hidden;
  shape.ffn = ffn;
  return shape;
}

std::vector<std::byte> Bytes(const FlatBuffer& flat) {
  std::vector<std::byte> out(flat.bytes());
  flat.CopyToHost(out);
  return out;
}

// A model of several pieces, its optimizer, and gradients of a step of that number.
struct Trained {
  Weights weights;
  Optimizer optimizer;

  Trained(const Stream& stream, const Form& form, bool offload, uint64_t seed = 1,
          const policy_model::ModelShape& shape = Shape())
      : weights(shape, stream, form.dtype),
        optimizer(Drawn(weights, seed), Options(form, offload), {.seed = 3}) {}
  static configs::OptimizerConfig Options(const Form& form, bool offload) {
    return {.weight_decay = 0.1,
            .masters = form.masters,
            .moments = form.moments,
            .gradients = form.gradients,
            .offload = offload};
  }
  static Weights& Drawn(Weights& weights, uint64_t seed) {
    weights.Initialise(seed, 0.2);
    return weights;
  }
  Optimizer::SetState& state() { return optimizer.sets().front(); }
  void Step(uint64_t number) {
    FlatBuffer& grad = optimizer.grad();
    std::vector<float> values(static_cast<size_t>(grad.elements()));
    for (const auto& entry : weights.table().entries()) {  // padding has none
      for (int64_t i = 0; i < entry.elements; ++i)
        values[static_cast<size_t>(entry.offset + i)] =
            1e-5f * static_cast<float>((i * 7919 + static_cast<int64_t>(number) * 104'729) % 2003) -
            1e-2f;
    }
    std::vector<std::byte> drawn(grad.bytes());
    policy_model::ConvertFloat(values, grad.dtype(), drawn.data());
    grad.CopyFromHost(drawn);
    EXPECT_TRUE(optimizer.Update(1e-2, 1.0).applied);
  }
  std::vector<std::vector<std::byte>> State() {
    std::vector<std::vector<std::byte>> out = {Bytes(weights.flat()), Bytes(state().own_master)};
    for (FlatBuffer* each : state().moments()) out.push_back(Bytes(*each));
    return out;
  }
};

void KeepTheBits(const Stream& stream) {
  for (const Form& form : kForms) {
    Trained there(stream, form, false), host(stream, form, true);
    for (uint64_t step = 1; step <= 3; ++step) {
      there.Step(step);
      host.Step(step);
    }
    EXPECT_TRUE(host.State() == there.State())
        << static_cast<int>(form.dtype) << static_cast<int>(form.masters)
        << static_cast<int>(form.moments) << static_cast<int>(form.gradients);
    EXPECT_TRUE(host.State().front() != Trained(stream, form, true).State().front());
    for (FlatBuffer* each : host.state().moments()) EXPECT_TRUE(each->in_host_memory());
    if (host.state().masters) {
      EXPECT_TRUE(host.state().own_master.in_host_memory());
    }
    EXPECT_FALSE(there.state().moments().front()->in_host_memory());
  }
}

// Saved by one and read by the other, in both ways; a copy that is written in the background.
void GoOnFromFiles(const Stream& stream) {
  for (const Form& form : kForms) {
    const TempFolder folder;
    for (const bool offload : {true, false}) {
      Trained saved(stream, form, offload), read(stream, form, !offload, /*seed=*/2);
      saved.Step(1);
      saved.Step(2);
      read.Step(7);
      CheckpointCopy copy;
      copy.Take(saved.weights, saved.optimizer, /*masters=*/true, /*moments=*/true);
      SaveOptimizer(folder / "o", copy.sets(), nullptr, /*moments=*/true);
      read.weights.flat().CopyFromHost(Bytes(saved.weights.flat()));
      LoadOptimizer(folder / "o", read.optimizer, /*moments=*/true);
      read.optimizer.Restore(saved.optimizer.counters());
      read.optimizer.set_moment_steps(saved.optimizer.moment_steps());
      EXPECT_TRUE(read.State() == saved.State());
      EXPECT_EQ(MomentsDigest(read.optimizer), MomentsDigest(saved.optimizer));
      saved.Step(3);
      read.Step(3);
      EXPECT_TRUE(read.State() == saved.State());
      read.optimizer.ResetMoments();
      for (FlatBuffer* each : read.state().moments())
        EXPECT_EQ(Bytes(*each), std::vector<std::byte>(each->bytes()));
    }
  }
}

TEST(OffloadedUpdateTest, KeepsTheBits) { KeepTheBits(Device::kCpu); }
TEST(OffloadedUpdateTest, GoesOnFromFiles) { GoOnFromFiles(Device::kCpu); }

TEST(OffloadedUpdateCuda, KeepsTheBitsAndGoesOnFromFiles) {
  if (!kernels::CudaAvailable())
    GTEST_SKIP() << "NO GPU: state in the host's memory beside one was NOT tested here";
  const OwnedStream stream(Device::Cuda(0));
  KeepTheBits(stream);
  GoOnFromFiles(stream);
}

// What a device holds is less by the state, and what an update takes: printed.
TEST(OffloadedUpdateCuda, TakesLessOfTheDeviceAndItsTimeIsThatOfTheLink) {
  if (!kernels::CudaAvailable())
    GTEST_SKIP() << "NO GPU: the time of an offloaded update was NOT measured";
  const OwnedStream stream(Device::Cuda(0));
  for (const bool offload : {false, true}) {
    Trained trained(stream, {}, offload, 1, Shape(4096, 8192));
    const auto n = static_cast<double>(trained.weights.flat().elements());
    EXPECT_TRUE(trained.optimizer.Update(1e-2, 1.0).applied);
    stream.Synchronize();
    // Counted, not asked of the card, which others use as well.
    auto held = static_cast<double>(
        offload ? StateStream::RoomBytes(trained.state().kept_elements(), {.masters = true}) : 0);
    std::vector<const FlatBuffer*> all = {&trained.weights.flat(), &trained.state().grad,
                                          &trained.state().own_master};
    for (const FlatBuffer* each : trained.state().moments()) all.push_back(each);
    for (const FlatBuffer* each : all)
      held += each->in_host_memory() ? 0 : static_cast<double>(each->bytes());
    const auto begin = std::chrono::steady_clock::now();
    for (int i = 0; i < 5; ++i) EXPECT_TRUE(trained.optimizer.Update(1e-2, 1.0).applied);
    stream.Synchronize();
    const double seconds =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count() / 5;
    std::printf("%s: %.0f M parameters, %.1f bytes each on the device, %.2f ms an update%s",
                offload ? "in the host's memory" : "on the device", n / 1e6, held / n,
                1e3 * seconds, offload ? "" : "\n");
    if (offload) std::printf(", %.1f GB/s each way\n", 12 * n / seconds / 1e9);
    EXPECT_LT(held, (offload ? 7 : 18.5) * n) << "weights 2, gradients 4, and rooms";
    EXPECT_GT(held, (offload ? 6 : 17.5) * n);
  }
}

TEST(OffloadedUpdateTest, RanksThatKeepAPartEachKeepTheBits) {
  for (const int64_t zero : {0, 1}) {
    AsRanks(3, [&](Ranks* ranks) {
      std::vector<std::string> digests;
      std::vector<std::vector<float>> moments;
      for (const bool offload : {false, true}) {
        Weights weights(Shape(), Device::kCpu, DType::kBFloat16);
        weights.Initialise(3, 0.2);
        Optimizer optimizer(weights, {.offload = offload},
                            {.learning_rates = {{"layers.1", 0.5}}, .frozen = {"layers.0.mlp"}},
                            {.ranks = ranks, .zero = zero});
        auto& state = optimizer.sets().front();
        EXPECT_EQ(state.m.elements(), state.kept_elements());
        for (int step = 0; step < 3; ++step) {
          for (int64_t i = 0; i < optimizer.grad().elements(); ++i)
            optimizer.grad().f32()[i] =
                1e-4f * static_cast<float>((i * 7 + ranks->rank() + step) % 13 - 6);
          EXPECT_TRUE(optimizer.Update(1e-2, 1.0).applied);
        }
        digests.push_back(weights.ComputeDigest());
        auto& m = moments.emplace_back(static_cast<size_t>(state.grad.elements()));
        optimizer.ReadKept(state, state.m, 0, std::as_writable_bytes(std::span(m)));
      }
      EXPECT_EQ(digests[0], digests[1]);
      EXPECT_EQ(moments[0], moments[1]);
    });
  }
}

TEST(OffloadedUpdateTest, MuonIsRefused) {
  Weights weights(TinyShape(), Device::kCpu, DType::kFloat32);
  configs::OptimizerConfig options{.name = configs::OptimizerName::kMuon, .offload = true};
  try {
    const Optimizer optimizer(weights, options);
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kInvalidArgument);
    EXPECT_NE(std::string(e.what()).find("optimizer.offload"), std::string::npos);
    EXPECT_NE(std::string(e.what()).find("muon"), std::string::npos);
  }
}

}  // namespace
}  // namespace plumb::learner
