#include "replay/store/prompt_cache.h"

#include "common/base/error.h"

namespace plumb::replay {
namespace {

constexpr size_t kMostAtOnce = 1024;  // prompts in one question

size_t BytesOf(const Prompt& prompt) {
  size_t bytes = sizeof(Prompt) + prompt.text.size() + prompt.ground_truth.size() +
                 prompt.extra_json.size() + 4 * prompt.tokens.size();
  for (const Message& m : prompt.messages)
    bytes += sizeof(Message) + m.role.size() + m.content.size() + m.fields_json.size();
  return bytes;
}

}  // namespace

const Prompt* PromptCache::Find(const Key& key) {
  const auto found = index_.find(key);
  if (found == index_.end()) return nullptr;
  entries_.splice(entries_.begin(), entries_, found->second);
  return &found->second->prompt;
}

void PromptCache::Keep(const PromptRef& ref, const Prompt& prompt) {
  const size_t bytes = BytesOf(prompt);
  if (bytes > max_bytes_ || index_.contains(KeyOf(ref))) return;
  while (bytes_ + bytes > max_bytes_) {
    bytes_ -= entries_.back().bytes;
    index_.erase(entries_.back().key);
    entries_.pop_back();
  }
  entries_.push_front({KeyOf(ref), prompt, bytes});
  index_[KeyOf(ref)] = entries_.begin();
  bytes_ += bytes;
}

void PromptCache::Want(const PromptRef& ref) {
  MutexLock lock(mu_);
  if (!index_.contains(KeyOf(ref))) wanted_.emplace(KeyOf(ref), ref);
}

Prompt PromptCache::Get(const PromptRef& ref) {
  const auto at_hand = [&]() -> std::optional<Prompt> {
    MutexLock lock(mu_);
    const Prompt* const found = Find(KeyOf(ref));
    return found != nullptr ? std::optional(*found) : std::nullopt;
  };
  if (auto found = at_hand()) return std::move(*found);
  MutexLock asking(asking_);
  if (auto found = at_hand()) return std::move(*found);  // another thread's question brought it
  std::vector<PromptRef> refs = {ref};
  {
    MutexLock lock(mu_);
    wanted_.erase(KeyOf(ref));
    for (const auto& [key, wanted] : wanted_) {
      if (refs.size() == kMostAtOnce) break;
      refs.push_back(wanted);
    }
  }
  const std::vector<Prompt> prompts = ask_(refs);
  PLUMB_CHECK(prompts.size() == refs.size(), "a question for prompts was answered in part");
  MutexLock lock(mu_);
  for (size_t i = refs.size(); i-- > 0;) {  // the one asked for last: it goes last
    wanted_.erase(KeyOf(refs[i]));
    Keep(refs[i], prompts[i]);
  }
  return prompts.front();
}

}  // namespace plumb::replay
