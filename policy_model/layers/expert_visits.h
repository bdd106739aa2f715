// Rows that go to experts on other ranks, and those of other ranks at the experts here.
//
// Purpose: between a layer's router and its experts, where ranks share these out. A micro-batch's
// rows lie by expert, and so by rank; Count tells each rank how many it will get for each of its
// experts, Bring carries rows there, where they lie by expert again, those of one expert in the
// order of the ranks, and TakeBack carries as many rows the other way. An expert thus computes the
// rows of all ranks at once, and its gradient is complete within the group.
// Thread safety: one thread. Ownership: borrows the group; owns what is carried. Errors: those of
// the group. Bits: the order of rows depends on nothing but the choices of all ranks.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "policy_model/memory/arena.h"
#include "policy_model/memory/expert_group.h"

namespace plumb::policy_model {

// What the layers with experts of one transformer have in common.
class ExpertVisits {
 public:
  // nullptr: memory is only planned, for an even load.
  ExpertVisits(ExpertGroup* group, const Stream& stream)
      : group_(group), kept_(stream), scratch_(stream) {}

  bool planned() const { return group_ == nullptr; }
  ExpertGroup& group() const { return *group_; }
  // Of one layer at a time: what is kept until its backward where layers are computed again there,
  // and what a call needs.
  Arena& kept() { return kept_; }
  Arena& scratch() { return scratch_; }
  bool again = false;  // layers are computed again in the backward

 private:
  friend class LayerVisits;
  ExpertGroup* const group_;
  Arena kept_, scratch_;
  std::vector<std::byte> rows_;  // as they travel: those of one rank behind those of the other
  std::vector<int64_t> to_, from_;
};

// Those of one layer, from its forward to its backward.
class LayerVisits {
 public:
  // `here`: experts on each rank.
  explicit LayerVisits(int64_t here) : here_(here) {}

  // begin[experts + 1]: where this rank's rows of each expert begin; nullptr: it has none.
  void Count(ExpertVisits& visits, const int32_t* begin);
  // Of this rank, and of all ranks at the experts here.
  int64_t own_rows() const { return own_rows_; }
  int64_t rows() const { return begin_.back(); }
  // [here + 1] where the rows at each expert begin.
  const int32_t* begin() const { return begin_.data(); }

  // Rows of `bytes` each: own[own_rows()] by expert go, and here[rows()] come.
  void Bring(ExpertVisits& visits, const void* own, int64_t bytes, void* here);
  // The other way.
  void TakeBack(ExpertVisits& visits, const void* here, int64_t bytes, void* own);

  // What is kept of this layer until its backward.
  Arena& kept(ExpertVisits& visits, const Stream& stream);
  int64_t x = 0, gate_up = 0;  // offsets there

 private:
  // Between rows by rank and rows by expert.
  void Sort(std::byte* by_rank, std::byte* by_expert, int64_t bytes, bool to_expert) const;
  void SizeParts(ExpertVisits& visits, int64_t bytes) const;

  const int64_t here_;
  int64_t own_rows_ = 0;
  std::vector<int32_t> to_;     // [ranks] rows of this one
  std::vector<int32_t> count_;  // [ranks, here] that came
  std::vector<int32_t> begin_;
  std::optional<Arena> kept_;
};

}  // namespace plumb::policy_model
