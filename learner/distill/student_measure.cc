#include "learner/distill/student_measure.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "common/base/error.h"
#include "kernels/device/device_memory.h"
#include "kernels/head/picked_logprob.h"
#include "learner/distill/divergence.h"

namespace plumb::learner {

using kernels::Launch;
using policy_model::FlatBuffer;
using policy_model::HeadRows;

namespace {

void Grow(FlatBuffer& buffer, const Stream& stream, DType type, size_t elements) {
  const auto n = static_cast<int64_t>(elements);
  if (buffer.elements() < n) buffer = FlatBuffer(stream, type, n);
}

}  // namespace

void StudentMeasure::Show(std::vector<const TeacherRows*> said, const Comparison& how) {
  said_ = std::move(said);
  how_ = how;
  remember_ = false;
  perturb_ = 0;
  gradients_.clear();
}

void StudentMeasure::Remember() {
  remember_ = true;
  gradients_.clear();
}

void StudentMeasure::Perturb(double share) {
  remember_ = false;
  perturb_ = share;
  pass_ = 0;
}

void StudentMeasure::Begin(std::span<const ScoredToken> rows) {
  rows_.assign(rows.size(), {});
  picks_ = 1;
  width_ = 0;
  for (size_t r = 0; r < rows.size(); ++r) {
    const TeacherRows* said = said_.at(static_cast<size_t>(rows[r].sequence));
    if (said == nullptr || !said->there()) continue;
    rows_[r] = {.said = said, .token = static_cast<size_t>(rows[r].token)};
    picks_ = std::max(picks_, said->picks());
    width_ = std::max(width_, said->width());
  }
  ids_.assign(rows.size() * picks_, -1);
  for (size_t r = 0; r < rows.size(); ++r) {
    if (rows_[r].said == nullptr) continue;
    const size_t picks = rows_[r].said->picks();
    std::copy_n(rows_[r].said->ids.begin() + static_cast<int64_t>(rows_[r].token * picks), picks,
                ids_.begin() + static_cast<int64_t>(r * picks_));
  }
  results_.assign(rows.size() * kWidth, 0.0f);
  weights_.assign(rows.size(), 0.0f);
  slopes_.assign(rows.size() * (OfLogits() ? picks_ : width_), 0.0f);
  best_.assign(rows.size(), -1);
  logprobs_.assign(rows.size() * picks_, 0.0f);
}

void StudentMeasure::Take(std::span<float> out) {
  std::copy(results_.begin(), results_.end(), out.begin());
}

void StudentMeasure::Weigh(std::span<const float> gradient) {
  weights_.assign(gradient.begin(), gradient.end());
}

const int32_t* StudentMeasure::Ids(const Launch& launch, size_t first, size_t rows) {
  Grow(device_ids_, stream_, DType::kInt32, rows * picks_);
  kernels::CopyAndWait(launch.stream, device_ids_.data(), ids_.data() + first * picks_,
                       rows * picks_ * sizeof(int32_t));
  return static_cast<const int32_t*>(device_ids_.data());
}

void StudentMeasure::Forward(const Launch& launch, const HeadRows& of) {
  const auto first = static_cast<size_t>(of.first), rows = static_cast<size_t>(of.rows);
  Grow(device_logprobs_, stream_, DType::kFloat32, rows * picks_);
  Grow(device_lse_, stream_, DType::kFloat32, rows_.size());
  Grow(device_best_, stream_, DType::kInt32, rows);
  kernels::Call(launch, kernels::PickedLogprob{.logits = of.logits,
                                               .ids = Ids(launch, first, rows),
                                               .rows = of.rows,
                                               .vocab = of.vocab,
                                               .picks = static_cast<int64_t>(picks_),
                                               .temperature = how_.temperature,
                                               .logprob = device_logprobs_.f32(),
                                               .lse = device_lse_.f32() + first,
                                               .best = static_cast<int32_t*>(device_best_.data())});
  kernels::CopyAndWait(launch.stream, logprobs_.data() + first * picks_, device_logprobs_.f32(),
                       rows * picks_ * sizeof(float));
  kernels::CopyAndWait(launch.stream, best_.data() + first, device_best_.data(),
                       rows * sizeof(int32_t));
  CompareLogits(first, rows, of.vocab);
  if (!OfLogits() && width_ > 0) CompareHidden(launch, of);
}

void StudentMeasure::CompareLogits(size_t first, size_t rows, int64_t vocab) {
  std::vector<double> teacher, student, slope;
  for (size_t r = first; r < first + rows; ++r) {
    const Row& row = rows_[r];
    if (row.said == nullptr) continue;
    float* result = results_.data() + r * kWidth;
    result[2] = best_[r] == ids_[r * picks_] ? 1.0f : 0.0f;
    if (how_.kind != Comparison::Kind::kForwardTopK && how_.kind != Comparison::Kind::kJsd)
      continue;
    teacher.clear();
    student.clear();
    const size_t said = row.said->picks();
    for (size_t k = 0; k < said && ids_[r * picks_ + k] >= 0; ++k) {
      teacher.push_back(static_cast<double>(row.said->logprobs[row.token * said + k]));
      student.push_back(static_cast<double>(logprobs_[r * picks_ + k]));
    }
    slope.assign(teacher.size(), 0.0);
    // Fewer than were asked for: there are no others.
    const bool rest = teacher.size() == said && static_cast<int64_t>(said) < vocab;
    double value = how_.kind == Comparison::Kind::kJsd
                       ? GeneralisedJsd<double>(how_.beta, rest, teacher, student, slope)
                       : ForwardTopK<double>(teacher, student, slope);
    if (how_.boundary_coef > 0) {
      const double boundary = DecisionBoundary<double>(teacher, student, how_.boundary_coef, slope);
      value += how_.boundary_coef * boundary;
      result[1] = static_cast<float>(boundary);
    }
    result[0] = static_cast<float>(value);
    for (size_t k = 0; k < slope.size(); ++k)
      slopes_[r * picks_ + k] = static_cast<float>(slope[k]);
  }
}

void StudentMeasure::CompareHidden(const Launch& launch, const HeadRows& of) {
  const auto first = static_cast<size_t>(of.first), n = static_cast<size_t>(of.rows * of.width);
  PLUMB_CHECK(static_cast<int64_t>(width_) == of.width, "a teacher's features in this width");
  floats_.resize(n);
  Fetch(launch, of.hidden, floats_);
  std::vector<double> teacher(width_), student(width_), slope(width_);
  for (size_t r = first; r < first + static_cast<size_t>(of.rows); ++r) {
    if (rows_[r].said == nullptr) continue;
    const float* said = rows_[r].said->hidden.data() + rows_[r].token * width_;
    std::copy_n(said, width_, teacher.begin());
    std::copy_n(floats_.data() + (r - first) * width_, width_, student.begin());
    results_[r * kWidth] = static_cast<float>(FeatureDistance<double>(teacher, student, slope));
    for (size_t i = 0; i < width_; ++i) slopes_[r * width_ + i] = static_cast<float>(slope[i]);
  }
}

void StudentMeasure::Fetch(const Launch& launch, const void* from, std::span<float> to) {
  bytes_.resize(to.size() * ElementSize(launch.dtype));
  kernels::CopyAndWait(launch.stream, bytes_.data(), from, bytes_.size());
  policy_model::ConvertToFloat(bytes_.data(), launch.dtype, to);
}

void StudentMeasure::Store(const Launch& launch, std::span<const float> from, void* to) {
  bytes_.resize(from.size() * ElementSize(launch.dtype));
  policy_model::ConvertFloat(from, launch.dtype, bytes_.data());
  kernels::CopyAndWait(launch.stream, to, bytes_.data(), bytes_.size());
}

void StudentMeasure::BackwardLogits(const Launch& launch, const HeadRows& of, void* dlogits) {
  if (!OfLogits() || how_.kind == Comparison::Kind::kNone) return;
  const auto first = static_cast<size_t>(of.first), rows = static_cast<size_t>(of.rows);
  floats_.resize(rows * picks_);
  for (size_t r = 0; r < rows; ++r) {
    for (size_t k = 0; k < picks_; ++k)
      floats_[r * picks_ + k] = weights_[first + r] * slopes_[(first + r) * picks_ + k];
  }
  Grow(device_g_, stream_, DType::kFloat32, rows * picks_);
  kernels::CopyAndWait(launch.stream, device_g_.data(), floats_.data(),
                       floats_.size() * sizeof(float));
  kernels::Call(launch, kernels::PickedLogprobBackward{.logits = of.logits,
                                                       .ids = Ids(launch, first, rows),
                                                       .lse = device_lse_.f32() + first,
                                                       .g = device_g_.f32(),
                                                       .rows = of.rows,
                                                       .vocab = of.vocab,
                                                       .picks = static_cast<int64_t>(picks_),
                                                       .temperature = how_.temperature,
                                                       .dlogits = dlogits});
}

void StudentMeasure::BackwardHidden(const Launch& launch, const HeadRows& of, void* dhidden) {
  if (OfLogits() || width_ == 0) return;
  const auto first = static_cast<size_t>(of.first), n = static_cast<size_t>(of.rows * of.width);
  floats_.resize(n);
  Fetch(launch, dhidden, floats_);
  for (size_t i = 0; i < n; ++i)
    floats_[i] += weights_[first + i / width_] * slopes_[first * width_ + i];
  Store(launch, floats_, dhidden);
}

void StudentMeasure::EmbeddedBackward(const Launch& launch, int64_t tokens, int64_t width,
                                      const void* dx) {
  if (!remember_) return;
  Fetch(launch, dx, gradients_.emplace_back(static_cast<size_t>(tokens * width)));
}

void StudentMeasure::Embedded(const Launch& launch, int64_t tokens, int64_t width, void* x) {
  if (perturb_ == 0) return;
  const std::vector<float>& up = gradients_.at(pass_++);
  const auto n = static_cast<size_t>(tokens * width), h = static_cast<size_t>(width);
  PLUMB_CHECK(up.size() == n, "a pass is perturbed as it was remembered");
  moved_.resize(n);
  Fetch(launch, x, moved_);
  for (size_t t = 0; t < n; t += h) {
    double norm = 0, steep = 0;
    for (size_t i = t; i < t + h; ++i) {
      norm += static_cast<double>(moved_[i]) * static_cast<double>(moved_[i]);
      steep += static_cast<double>(up[i]) * static_cast<double>(up[i]);
    }
    if (!(steep > 0)) continue;  // of a token that no scored one hangs on
    const double step = perturb_ * std::sqrt(norm / steep);
    for (size_t i = t; i < t + h; ++i)
      moved_[i] += static_cast<float>(step * static_cast<double>(up[i]));
  }
  Store(launch, moved_, x);
}

}  // namespace plumb::learner
