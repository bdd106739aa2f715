// Who gets weights from whom in a cluster run: a tree below its head.
//
// Purpose: the head and each actor that can be reached hand weights on to at most `fanout` others
// (run.relay). The tree is a heap: those that hand on come first, in the order in which they came,
// then those that do not, so that it is as flat as can be; where one goes, the last of its kind
// takes its place and nobody else moves. Where too few hand on, the rest ask the head.
// Thread safety: none. Ownership: plain values. Errors: none.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

namespace plumb::run {

class RelayTree {
 public:
  explicit RelayTree(size_t fanout) : fanout_(fanout) {}

  // It is there; whether it hands on may change.
  void Put(const std::string& name, bool hands_on);
  void Take(const std::string& name);

  // Whom it asks, the nearest first, the head (not among them) last; empty: the head.
  std::vector<std::string> Above(const std::string& name) const;
  // How many ask it.
  size_t Below(const std::string& name) const;
  bool HandsOn(const std::string& name) const;
  size_t size() const { return on_.size() + leaves_.size(); }

 private:
  static constexpr size_t kHead = static_cast<size_t>(-1);
  size_t PlaceOf(const std::string& name) const;  // kHead: it is not there
  size_t Parent(size_t place) const;              // kHead: the head

  const size_t fanout_;
  std::vector<std::string> on_, leaves_;
};

}  // namespace plumb::run
