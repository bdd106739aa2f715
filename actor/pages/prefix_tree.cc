#include "actor/pages/prefix_tree.h"

#include <algorithm>
#include <bit>
#include <string>

#include "common/base/error.h"

namespace plumb::actor {

PrefixTree::PrefixTree(KvPages* pages) : pages_(pages) {
  const auto count = static_cast<size_t>(pages->num_pages());
  nodes_.resize(count);
  tokens_.resize(count * static_cast<size_t>(pages->page_tokens()));
  buckets_.assign(std::bit_ceil(count), kNone);
}

std::span<const int32_t> PrefixTree::TokensOf(int32_t page) const {
  const auto each = static_cast<size_t>(pages_->page_tokens());
  return std::span(tokens_).subspan(static_cast<size_t>(page) * each, each);
}

size_t PrefixTree::BucketOf(int32_t above, std::span<const int32_t> tokens) const {
  uint64_t hash = static_cast<uint32_t>(above);
  for (const int32_t token : tokens) {
    hash = (hash ^ static_cast<uint32_t>(token)) * 0x9e3779b97f4a7c15u;
    hash ^= hash >> 29;
  }
  return static_cast<size_t>(hash) & (buckets_.size() - 1);
}

int32_t PrefixTree::Find(int32_t above, std::span<const int32_t> tokens) const {
  int32_t page = buckets_[BucketOf(above, tokens)];
  for (; page != kNone; page = nodes_[static_cast<size_t>(page)].next) {
    const Node& node = nodes_[static_cast<size_t>(page)];
    if (node.above == above && std::ranges::equal(TokensOf(page), tokens)) break;
  }
  return page;
}

void PrefixTree::Hold(int32_t page) {
  Node& node = At(page);
  PLUMB_CHECK(node.there, "page " + std::to_string(page) + " is not known");
  pages_->AddReference(page);
  if (node.idle) Unlink(node);
}

void PrefixTree::Add(int32_t above, std::span<const int32_t> tokens, int32_t page) {
  Node& node = At(page);
  PLUMB_CHECK(!node.there && std::ssize(tokens) == pages_->page_tokens(),
              "page " + std::to_string(page));
  if (above >= 0) {
    Node& parent = At(above);
    PLUMB_CHECK(parent.there && !parent.idle, "page " + std::to_string(above) + " is above");
    ++parent.children;
  }
  pages_->AddReference(page);
  std::ranges::copy(tokens, tokens_.begin() + static_cast<ptrdiff_t>(page) * pages_->page_tokens());
  int32_t& first = buckets_[BucketOf(above, tokens)];
  node = {.above = above, .next = first, .there = true};
  first = page;
  ++size_;
}

void PrefixTree::Left(int32_t page) {
  Node& node = At(page);
  if (!node.there || node.idle || pages_->references(page) > 1) return;
  node.idle = true;
  node.before = newest_;
  node.after = kNone;
  (newest_ == kNone ? oldest_ : At(newest_).after) = page;
  newest_ = page;
  ++idle_;
}

void PrefixTree::Unlink(Node& node) {
  (node.before == kNone ? oldest_ : At(node.before).after) = node.after;
  (node.after == kNone ? newest_ : At(node.after).before) = node.before;
  node.before = node.after = kNone;
  node.idle = false;
  --idle_;
}

void PrefixTree::Forget(int32_t page) {
  Node& node = At(page);
  int32_t* at = &buckets_[BucketOf(node.above, TokensOf(page))];
  while (*at != page) at = &At(*at).next;
  *at = node.next;
  if (node.above >= 0) --At(node.above).children;
  node = {};
  --size_;
}

void PrefixTree::Evict() {
  PLUMB_CHECK(idle_ > 0, "no page is idle");
  const int32_t page = oldest_;
  PLUMB_CHECK(At(page).children == 0, "page " + std::to_string(page) + " has pages behind it");
  Unlink(At(page));
  Forget(page);
  pages_->ReleaseIdle(page);
}

void PrefixTree::Clear() {
  while (idle_ > 0) Evict();
  for (int32_t page = 0; size_ > 0 && page < pages_->num_pages(); ++page) {
    if (!At(page).there) continue;
    At(page) = {};
    --size_;
    pages_->DropReference(page);
  }
  std::ranges::fill(buckets_, kNone);
}

}  // namespace plumb::actor
