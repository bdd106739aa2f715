#include "run/roles/cluster/roster.h"

#include "common/base/error.h"

namespace plumb::run {

Roster::Roster(std::chrono::milliseconds lost_after, std::function<Clock::time_point()> now)
    : lost_after_(lost_after), now_(now ? std::move(now) : [] { return Clock::now(); }) {
  for (const char* name : {"joined", "left", "lost", "fenced"}) counters_[name] = 0;
}

void Roster::CheckLife(const std::string& name, uint64_t epoch) {
  const auto newest = epochs_.find(name);
  if (newest == epochs_.end() || epoch >= newest->second) return;
  ++counters_["fenced"];
  throw Error(ErrorCode::kConflict, "a newer process has joined as '" + name +
                                        "'; this one must end (are two roles given one --name?)");
}

bool Roster::Join(const Member& member) {
  CheckMemberName(member.name);
  MutexLock lock(mu_);
  CheckLife(member.name, member.epoch);
  const auto found = there_.find(member.name);
  if (found == there_.end() && epochs_.size() >= kMaxMembers && !epochs_.contains(member.name)) {
    throw Error(ErrorCode::kUnavailable, "this run has seen " + std::to_string(kMaxMembers) +
                                             " names of roles, which is the most that it takes");
  }
  const bool again = found != there_.end() && found->second.member.epoch == member.epoch;
  const bool older = found != there_.end() && !again;
  if (!again) ++counters_["joined"];
  epochs_[member.name] = member.epoch;
  there_[member.name] = {member, now_()};
  return older;
}

bool Roster::Beat(const std::string& name, uint64_t epoch) {
  MutexLock lock(mu_);
  CheckLife(name, epoch);
  const auto found = there_.find(name);
  if (found == there_.end() || found->second.member.epoch != epoch) return false;
  found->second.heard = now_();
  return true;
}

bool Roster::Leave(const std::string& name, uint64_t epoch) {
  MutexLock lock(mu_);
  CheckLife(name, epoch);
  const auto found = there_.find(name);
  if (found == there_.end() || found->second.member.epoch != epoch) return false;
  there_.erase(found);
  ++counters_["left"];
  return true;
}

std::vector<Member> Roster::Sweep() {
  MutexLock lock(mu_);
  std::vector<Member> lost;
  const Clock::time_point now = now_();
  std::erase_if(there_, [&](const auto& each) {
    if (now - each.second.heard <= lost_after_) return false;
    lost.push_back(each.second.member);
    return true;
  });
  counters_["lost"] += static_cast<int64_t>(lost.size());
  return lost;
}

std::vector<Member> Roster::members() const {
  MutexLock lock(mu_);
  std::vector<Member> out;
  for (const auto& [name, entry] : there_) out.push_back(entry.member);
  return out;
}

int64_t Roster::Count(MemberKind kind) const {
  MutexLock lock(mu_);
  int64_t n = 0;
  for (const auto& [name, entry] : there_) n += entry.member.kind == kind ? 1 : 0;
  return n;
}

std::map<std::string, int64_t> Roster::counters() const {
  MutexLock lock(mu_);
  return counters_;
}

}  // namespace plumb::run
