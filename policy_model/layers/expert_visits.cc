#include "policy_model/layers/expert_visits.h"

#include <cstring>

namespace plumb::policy_model {

void LayerVisits::Count(ExpertVisits& visits, const int32_t* begin) {
  ExpertGroup& group = visits.group();
  const auto ranks = static_cast<size_t>(group.size()), here = static_cast<size_t>(here_);
  std::vector<int32_t> own(ranks * here);
  to_.assign(ranks, 0);
  for (size_t e = 0; begin && e < own.size(); ++e) {
    own[e] = begin[e + 1] - begin[e];
    to_[e / here] += own[e];
  }
  own_rows_ = begin ? begin[own.size()] : 0;
  count_.resize(ranks * here);
  const std::vector<int64_t> each(ranks, here_ * int64_t{sizeof(int32_t)});
  group.Exchange(std::as_bytes(std::span<const int32_t>(own)), each,
                 std::as_writable_bytes(std::span(count_)), each);
  begin_.assign(here + 1, 0);
  for (size_t e = 0; e < here; ++e) {
    begin_[e + 1] = begin_[e];
    for (size_t r = 0; r < ranks; ++r) begin_[e + 1] += count_[r * here + e];
  }
}

void LayerVisits::SizeParts(ExpertVisits& visits, int64_t bytes) const {
  const auto ranks = static_cast<size_t>(visits.group().size()), here = static_cast<size_t>(here_);
  visits.to_.assign(ranks, 0);
  visits.from_.assign(ranks, 0);
  for (size_t r = 0; r < ranks; ++r) {
    visits.to_[r] = to_[r] * bytes;
    for (size_t e = 0; e < here; ++e) visits.from_[r] += count_[r * here + e] * bytes;
  }
  visits.rows_.resize(static_cast<size_t>(rows() * bytes));
}

void LayerVisits::Sort(std::byte* by_rank, std::byte* by_expert, int64_t bytes,
                       bool to_expert) const {
  std::vector<int64_t> at(begin_.begin(), begin_.end() - 1);
  for (size_t i = 0; i < count_.size(); ++i) {
    int64_t& first = at[i % static_cast<size_t>(here_)];
    const int64_t n = count_[i] * bytes;
    if (n == 0) continue;  // of a rank without a visit there may be no memory at all
    std::byte* const expert = by_expert + first * bytes;
    if (to_expert) std::memcpy(expert, by_rank, static_cast<size_t>(n));
    else std::memcpy(by_rank, expert, static_cast<size_t>(n));
    by_rank += n;
    first += count_[i];
  }
}

void LayerVisits::Bring(ExpertVisits& visits, const void* own, int64_t bytes, void* here) {
  SizeParts(visits, bytes);
  visits.group().Exchange(
      {static_cast<const std::byte*>(own), static_cast<size_t>(own_rows_ * bytes)}, visits.to_,
      visits.rows_, visits.from_);
  Sort(visits.rows_.data(), static_cast<std::byte*>(here), bytes, true);
}

void LayerVisits::TakeBack(ExpertVisits& visits, const void* here, int64_t bytes, void* own) {
  SizeParts(visits, bytes);
  // Nothing is written there on this way.
  Sort(visits.rows_.data(), static_cast<std::byte*>(const_cast<void*>(here)), bytes, false);
  visits.group().Exchange(visits.rows_, visits.from_,
                          {static_cast<std::byte*>(own), static_cast<size_t>(own_rows_ * bytes)},
                          visits.to_);
}

Arena& LayerVisits::kept(ExpertVisits& visits, const Stream& stream) {
  if (visits.again) return visits.kept();
  if (!kept_) kept_.emplace(stream);
  return *kept_;
}

}  // namespace plumb::policy_model
