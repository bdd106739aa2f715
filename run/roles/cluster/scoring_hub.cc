#include "run/roles/cluster/scoring_hub.h"

#include <algorithm>
#include <utility>

#include "common/base/error.h"
#include "replay/store/byte_io.h"

namespace plumb::run {
namespace {

constexpr size_t kMaxName = 256;
constexpr uint32_t kMaxIds = 65'536, kMostAtOnce = 4096;
constexpr uint64_t kLongestWaitMs = 60'000;
constexpr size_t kWorkBytes = size_t{64} << 20;  // one answer goes on until it is so large
constexpr size_t kMaxBody = size_t{1} << 30;

}  // namespace

std::string EncodeTake(const TakeQuestion& question) {
  replay::ByteWriter out;
  out.Bytes(question.worker).U32(static_cast<uint32_t>(question.done.size()));
  for (const uint64_t id : question.done) out.U64(id);
  return out.U32(question.most).U64(question.wait_ms).Take();
}

TakeQuestion DecodeTake(std::string_view bytes) {
  replay::ByteReader in(bytes, "a question for groups to score");
  TakeQuestion question;
  question.worker = std::string(in.Bytes(kMaxName));
  const uint32_t n = in.U32();
  if (n > kMaxIds)
    throw Error(ErrorCode::kCorruption,
                "a reward worker claims to have scored " + std::to_string(n) + " groups at once");
  for (uint32_t i = 0; i < n; ++i) question.done.push_back(in.U64());
  question.most = std::min(in.U32(), kMostAtOnce);
  question.wait_ms = std::min(in.U64(), kLongestWaitMs);
  in.ExpectEnd();
  return question;
}

std::string EncodeWork(const std::vector<ScoringWork>& work) {
  replay::ByteWriter out;
  out.U32(static_cast<uint32_t>(work.size()));
  for (const ScoringWork& each : work) out.U64(each.id).Bytes(each.body.view());
  return out.Take();
}

std::vector<ScoringWork> DecodeWork(const Payload& bytes) {
  replay::ByteReader in(bytes.view(), "groups to score");
  const uint32_t n = in.U32();
  if (n > kMostAtOnce)
    throw Error(ErrorCode::kCorruption, "the head claims to give " + std::to_string(n) + " groups");
  std::vector<ScoringWork> work;
  for (uint32_t i = 0; i < n; ++i) {
    const uint64_t id = in.U64();
    const std::string_view body = in.Bytes(kMaxBody);
    work.push_back(
        {id, bytes.Part(static_cast<size_t>(body.data() - bytes.view().data()), body.size())});
  }
  in.ExpectEnd();
  return work;
}

std::vector<ScoringWork> ScoringHub::HandOut(const std::string& worker, bool here, size_t most) {
  std::vector<ScoringWork> work;
  size_t bytes = 0;
  while (!queue_.empty() && work.size() < most && bytes < kWorkBytes) {
    const uint64_t id = queue_.front();
    queue_.pop_front();
    Item& item = items_.at(id);
    item.worker = worker;
    item.here = here;
    item.until = After(patience_);
    work.push_back({id, item.body});
    bytes += item.body.size();
  }
  return work;
}

void ScoringHub::PutBack(uint64_t id, Item& item) {
  item.worker.clear();
  item.here = false;
  ++back_;
  queue_.push_front(id);  // it has waited longest
}

std::vector<std::pair<RpcResponder, std::string>> ScoringHub::Answers(bool late) {
  std::vector<std::pair<RpcResponder, std::string>> answers;
  const auto now = std::chrono::steady_clock::now();
  for (auto it = asking_.begin(); it != asking_.end();) {
    // So that one worker does not take what several could score side by side.
    const size_t share = (queue_.size() + static_cast<size_t>(std::max<int64_t>(1, workers_)) - 1) /
                         static_cast<size_t>(std::max<int64_t>(1, workers_));
    const size_t most = std::min<size_t>(it->question.most, share);
    if (most == 0 && !closed_ && !(late && it->until <= now)) {
      ++it;
      continue;
    }
    answers.emplace_back(std::move(it->responder),
                         EncodeWork(closed_ ? std::vector<ScoringWork>{}
                                            : HandOut(it->question.worker, false, most)));
    it = asking_.erase(it);
  }
  return answers;
}

void ScoringHub::Answer(std::vector<std::pair<RpcResponder, std::string>> answers) {
  for (auto& [responder, text] : answers) responder.Reply(std::move(text));
}

void ScoringHub::Offer(Payload body, std::function<void()> done) {
  std::vector<std::pair<RpcResponder, std::string>> answers;
  {
    MutexLock lock(mu_);
    if (closed_) return;  // `done` is not called: its sender keeps it
    const uint64_t id = next_++;
    items_[id] = {.body = std::move(body), .done = std::move(done), .worker = {}};
    queue_.push_back(id);
    answers = Answers(/*late=*/false);
    changed_.notify_all();
  }
  Answer(std::move(answers));
}

void ScoringHub::Take(const TakeQuestion& question, RpcResponder responder) {
  Done(question.done);
  std::vector<std::pair<RpcResponder, std::string>> answers;
  {
    MutexLock lock(mu_);
    const auto wait = std::chrono::milliseconds(question.most == 0 ? 0 : question.wait_ms);
    asking_.push_back({question, After(wait), std::move(responder)});
    answers = Answers(/*late=*/true);
  }
  Answer(std::move(answers));
}

void ScoringHub::Done(const std::vector<uint64_t>& ids) {
  std::vector<std::function<void()>> settled;
  {
    MutexLock lock(mu_);
    for (const uint64_t id : ids) {
      const auto found = items_.find(id);
      if (found == items_.end()) continue;  // somebody else's were first
      ++(found->second.here ? here_ : scored_);
      settled.push_back(std::move(found->second.done));
      std::erase(queue_, id);  // it was taken back, and came all the same
      items_.erase(found);
    }
  }
  for (const auto& done : settled) done();
}

void ScoringHub::ShareAmong(int64_t workers) {
  MutexLock lock(mu_);
  workers_ = workers;
  changed_.notify_all();
}

void ScoringHub::Left(const std::string& worker) {
  std::vector<std::pair<RpcResponder, std::string>> answers;
  {
    MutexLock lock(mu_);
    std::erase_if(asking_, [&](const Waiting& w) { return w.question.worker == worker; });
    for (auto it = items_.rbegin(); it != items_.rend(); ++it) {
      if (it->second.worker == worker) PutBack(it->first, it->second);
    }
    answers = Answers(/*late=*/false);
    changed_.notify_all();
  }
  Answer(std::move(answers));
}

std::vector<ScoringWork> ScoringHub::TakeHere(size_t most, Deadline deadline) {
  MutexLock lock(mu_);
  changed_.wait_until(lock, deadline, [&]() PLUMB_REQUIRES(mu_) {
    return closed_ || (workers_ == 0 && !queue_.empty());
  });
  if (closed_ || workers_ > 0) return {};
  return HandOut("", true, most);
}

void ScoringHub::Tick() {
  std::vector<std::pair<RpcResponder, std::string>> answers;
  {
    MutexLock lock(mu_);
    const auto now = std::chrono::steady_clock::now();
    for (auto it = items_.rbegin(); it != items_.rend(); ++it) {
      Item& item = it->second;
      if (!item.worker.empty() && item.until <= now) PutBack(it->first, item);
    }
    answers = Answers(/*late=*/true);
    changed_.notify_all();
  }
  Answer(std::move(answers));
}

void ScoringHub::Close() {
  std::vector<std::pair<RpcResponder, std::string>> answers;
  {
    MutexLock lock(mu_);
    closed_ = true;
    answers = Answers(/*late=*/true);
    changed_.notify_all();
  }
  Answer(std::move(answers));
}

size_t ScoringHub::waiting() const {
  MutexLock lock(mu_);
  return queue_.size();
}

std::map<std::string, int64_t> ScoringHub::counters() const {
  MutexLock lock(mu_);
  return {{"offered", static_cast<int64_t>(next_ - 1)},
          {"scored", scored_},
          {"scored_here", here_},
          {"taken_back", back_}};
}

}  // namespace plumb::run
