#include "policy_model/families/rope_frequencies.h"

#include <algorithm>
#include <cmath>

namespace plumb::policy_model {
namespace {

constexpr double kTwoPi = 6.283185307179586;

// Long wavelengths are stretched by the factor, short ones stay, those between are mixed.
double Llama3(double frequency, const RopeScaling& s, double original) {
  const double wavelength = kTwoPi / frequency;
  if (wavelength > original / s.low_freq) return frequency / s.factor;
  if (wavelength < original / s.high_freq) return frequency;
  const double share = (original / wavelength - s.low_freq) / (s.high_freq - s.low_freq);
  return (1 - share) * frequency / s.factor + share * frequency;
}

double MagnitudeScale(double factor, double weight) {
  return factor <= 1 ? 1 : 0.1 * weight * std::log(factor) + 1;
}

// Where on the dimensions a frequency lies that turns `turns` times over the original length.
double DimensionOf(double turns, double theta, int64_t dims, double original) {
  return static_cast<double>(dims) * std::log(original / (turns * kTwoPi)) / (2 * std::log(theta));
}

void Yarn(const RopeScaling& s, double theta, int64_t dims, double original, RotarySpec* out) {
  double low = DimensionOf(s.beta_fast, theta, dims, original),
         high = DimensionOf(s.beta_slow, theta, dims, original);
  if (s.truncate) {
    low = std::floor(low);
    high = std::ceil(high);
  }
  low = std::max(low, 0.0);
  high = std::min(high, static_cast<double>(dims - 1));
  if (low == high) high += 0.001;
  for (size_t i = 0; i < out->frequencies.size(); ++i) {
    const double stretched = std::clamp((static_cast<double>(i) - low) / (high - low), 0.0, 1.0);
    double& f = out->frequencies[i];
    f = f / s.factor * stretched + f * (1 - stretched);
  }
  if (s.attention_factor > 0) out->factor = s.attention_factor;
  else if (s.mscale > 0 && s.mscale_all_dim > 0) {
    out->factor = MagnitudeScale(s.factor, s.mscale) / MagnitudeScale(s.factor, s.mscale_all_dim);
  } else {
    out->factor = MagnitudeScale(s.factor, 1);
  }
}

// A model that computes nothing longer than the pretraining's length takes the short divisors.
void LongRope(const RopeScaling& s, int64_t max_positions, RotarySpec* out) {
  const auto original = static_cast<double>(s.original_positions);
  const std::vector<double>& divisors =
      max_positions > s.original_positions ? s.long_factor : s.short_factor;
  for (size_t i = 0; i < out->frequencies.size(); ++i) out->frequencies[i] /= divisors[i];
  if (s.attention_factor > 0) out->factor = s.attention_factor;
  else {
    const double factor =
        s.factor > 0 ? s.factor : static_cast<double>(s.stretched_positions) / original;
    if (factor > 1) out->factor = std::sqrt(1 + std::log(factor) / std::log(original));
  }
}

}  // namespace

RotarySpec RotaryOf(const RopeScaling& s, double theta, int64_t dims, int64_t max_positions) {
  RotarySpec out;
  for (int64_t i = 0; i < dims / 2; ++i) {
    out.frequencies.push_back(
        std::pow(theta, -2.0 * static_cast<double>(i) / static_cast<double>(dims)));
  }
  const auto original =
      static_cast<double>(s.original_positions > 0 ? s.original_positions : max_positions);
  switch (s.kind) {
    case RopeKind::kDefault:
    case RopeKind::kDynamic: break;
    case RopeKind::kLinear:
      for (double& f : out.frequencies) f /= s.factor;
      break;
    case RopeKind::kLlama3:
      for (double& f : out.frequencies) f = Llama3(f, s, original);
      break;
    case RopeKind::kYarn: Yarn(s, theta, dims, original, &out); break;
    case RopeKind::kLongRope: LongRope(s, max_positions, &out); break;
  }
  return out;
}

}  // namespace plumb::policy_model
