#include <algorithm>
#include <bit>
#include <cmath>
#include <functional>
#include <vector>

#include "common/base/rng.h"
#include "kernels/device/cpu_common.h"
#include "kernels/device/vector_math.h"
#include "kernels/head/row_mass.h"
#include "kernels/sampling.h"
#include "kernels/token_mask.h"

namespace plumb::kernels {
namespace {

constexpr int64_t kBlock = kMassBlock;

// Probabilities relative to the most likely token lie in [0, 1], where floats order as their bits
// do. Counted by their leading bits, the boundary of a filter falls into one bucket, and only that
// bucket is sorted.
class Selection {
 public:
  void Count(const float* p, int64_t vocab) {
    p_ = p;
    vocab_ = vocab;
    std::fill(count_, count_ + kBuckets, 0);
    std::fill(mass_, mass_ + kBuckets, 0.0);
    for (int64_t j = 0; j < vocab; ++j) {
      const uint32_t bucket = Bucket(p[j]);
      ++count_[bucket];
      mass_[bucket] += static_cast<double>(p[j]);
    }
  }

  double total() const {
    double sum = 0;
    for (int32_t b = kBuckets - 1; b >= 0; --b) sum += mass_[b];
    return sum;
  }

  // The count-th largest value; *kept becomes the mass of all values not below it. REQUIRES: 0 <
  // count <= vocab.
  float AtCount(int64_t count, double* kept) {
    double mass = 0;
    int64_t seen = 0;
    int32_t b = kBuckets - 1;
    for (; b > 0 && seen + count_[b] < count; --b) {
      seen += count_[b];
      mass += mass_[b];
    }
    Sort(b);
    const float value = sorted_[static_cast<size_t>(count - seen - 1)];
    for (size_t i = 0; i < sorted_.size() && sorted_[i] >= value; ++i)
      mass += static_cast<double>(sorted_[i]);
    *kept = mass;
    return value;
  }

  // The value at which the sum of the largest ones reaches `goal`; 0 when rounding keeps the whole
  // sum below it.
  float AtMass(double goal) {
    double mass = 0;
    int32_t b = kBuckets - 1;
    for (; b >= 0 && mass + mass_[b] < goal; --b) mass += mass_[b];
    if (b < 0) return 0;
    Sort(b);
    for (const float value : sorted_) {
      mass += static_cast<double>(value);
      if (mass >= goal) return value;
    }
    return sorted_.empty() ? 0 : sorted_.back();
  }

 private:
  static constexpr int32_t kShift = 20, kBuckets = (0x3F800000 >> kShift) + 1;
  static uint32_t Bucket(float p) { return std::bit_cast<uint32_t>(p) >> kShift; }

  void Sort(int32_t bucket) {
    sorted_.clear();
    const float low = std::bit_cast<float>(static_cast<uint32_t>(bucket) << kShift);
    const float high = std::bit_cast<float>(static_cast<uint32_t>(bucket + 1) << kShift);
    for (int64_t j = 0; j < vocab_; ++j) {
      if (p_[j] >= low && p_[j] < high) sorted_.push_back(p_[j]);
    }
    std::sort(sorted_.begin(), sorted_.end(), std::greater<float>());
  }

  const float* p_ = nullptr;
  int64_t vocab_ = 0;
  uint32_t count_[kBuckets];
  double mass_[kBuckets];
  std::vector<float> sorted_;
};

// The relative probability below which a token is filtered out.
float Threshold(const float* p, int64_t vocab, const SamplingOptions& o) {
  float threshold = o.min_p;
  const bool by_count = o.top_k > 0 && o.top_k < vocab;
  if (!by_count && o.top_p >= 1.0f) return threshold;
  thread_local Selection selection;
  selection.Count(p, vocab);
  double total = 0;
  if (by_count) threshold = std::max(threshold, selection.AtCount(o.top_k, &total));
  else total = selection.total();
  if (o.top_p < 1.0f)
    threshold = std::max(threshold, selection.AtMass(static_cast<double>(o.top_p) * total));
  return threshold;
}

// The tokens of at least the threshold. 0 keeps all, also those too unlikely for a float.
void WriteKept(const float* p, int64_t vocab, float threshold, uint32_t* kept) {
  for (int64_t w = 0; w < SetWords(vocab); ++w) {
    uint32_t bits = 0;
    const int64_t begin = w * 32, end = std::min(vocab, begin + 32);
    for (int64_t j = begin; j < end; ++j) {
      bits |= static_cast<uint32_t>(p[j] >= threshold) << (j - begin);
    }
    kept[w] = bits;
  }
}

void SampleRow(const float* x, int64_t vocab, const SamplingOptions& o, uint64_t prompt,
               uint32_t sample, int32_t position, float* p, int32_t* token, float* logprob,
               uint32_t* kept) {
  *token = -1;
  *logprob = 0;
  const float top = MaxOf(x, vocab);
  if (!std::isfinite(top)) return;
  const bool greedy = o.temperature == 0;
  const float scale = greedy ? 1.0f : 1.0f / o.temperature;

  // p[j] = exp((x - top) / T), with sums of blocks: the scan below then skips blocks.
  double total = 0;
  const int64_t blocks = (vocab + kBlock - 1) / kBlock;
  float* block_sum = p + vocab;
  for (int64_t b = 0; b < blocks; ++b) {
    const int64_t begin = b * kBlock, n = std::min(vocab - begin, kBlock);
    MassTerms(x + begin, n, top, scale, p + begin);
    block_sum[b] = SumOfTerms(p + begin, n);
    total += static_cast<double>(block_sum[b]);
  }
  if (std::isnan(total)) return;  // some logit is
  if (greedy) {
    for (int64_t j = 0; j < vocab; ++j) {
      if (x[j] == top) {
        *token = static_cast<int32_t>(j);
        break;
      }
    }
    *logprob = static_cast<float>(std::min(0.0, 0.0 - std::log(total)));
    if (kept != nullptr) WriteKept(p, vocab, 0, kept);
    return;
  }
  const bool filtered = o.top_k > 0 || o.top_p < 1.0f || o.min_p > 0;
  const float threshold = filtered ? Threshold(p, vocab, o) : 0.0f;
  if (kept != nullptr) WriteKept(p, vocab, threshold, kept);
  if (filtered) {
    total = 0;
    for (int64_t b = 0; b < blocks; ++b) {
      const int64_t begin = b * kBlock, n = std::min(vocab - begin, kBlock);
#pragma omp simd
      for (int64_t j = begin; j < begin + n; ++j) p[j] = p[j] >= threshold ? p[j] : 0.0f;
      block_sum[b] = SumOfTerms(p + begin, n);
      total += static_cast<double>(block_sum[b]);
    }
  }
  const Random4 bits = RandomAt(o.seed, prompt, sample, static_cast<uint32_t>(position));
  const double target = UniformOpen(bits.x[0], bits.x[1]) * total;
  double mass = 0;
  int64_t chosen = -1;
  for (int64_t b = 0; b < blocks && chosen < 0; ++b) {
    // The last block always takes the draw: rounding of the block sums must not let it fall off the
    // end.
    if (b + 1 < blocks && mass + static_cast<double>(block_sum[b]) < target) {
      mass += static_cast<double>(block_sum[b]);
      continue;
    }
    const int64_t end = std::min(vocab, (b + 1) * kBlock);
    for (int64_t j = b * kBlock; j < end; ++j) {
      if (p[j] <= 0) continue;
      mass += static_cast<double>(p[j]);
      chosen = j;  // the last token with mass when the sum falls short by rounding
      if (mass >= target) break;
    }
  }
  // the last block was wholly filtered out and rounding led there: the last kept token
  if (chosen < 0) {
    for (int64_t j = vocab - 1; j >= 0 && chosen < 0; --j) {
      if (p[j] > 0) chosen = j;
    }
  }
  *token = static_cast<int32_t>(chosen);
  *logprob = static_cast<float>(
      std::min(0.0, static_cast<double>((x[chosen] - top) * scale) - std::log(total)));
}

}  // namespace

int64_t SamplingScratch(int64_t rows, int64_t vocab) {
  return rows * (vocab + (vocab + kBlock - 1) / kBlock + 16) * static_cast<int64_t>(sizeof(float));
}

void SampleTokens::Cpu(const Launch&) const {
  const int64_t stride = SamplingScratch(1, vocab) / static_cast<int64_t>(sizeof(float));
#pragma omp parallel for schedule(static) if (rows * vocab > kParallelElements)
  for (int64_t r = 0; r < rows; ++r) {
    SampleRow(logits + r * vocab, vocab, options, prompt[r], sample[r], position[r],
              static_cast<float*>(scratch) + r * stride, token + r, logprob + r,
              kept == nullptr ? nullptr : kept + r * SetWords(vocab));
  }
}

}  // namespace plumb::kernels
