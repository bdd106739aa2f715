// policy_model/layers/attention.h where it computes as generation does: packed rows are pages as
// they lie, and a row has the bits that it has in pages of any other size.
#include "policy_model/layers/attention.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>
#include <string>
#include <vector>

#include "common/base/rng.h"
#include "kernels/device/device_memory.h"
#include "kernels/products/row_product.h"
#include "policy_model/batch_indices.h"
#include "policy_model/memory/flat_buffer.h"
#include "policy_model/packing.h"

namespace plumb::policy_model {
namespace {

struct Scene {
  ModelShape shape;
  PackedBatch batch;
  SeenLists lists;
  std::vector<float> qkv;
  int32_t window = 0;
  int64_t width() const { return (shape.heads + 2 * shape.kv_heads) * shape.head_dim; }
  int64_t mixed() const { return batch.size() * shape.heads * shape.head_dim; }
  std::string Name() const {
    return std::to_string(shape.heads) + "/" + std::to_string(shape.kv_heads) + " heads of " +
           std::to_string(shape.head_dim) + ", window " + std::to_string(window) +
           (batch.shares() ? ", shared" : "");
  }
};

// Sequences around the edges of tiles and splits; with `shared` three answers go on from a prompt
// behind one that is alone.
Scene Drawn(int64_t heads, int64_t kv_heads, int64_t head_dim, int32_t window, bool shared) {
  Scene s;
  s.shape.heads = heads, s.shape.kv_heads = kv_heads, s.shape.head_dim = head_dim;
  s.window = window;
  RandomStream random(8, static_cast<uint64_t>(heads * 1000 + head_dim));
  const auto tokens = [&](size_t n) {
    std::vector<int32_t> drawn(n);
    for (int32_t& t : drawn) t = static_cast<int32_t>(random.NextBelow(50));
    return drawn;
  };
  const auto mask = [](size_t n) {
    std::vector<uint8_t> last(n, 0);
    last.back() = 1;
    return last;
  };
  s.batch.Clear();
  const auto alone = tokens(70), prompt = tokens(129);
  s.batch.Append(alone, mask(70));
  if (shared) s.batch.AppendPrefix(prompt);
  for (const size_t own : {2u, 64u, 1u + 130u}) {
    std::vector<int32_t> sequence = prompt;
    const auto more = tokens(own);
    sequence.insert(sequence.end(), more.begin(), more.end());
    s.batch.Append(sequence, mask(sequence.size()), shared ? 129 : 0);
  }
  s.batch.Append(std::vector<int32_t>{3}, std::vector<uint8_t>{0});
  s.qkv.resize(static_cast<size_t>(s.batch.size() * s.width()));
  for (float& x : s.qkv) x = random.NextNormal();
  s.lists.Fill(s.batch, Device::Cuda(0));  // as a GPU wants them, wherever it is computed
  return s;
}

std::vector<float> Floats(const FlatBuffer& x) {
  std::vector<std::byte> bytes(x.bytes());
  x.CopyToHost(bytes);
  std::vector<float> out(static_cast<size_t>(x.elements()));
  ConvertToFloat(bytes.data(), x.dtype(), out);
  return out;
}

FlatBuffer OnDevice(const Stream& stream, DType dtype, const std::vector<float>& values) {
  FlatBuffer out(stream, dtype, static_cast<int64_t>(values.size()));
  std::vector<std::byte> bytes(out.bytes());
  ConvertFloat(values, dtype, bytes.data());
  out.CopyFromHost(bytes);
  return out;
}

struct Mixed {
  std::vector<float> out, lse;
};

// What the packed rows give, by `how(launch, shape, qkv, out, lse)`.
template <class How>
Mixed Packed(const Scene& s, const Stream& stream, DType dtype, const How& how) {
  Staging staging(stream);
  const BatchIndices at = StageBatch(s.batch, s.batch.tokens, s.lists, {}, staging);
  AttentionShape shape = AttentionOf(s.shape, s.batch, at, s.lists);
  shape.scale = 1 / std::sqrt(static_cast<float>(s.shape.head_dim));
  shape.window = s.window;
  FlatBuffer qkv = OnDevice(stream, dtype, s.qkv), out(stream, dtype, s.mixed()),
             lse(stream, DType::kFloat32, s.shape.heads * s.batch.size());
  how(kernels::Launch{.stream = stream, .dtype = dtype}, shape, qkv.data(), out.data(), lse.f32());
  return {Floats(out), Floats(lse)};
}

// The same rows with their keys and values in pages of 16 tokens, in an order of their own.
std::vector<float> InPages(const Scene& s, const Stream& stream, DType dtype) {
  constexpr int32_t kPage = 16;
  const auto kv_width = static_cast<size_t>(s.shape.kv_heads * s.shape.head_dim);
  const auto head = static_cast<size_t>(s.shape.head_dim);
  const size_t queries = static_cast<size_t>(s.shape.heads) * head;
  const int32_t stride = (s.batch.max_seqlen + kPage - 1) / kPage,
                pages = s.batch.sequences() * stride;
  std::vector<int32_t> table(static_cast<size_t>(pages)), slot;
  for (size_t i = 0; i < table.size(); ++i) table[i] = pages - 1 - static_cast<int32_t>(i);
  std::vector<float> memory(static_cast<size_t>(pages) * 2 * kv_width * kPage, NAN);
  for (size_t b = 0; b + 1 < s.lists.cu_seen.size(); ++b) {
    for (int32_t i = s.lists.cu_seen[b]; i < s.lists.cu_seen[b + 1]; ++i) {
      const auto token = static_cast<size_t>(s.lists.seen[static_cast<size_t>(i)]);
      const auto p = static_cast<size_t>(i - s.lists.cu_seen[b]);
      const auto page = static_cast<size_t>(table[b * static_cast<size_t>(stride) + p / kPage]);
      for (size_t c = 0; c < 2 * kv_width; ++c) {
        // [K|V][kv head][slot in page][head_dim]
        memory[page * 2 * kv_width * kPage + (c / head * kPage + p % kPage) * head + c % head] =
            s.qkv[token * static_cast<size_t>(s.width()) + queries + c];
      }
    }
    slot.insert(slot.end(), static_cast<size_t>(s.batch.cu_seqlens[b + 1] - s.batch.cu_seqlens[b]),
                static_cast<int32_t>(b));
  }
  Staging staging(stream);
  staging.Begin();
  const int at_slot = staging.Add(slot), at_position = staging.Add(s.batch.positions),
            at_table = staging.Add(table);
  staging.Commit();
  const FlatBuffer qkv = OnDevice(stream, dtype, s.qkv);
  FlatBuffer kept = OnDevice(stream, dtype, memory), out(stream, dtype, s.mixed());
  kernels::Call(
      kernels::Launch{.stream = stream, .dtype = dtype},
      kernels::AttentionPaged{.q = qkv.data(),
                              .q_stride = s.width(),
                              .rows = {.rows = static_cast<int32_t>(s.batch.size()),
                                       .slot = staging.Ints(at_slot),
                                       .position = staging.Ints(at_position),
                                       .page_table = staging.Ints(at_table),
                                       .page_table_stride = stride},
                              .heads = static_cast<int32_t>(s.shape.heads),
                              .kv = {.pages = kept.data(),
                                     .dtype = dtype,
                                     .layers = 1,
                                     .num_pages = pages,
                                     .page_tokens = kPage,
                                     .kv_heads = static_cast<int32_t>(s.shape.kv_heads),
                                     .head_dim = static_cast<int32_t>(s.shape.head_dim)},
                              .scale = 1 / std::sqrt(static_cast<float>(s.shape.head_dim)),
                              .window = s.window,
                              .out = out.data()});
  return Floats(out);
}

void ExpectEqualBits(const std::vector<float>& a, const std::vector<float>& b,
                     const std::string& what) {
  ASSERT_EQ(a.size(), b.size()) << what;
  size_t other = 0;
  for (size_t i = 0; i < a.size(); ++i) other += std::memcmp(&a[i], &b[i], sizeof(float)) != 0;
  EXPECT_EQ(other, 0u) << what << ": of " << a.size();
}

void ExpectNear(const std::vector<float>& a, const std::vector<float>& b, double bound,
                const std::string& what) {
  ASSERT_EQ(a.size(), b.size()) << what;
  for (size_t i = 0; i < a.size(); ++i) ASSERT_NEAR(a[i], b[i], bound) << what << ", " << i;
}

void Paged(const kernels::Launch& launch, const AttentionShape& shape, const void* qkv, void* out,
           float* lse) {
  kernels::Call(launch, PackedAsPaged(launch, shape, qkv, out, lse));
}

std::vector<Scene> Scenes() {
  std::vector<Scene> all;
  for (const bool shared : {false, true}) {
    for (const int32_t window : {0, 100}) {
      all.push_back(Drawn(4, 2, 64, window, shared));
      all.push_back(Drawn(7, 1, 128, window, shared));
    }
  }
  return all;
}

TEST(PackedAttention, ReadsItsRowsAsPagesWithTheBitsOfAnyOtherPages) {
  for (const Scene& s : Scenes()) {
    for (const DType dtype : {DType::kFloat32, DType::kBFloat16}) {
      const Mixed own = Packed(s, Device::kCpu, dtype, AttentionForward),
                  paged = Packed(s, Device::kCpu, dtype, Paged);
      ExpectEqualBits(paged.out, InPages(s, Device::kCpu, dtype), s.Name());
      // Both round their sums, of values about 1, and in bfloat16 what comes of them.
      const double bound = dtype == DType::kFloat32 ? 2e-5 : 0.02;
      ExpectNear(paged.out, own.out, bound, s.Name());
      ExpectNear(paged.lse, own.lse, 2e-5, s.Name() + ", log-sum-exp");
    }
  }
}

TEST(PackedAttention, IsThatOfGenerationWhereItIsToBe) {
  const Scene s = Drawn(4, 2, 64, 0, true);
  AttentionShape shape{{.tokens = s.batch.size(), .heads = 4, .kv_heads = 2, .head_dim = 64}};
  shape.begins = s.lists.begins.data();
  shape.positions = s.batch.positions.data();
  const kernels::Launch cpu{.stream = Device::kCpu, .dtype = DType::kFloat32};
  EXPECT_FALSE(AttendsAsGenerated(cpu, shape)) << "the CPU's own is faster";
  kernels::SetExactOnCpu(true);
  EXPECT_TRUE(AttendsAsGenerated(cpu, shape));
  const Mixed as_generated = Packed(s, Device::kCpu, DType::kFloat32, AttentionForward);
  AttentionShape other = shape;
  other.global_every = 4;
  EXPECT_FALSE(AttendsAsGenerated(cpu, other));
  other = shape;
  other.begins = nullptr;
  EXPECT_FALSE(AttendsAsGenerated(cpu, other));
  kernels::SetExactOnCpu(false);
  ExpectEqualBits(as_generated.out, Packed(s, Device::kCpu, DType::kFloat32, Paged).out, s.Name());
}

class PackedAsGeneratedCuda : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!kernels::CudaAvailable())
      GTEST_SKIP() << "NO GPU: attention of a learner that computes as generation does was NOT "
                      "tested here (build with -DPLUMB_CUDA=ON on a machine with a GPU)";
    stream_ = OwnedStream(Device::Cuda(0));
  }
  void TearDown() override { kernels::SetExactProducts(true); }

  OwnedStream stream_{Device::kCpu};
};

TEST_F(PackedAsGeneratedCuda, ForwardHasTheBitsOfGenerationAndBackwardTakesItFromThere) {
  for (const Scene& s : Scenes()) {
    const std::string name = s.Name();
    bool generated = false;
    std::vector<float> gradient[2];
    Mixed mixed[2];
    for (const bool exact : {false, true}) {
      kernels::SetExactProducts(exact);
      mixed[exact] = Packed(
          s, stream_, DType::kBFloat16,
          [&](const kernels::Launch& launch, const AttentionShape& shape, const void* qkv,
              void* out, float* lse) {
            generated = AttendsAsGenerated(launch, shape);
            AttentionForward(launch, shape, qkv, out, lse);
            std::vector<float> d(static_cast<size_t>(s.mixed()));
            RandomStream random(4, 4);
            for (float& x : d) x = random.NextNormal();
            const FlatBuffer dout = OnDevice(stream_, DType::kBFloat16, d);
            FlatBuffer dqkv(stream_, DType::kBFloat16, s.batch.size() * s.width());
            AttentionBackward(launch, shape, dout.data(), qkv, out, lse, dqkv.data(), nullptr);
            gradient[exact] = Floats(dqkv);
          });
      EXPECT_EQ(generated, exact) << name;
    }
    ExpectEqualBits(mixed[1].out, InPages(s, stream_, DType::kBFloat16), name);
    const Mixed cpu = Packed(s, Device::kCpu, DType::kBFloat16, AttentionForward);
    ExpectNear(mixed[1].out, cpu.out, 0.04, name);
    ExpectNear(mixed[1].lse, cpu.lse, 4e-3, name + ", log-sum-exp");
    // Weights are rounded to bfloat16 before they are summed, in LibTorch's forward behind it.
    ExpectNear(mixed[1].lse, mixed[0].lse, 4e-3, name + ", log-sum-exp of LibTorch");
    double largest = 0;
    for (const float g : gradient[0]) largest = std::max(largest, std::abs(double{g}));
    EXPECT_GT(largest, 0.1);
    ExpectNear(gradient[1], gradient[0], 0.03 * largest, name + ", gradients");
  }
}

}  // namespace
}  // namespace plumb::policy_model
