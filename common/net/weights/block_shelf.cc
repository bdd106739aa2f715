#include "common/net/weights/block_shelf.h"

#include <algorithm>
#include <set>
#include <utility>

#include "common/base/error.h"
#include "common/net/weights/block_change.h"

namespace plumb {
namespace {

constexpr size_t kMaxBusy = 4096;  // names that one set remembers

size_t BlocksOf(uint64_t bytes) {
  return static_cast<size_t>((bytes + kDigestBlockBytes - 1) / kDigestBlockBytes);
}

}  // namespace

void BlockShelf::Sweep() {
  const auto now = Clock::now();
  for (auto& [digest, set] : sets_) {
    std::erase_if(set.busy, [&](const auto& b) { return now - b.second > options_.gone_after; });
  }
  std::erase_if(sets_,
                [](const auto& each) { return each.second.past && each.second.busy.empty(); });
}

void BlockShelf::Open(int64_t version, std::span<const Digest> kept) {
  MutexLock lock(mu_);
  Sweep();
  std::set<std::string> older;  // names of sets of which an older version stays
  for (const auto& [digest, set] : sets_) {
    if (set.past) older.insert(set.name);
  }
  for (auto it = sets_.begin(); it != sets_.end();) {
    Set& set = it->second;
    const bool stays = std::find(kept.begin(), kept.end(), it->first) != kept.end();
    const bool was = std::exchange(set.past, !stays);
    const bool goes = !stays && !was && (set.busy.empty() || older.contains(set.name));
    it = goes ? sets_.erase(it) : std::next(it);
  }
  newest_ = version;
  open_ = true;
  changed_.notify_all();
}

void BlockShelf::Begin(const std::string& name, const Digest& set, uint64_t bytes,
                       const Digest& base) {
  MutexLock lock(mu_);
  Set& here = sets_[set];
  const auto busy = std::move(here.busy);  // it may have begun before, and not come to its end
  here = {.name = name, .base = base, .bytes = bytes, .whole = {}, .change = {}, .busy = busy};
  here.whole.resize(BlocksOf(bytes));
  here.change.resize(here.whole.size());
}

void BlockShelf::Put(const Digest& set, size_t block, Payload whole, Payload change) {
  MutexLock lock(mu_);
  const auto found = sets_.find(set);
  if (found == sets_.end() || block >= found->second.whole.size()) return;
  found->second.whole[block] = std::move(whole);
  found->second.change[block] = std::move(change);
  changed_.notify_all();
}

void BlockShelf::Close() {
  MutexLock lock(mu_);
  open_ = false;
  changed_.notify_all();
}

std::string BlockShelf::Answer(const weight_wire::BlocksQuestion& question, Deadline deadline) {
  std::vector<weight_wire::BlockOnWire> blocks;
  {
    MutexLock lock(mu_);
    Sweep();
    for (bool late = false;;
         late = changed_.wait_until(lock, deadline) == std::cv_status::timeout) {
      const auto found = sets_.find(question.set);
      if (found != sets_.end()) {
        Set& set = found->second;
        if (question.first >= set.whole.size()) {
          throw Error(ErrorCode::kCorruption,
                      "block " + std::to_string(question.first) + " of a set of weights with " +
                          std::to_string(set.whole.size()) + " was asked for");
        }
        size_t bytes = 0;
        const size_t end = std::min<size_t>(set.whole.size(), question.first + question.most);
        const bool changes = !question.base.empty() && question.base == set.base;
        size_t at = static_cast<size_t>(question.first);
        for (; at < end && set.whole[at].size() > 0 && bytes < options_.answer_bytes; ++at) {
          const bool change = changes && set.change[at].size() > 0;
          blocks.push_back({.bytes = change ? set.change[at] : set.whole[at], .raw = !change});
          const size_t sent = blocks.back().bytes.size();
          bytes += sent;
          given_ += static_cast<int64_t>(sent);
          saved_ += static_cast<int64_t>(set.whole[at].size() - sent);
        }
        const bool ends = at == end && question.more == 0;
        if (ends) set.busy.erase(question.who);
        else if (set.busy.size() < kMaxBusy) set.busy[question.who] = Clock::now();
        if (!blocks.empty() || late) break;
      } else if (question.version < newest_ || (question.version == newest_ && !open_)) {
        throw Error(ErrorCode::kNotFound, "the set of weights is not here of version " +
                                              std::to_string(question.version) +
                                              "; the newest is " + std::to_string(newest_));
      } else if (late) {
        break;
      }
      if (std::chrono::steady_clock::now() >= deadline) break;
    }
  }
  return weight_wire::EncodeBlocks(blocks);
}

Payload BlockShelf::Block(const Digest& set, size_t block) const {
  MutexLock lock(mu_);
  const auto found = sets_.find(set);
  if (found == sets_.end() || block >= found->second.whole.size()) return {};
  return found->second.whole[block];
}

std::map<std::string, int64_t> BlockShelf::counters() const {
  MutexLock lock(mu_);
  return {{"weight_bytes", given_}, {"weight_bytes_saved", saved_}};
}

}  // namespace plumb
