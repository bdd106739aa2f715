// What is known of prompts: which page holds the keys and values of which tokens behind which
// others.
//
// Purpose: a node is one whole page with the tokens that it is of; its path from the root is all
// that came before, so that two sequences meet in a node exactly where their tokens are the same up
// to the end of its page. The root belongs to a task (GenerateRequest::task). A node's page has one
// holder here, besides the sequences that read it. A page that nobody else holds is idle: it counts
// as good as free, and the one that has been idle for longest goes when a page is needed. All is
// forgotten when the weights change (Clear).
//
//   in use --last sequence leaves (Left)--> idle --Hold--> in use
//                                            | Evict, Clear
//                                            v
//                                           free
//
// Whoever holds a node's page holds those of all nodes above it, and lets the deepest go first: so
// an idle node has idle children only, which have been idle for longer, and the first to go is
// always a leaf.
// Thread safety: none; the engine's thread owns it. Ownership: of the table of nodes, whose arrays
// have a place a page; the pool outlives it. Allocation: none after construction. Errors: broken
// invariants abort.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "actor/pages/kv_pages.h"

namespace plumb::actor {

class PrefixTree {
 public:
  explicit PrefixTree(KvPages* pages);

  // What stands above the first page of a sequence of this task (-1: of none).
  static int32_t Root(int32_t task) { return -2 - task; }

  // The page of these tokens behind the node `above`, a page or a root; -1: not known.
  // REQUIRES: one page's worth of tokens.
  int32_t Find(int32_t above, std::span<const int32_t> tokens) const;
  // A sequence more holds the page. REQUIRES: a node.
  void Hold(int32_t page);
  // The page, which a sequence holds and whose tokens have been computed or enqueued, is known from
  // here on. REQUIRES: Find(above, tokens) < 0; `above` is a root or a node that is in use.
  void Add(int32_t above, std::span<const int32_t> tokens, int32_t page);
  // A sequence has released the page; of pages that are not known nothing happens.
  void Left(int32_t page);
  // Frees the page that has been idle for longest. REQUIRES: idle() > 0.
  void Evict();
  // Forgets everything; what is idle becomes free.
  void Clear();

  int32_t idle() const { return idle_; }  // pages that only this tree holds
  int32_t size() const { return size_; }  // pages known

 private:
  struct Node {
    int32_t above = 0;
    int32_t children = 0;
    int32_t next = kNone;  // in its bucket
    int32_t before = kNone, after = kNone;
    bool there = false, idle = false;
  };
  static constexpr int32_t kNone = -1;

  Node& At(int32_t page) { return nodes_[static_cast<size_t>(page)]; }
  std::span<const int32_t> TokensOf(int32_t page) const;
  size_t BucketOf(int32_t above, std::span<const int32_t> tokens) const;
  void Unlink(Node& node);  // from the idle ones
  void Forget(int32_t page);

  KvPages* const pages_;
  std::vector<Node> nodes_;       // [num_pages]
  std::vector<int32_t> tokens_;   // [num_pages, page_tokens]
  std::vector<int32_t> buckets_;  // first page of each; a power of two of them
  int32_t oldest_ = kNone, newest_ = kNone;
  int32_t idle_ = 0, size_ = 0;
};

}  // namespace plumb::actor
