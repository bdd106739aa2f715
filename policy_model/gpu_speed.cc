#include "policy_model/gpu_speed.h"

#include <algorithm>
#include <cmath>
#include <functional>

#include "common/base/error.h"
#include "kernels/device/device_memory.h"
#include "kernels/device/recorded_work.h"
#include "kernels/products/row_product.h"
#include "policy_model/layers/ops.h"
#include "policy_model/memory/flat_buffer.h"
#ifdef PLUMB_CUDA
#include "kernels/products/lt_products.h"
#include "kernels/products/product_timing.h"
#endif

namespace plumb::policy_model {

const std::vector<int64_t>& ComparedRows() {
  static const std::vector<int64_t> rows = {1, 17, 64, 152, 256, 512};
  return rows;
}

double ExactCostPercent(const GpuFigures& figures, int64_t rows) {
  double sum = 0;
  int count = 0;
  for (const ProductFigures& product : figures.products) {
    for (const ProductSpeed& speed : product.speeds) {
      if (speed.rows != rows || !(speed.default_us > 0)) continue;
      sum += std::log(speed.exact_us / speed.default_us);
      ++count;
    }
  }
  return count == 0 ? 0 : 100 * (std::exp(sum / count) - 1);
}

#ifdef PLUMB_CUDA
namespace {

using Clock = std::chrono::steady_clock;

struct Shape {
  const char* name;
  int64_t n, k;
};
// Those whose sums cuBLAS splits come first.
constexpr Shape kShapes[] = {
    {"0.5B down", 896, 4864},        {"1.5B down", 1536, 8960},   {"7B down", 3584, 18944},
    {"8B down", 4096, 12288},        {"7B o", 3584, 3584},        {"8B o", 4096, 4096},
    {"0.5B qkv", 1152, 896},         {"0.5B gate/up", 9728, 896}, {"1.5B gate/up", 17920, 1536},
    {"Qwen3-0.6B down", 1024, 3072}, {"135M down", 576, 1536},    {"7B gate/up", 37888, 3584}};
constexpr int64_t kTimedRows[] = {16, 64, 256, 1024};
constexpr int64_t kMostRows = 1024, kCopied = int64_t{512} << 20, kWeights = int64_t{160} << 20;
constexpr int kProducts = 16;  // in a record

class AsBefore {
 public:
  AsBefore() : exact_(kernels::ExactProducts()) {}
  ~AsBefore() { kernels::SetExactProducts(exact_); }

 private:
  const bool exact_;
};

// Seconds that `enqueue` keeps the stream busy, the best of three.
double Seconds(const Stream& stream, int times, const std::function<void()>& enqueue) {
  double best = INFINITY;
  for (int round = 0; round < 3; ++round) {
    stream.Synchronize();
    const auto begin = Clock::now();
    for (int i = 0; i < times; ++i) enqueue();
    stream.Synchronize();
    best = std::min(best, std::chrono::duration<double>(Clock::now() - begin).count());
  }
  return best / times;
}

FlatBuffer Drawn(const kernels::Launch& launch, int64_t count, uint32_t seed) {
  FlatBuffer out(launch.stream, launch.dtype, count);
  kernels::FillForTiming(launch, out.data(), count, seed);
  return out;
}

double CopySpeed(const Stream& stream) {
  FlatBuffer from(stream, DType::kBFloat16, kCopied / 2), to(stream, DType::kBFloat16, kCopied / 2);
  const double seconds = Seconds(stream, 10, [&] {
    kernels::Copy(stream, to.data(), from.data(), static_cast<size_t>(kCopied));
  });
  return 2 * static_cast<double>(kCopied) / seconds / 1e9;
}

double LargeProductSpeed(const kernels::Launch& launch) {
  constexpr int64_t kSide = 8192;
  FlatBuffer x = Drawn(launch, kSide * kSide, 1), w = Drawn(launch, kSide * kSide, 2),
             y(launch.stream, launch.dtype, kSide * kSide);
  kernels::SetExactProducts(false);
  const auto side = static_cast<double>(kSide);
  const double seconds = Seconds(launch.stream, 8, [&] {
    ops::Linear(launch, x.data(), w.data(), kSide, kSide, kSide, false, y.data());
  });
  return 2 * side * side * side / seconds / 1e12;
}

class ProductTimer {
 public:
  ProductTimer(const kernels::Launch& launch, const Shape& shape)
      : launch_(launch),
        shape_(shape),
        copies_(std::clamp<int64_t>(kWeights / (2 * shape.n * shape.k), 1, kProducts)),
        x_(Drawn(launch, kMostRows * shape.k, 1)),
        w_(Drawn(launch, copies_ * shape.n * shape.k, 2)),
        y_(launch.stream, launch.dtype, kMostRows * shape.n) {}

  std::vector<int64_t> Changes(bool exact) {
    kernels::SetExactProducts(exact);
    std::vector<std::byte> alone, row(static_cast<size_t>(2 * shape_.n));
    std::vector<int64_t> changes;
    for (const int64_t m : ComparedRows()) {
      Multiply(m, 0);
      y_.CopyToHost(row);
      if (alone.empty()) alone = row;
      else if (row != alone) changes.push_back(m);
    }
    return changes;
  }

  ProductSpeed Time(int64_t m) {
    ProductSpeed out{.rows = m};
    for (const bool exact : {false, true}) {
      kernels::SetExactProducts(exact);
      Multiply(m, 0);  // what is timed or taken once is not recorded
      const kernels::RecordedWork work(launch_.stream, [&] {
        for (int i = 0; i < kProducts; ++i) Multiply(m, i % copies_);
      });
      work.Replay();
      const double seconds = Seconds(launch_.stream, 6, [&] { work.Replay(); });
      (exact ? out.exact_us : out.default_us) = 1e6 * seconds / kProducts;
    }
    const auto choice = kernels::ChosenProduct(
        launch_.device(), {.rows = kernels::RowBucket(m), .n = shape_.n, .k = shape_.k});
    out.choice = choice ? kernels::ProductChoiceText(*choice) : "untuned";
    return out;
  }

 private:
  void Multiply(int64_t m, int64_t copy) {
    ops::Linear(launch_, x_.data(), w_.at(copy * shape_.n * shape_.k), m, shape_.n, shape_.k, false,
                y_.data());
  }

  const kernels::Launch launch_;
  const Shape shape_;
  const int64_t copies_;
  FlatBuffer x_, w_, y_;
};

}  // namespace

GpuFigures MeasureGpu(const Stream& stream, std::chrono::seconds limit) {
  if (stream.device().is_cpu()) kernels::NoCuda("MeasureGpu");
  const auto end = Clock::now() + limit;
  const AsBefore as_before;
  const kernels::OnDevice here(stream.device());
  const kernels::Launch launch{.stream = stream, .dtype = DType::kBFloat16};
  GpuFigures out;
  out.copy_gb_s = CopySpeed(stream);
  out.tflop_s = LargeProductSpeed(launch);
  for (const Shape& shape : kShapes) {
    if (Clock::now() >= end) {
      out.left_out.emplace_back(shape.name);
      continue;
    }
    ProductTimer timer(launch, shape);
    ProductFigures product{.name = shape.name, .n = shape.n, .k = shape.k};
    product.default_changes = timer.Changes(false);
    product.exact_changes = timer.Changes(true);
    for (const int64_t m : kTimedRows) {
      if (Clock::now() < end) product.speeds.push_back(timer.Time(m));
      else out.left_out.push_back(product.name + " of " + std::to_string(m) + " rows");
    }
    out.products.push_back(std::move(product));
  }
  return out;
}
#else
GpuFigures MeasureGpu(const Stream&, std::chrono::seconds) { kernels::NoCuda("MeasureGpu"); }
#endif

}  // namespace plumb::policy_model
