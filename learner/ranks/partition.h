// Which rank keeps which elements of a flat buffer that is reduced and gathered bucket by bucket.
//
// Purpose: of every bucket (a layer, the head, the embedding) each rank keeps an equal part, so
// that a bucket which is summed or gathered while others are computed keeps all connections as busy
// as the whole buffer would. Parts are whole units, but for the last; some may be empty. Thread
// safety: const after construction. Units: elements.
#pragma once

#include <cstdint>
#include <vector>

#include "learner/ranks/ranks.h"

namespace plumb::learner {

// Elements [begin, end) of which something is kept, and where that begins in what is kept.
struct Piece {
  int64_t begin = 0, end = 0, at = 0;
  int64_t size() const { return end - begin; }
};

class Partition {
 public:
  Partition() = default;
  // Buckets [0, ends[0]), [ends[0], ends[1]), ...; one may be empty.
  Partition(std::vector<int64_t> ends, int ranks, int64_t unit);
  // The same where each bucket has ranks of its own, so many.
  Partition(std::vector<int64_t> ends, std::vector<int> ranks, int64_t unit);

  int64_t elements() const { return ends_.empty() ? 0 : ends_.back(); }
  size_t buckets() const { return ends_.size(); }
  int ranks() const { return ranks_; }
  int64_t unit() const { return unit_; }
  Slice Bucket(size_t bucket) const;
  // Of that bucket, what the rank keeps.
  Slice Of(size_t bucket, int rank) const;
  // Everything that it keeps, ascending, what is kept of one piece behind that of the other. A
  // piece a bucket, which may be empty.
  std::vector<Piece> KeptBy(int rank) const;
  // Of a rank that is ranks[bucket] among those of each.
  std::vector<Piece> KeptBy(const std::vector<int>& ranks) const;

 private:
  std::vector<int64_t> ends_;
  std::vector<int> each_;  // empty: ranks_
  int ranks_ = 1;
  int64_t unit_ = 1;
};

}  // namespace plumb::learner
