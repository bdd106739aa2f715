// The ranks of a learner: processes that train one model together, each on a share of every batch.
//
// Purpose: the collectives that training needs, between processes of one machine or several. Every
// rank makes the same calls in the same order; each call ends on all of them or throws RankLost.
// Sums are taken in the order of the ranks, so their bits depend on nothing but the values and the
// number of ranks, and are equal on all of them. A rank that is alone calls nothing of this: where
// a Ranks* is nullptr there is one rank. Thread safety: one thread; groups that have no rank in
// common but this one (Among) may be used by different threads at once. Ownership: owns its
// connections, together with the groups that were made of it. Errors: RankLost (rank_mesh.h) names
// the rank; after one the group is of no use. Units: sent_bytes() counts payload. An all-reduce of
// N bytes sends 2 N (W - 1) / W of them from each of W ranks where W divides N, a reduce-scatter
// and an all-gather half of that.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "learner/ranks/gradient_wire.h"
#include "learner/ranks/rank_mesh.h"

namespace plumb::learner {

// Elements [begin, end) of something that ranks have a part each of.
struct Slice {
  int64_t begin = 0, end = 0;
  int64_t size() const { return end - begin; }
};
// Equal parts of n elements, but for the last ones, in whole units of `unit`; some may be empty.
Slice SliceOf(int64_t n, int rank, int size, int64_t unit);

class NcclGroup;

class Ranks {
 public:
  // `patience`: how long a call waits for the others.
  Ranks(RankMesh mesh, std::chrono::milliseconds patience);

  int rank() const { return rank_; }
  int size() const { return static_cast<int>(members_.size()); }
  bool first() const { return rank() == 0; }

  // Some of these alone, ascending and with this one, by the same connections; they are numbered
  // from 0 among themselves, and errors name them by the numbers that all of them had first. Every
  // one of them makes the group. Nothing is sent.
  std::unique_ptr<Ranks> Among(std::span<const int> ranks) const;

  // Rank 0's, on all.
  std::string Share(const std::string& text);
  // `own` of every rank, in the order of the ranks, each as long as sizes[rank] says.
  template <class T>
  void Gather(std::span<const T> own, std::span<const size_t> sizes, std::vector<T>& all) {
    static_assert(std::is_trivially_copyable_v<T>);
    size_t total = 0;
    std::vector<Slice> places;
    for (const size_t size : sizes) {
      places.push_back({.begin = static_cast<int64_t>(total * sizeof(T)),
                        .end = static_cast<int64_t>((total + size) * sizeof(T))});
      total += size;
    }
    all.resize(total);
    GatherBytes(std::as_bytes(own), places, std::as_writable_bytes(std::span(all)));
  }
  // One of every rank.
  template <class T>
  std::vector<T> Gather(const T& own) {
    std::vector<T> all;
    const std::vector<size_t> ones(static_cast<size_t>(size()), 1);
    Gather(std::span(&own, 1), ones, all);
    return all;
  }
  std::vector<std::string> Gather(const std::string& own);
  double Sum(double own);
  bool Any(bool own);
  void Barrier() { Any(false); }

  // values[i] becomes the sum over the ranks, on all of them. By a wire that is not exact each rank
  // adds `residual` (as many numbers, its own) to what it sends and keeps there what the rounding
  // lost; the sum goes out by the same wire, and its owner keeps what that lost. Of kFloat32
  // `residual` is empty.
  void AllReduce(std::span<float> values, Wire wire = Wire::kFloat32,
                 std::span<float> residual = {});
  // The same for this rank's slice of them alone, which is exact but for what others sent; what
  // else there is stays.
  void ReduceScatter(std::span<float> values, int64_t unit, Wire wire = Wire::kFloat32,
                     std::span<float> residual = {});
  // Every rank has its slice of `elements` elements of `element_size` bytes; then all have all.
  void AllGather(std::span<std::byte> bytes, size_t element_size, int64_t unit);

  // places[r]: the bytes of `all` that rank r has; then all have all.
  void AllGather(std::span<std::byte> all, std::span<const Slice> places) {
    GatherBytes({}, places, all);
  }

  // Everybody to everybody: `out` holds what goes to each rank, one behind the other, to[r] bytes
  // to rank r, which says as much in its from[]; `in` becomes what each has for this one. This
  // rank's own part is copied.
  void Exchange(std::span<const std::byte> out, std::span<const int64_t> to,
                std::span<std::byte> in, std::span<const int64_t> from);

  // Throws RankLost naming the ranks whose `own` is not that of most (of rank 0 where no more than
  // half agree). `what`: "the weights after step 3".
  void CheckSame(const std::string& what, const std::string& own);

  // Tells the others why this rank ends. Throws nothing.
  void SayEnded(const std::string& why) noexcept { link_->mesh.SayEnded(why); }

  // Collectives over memory of this rank's GPU; nullptr: there are none.
  void UseDevice(std::shared_ptr<NcclGroup> group);
  NcclGroup* device() const { return device_.get(); }

  // Of this rank, to all others: through the mesh and between GPUs, by this group and all that go
  // by the same connections.
  int64_t sent_bytes() const;

 private:
  using Part = RankMesh::Part;
  // places[r]: where rank r's bytes lie in `all`, which has this rank's already if `own` is empty.
  void GatherBytes(std::span<const std::byte> own, std::span<const Slice> places,
                   std::span<std::byte> all);
  void ReducePiece(std::span<float> values, std::span<const Slice> slices, Wire wire,
                   std::span<float> residual);
  void SpreadPiece(std::span<float> values, std::span<const Slice> slices, Wire wire,
                   std::span<float> residual);
  void KeepLost(Wire wire, std::span<const std::byte> sent, std::span<float> numbers);
  // Parts by the group's own numbers.
  void Exchange(std::string_view what, std::span<Part> parts);

  // What groups have in common.
  struct Link {
    RankMesh mesh;
    std::vector<std::shared_ptr<NcclGroup>> devices;
  };
  Ranks(std::shared_ptr<Link> link, std::vector<int> members, int rank, uint64_t first_call,
        std::chrono::milliseconds patience);

  const std::shared_ptr<Link> link_;
  const std::vector<int> members_;  // by their numbers in the mesh
  const int rank_;
  std::shared_ptr<NcclGroup> device_;
  const std::chrono::milliseconds patience_;
  uint64_t calls_;  // of other groups they are others
  std::vector<Part> parts_;
  std::vector<std::byte> received_, sent_;  // of a piece that is summed, as it travels
  std::vector<float> sum_, numbers_;
};

}  // namespace plumb::learner
