#include "learner/ranks/partition.h"

#include <utility>

#include "common/base/error.h"

namespace plumb::learner {

Partition::Partition(std::vector<int64_t> ends, int ranks, int64_t unit)
    : ends_(std::move(ends)), ranks_(ranks), unit_(unit) {
  int64_t before = 0;
  for (const int64_t end : ends_) {
    PLUMB_CHECK(end >= before, "buckets follow each other");
    before = end;
  }
}

Partition::Partition(std::vector<int64_t> ends, std::vector<int> ranks, int64_t unit)
    : Partition(std::move(ends), 1, unit) {
  PLUMB_CHECK(ranks.size() == buckets(), "ranks of every bucket");
  each_ = std::move(ranks);
}

Slice Partition::Bucket(size_t bucket) const {
  return {.begin = bucket == 0 ? 0 : ends_[bucket - 1], .end = ends_[bucket]};
}

Slice Partition::Of(size_t bucket, int rank) const {
  const Slice all = Bucket(bucket),
              part = SliceOf(all.size(), rank, each_.empty() ? ranks_ : each_[bucket], unit_);
  return {.begin = all.begin + part.begin, .end = all.begin + part.end};
}

std::vector<Piece> Partition::KeptBy(int rank) const {
  return KeptBy(std::vector<int>(buckets(), rank));
}

std::vector<Piece> Partition::KeptBy(const std::vector<int>& ranks) const {
  std::vector<Piece> out;
  int64_t at = 0;
  for (size_t bucket = 0; bucket < buckets(); ++bucket) {
    const Slice part = Of(bucket, ranks[bucket]);
    out.push_back({.begin = part.begin, .end = part.end, .at = at});
    at += part.size();
  }
  return out;
}

}  // namespace plumb::learner
