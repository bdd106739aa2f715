// Finished groups at the head of a cluster, waiting for whoever scores them.
//
//   actors ──sealed groups──► Offer ──► queue ──► Take ──► reward workers that have joined
//                                          └────► TakeHere ──► the head, while none has
//   Done: its scores are durable, and its actor is told.
//
// Purpose: reward workers ask for work and listen nowhere, so that they come and go. What a worker
// was given and has not said Done to goes back into the queue when it has left, is lost, or has had
// it for longer than `patience`; scores that come twice are one (the store's key is the lease).
// Thread safety: all methods. Ownership: keeps the bodies until Done; `done` is called once, from a
// thread of whoever said Done, without a lock. Errors: kCorruption for a malformed question.
#pragma once

#include <chrono>
#include <cstdint>
#include <deque>
#include <functional>
#include <list>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/mutex.h"
#include "common/net/rpc/rpc.h"
#include "common/record/payload.h"
#include "common/record/ports.h"

namespace plumb::run {

// Verb, its question and its answer.
inline constexpr char kTakeVerb[] = "scoring.take";
struct TakeQuestion {
  std::string worker;
  std::vector<uint64_t> done;  // of what it was given before
  uint32_t most = 0;           // groups; 0: it only says what is done
  uint64_t wait_ms = 0;
};
struct ScoringWork {
  uint64_t id = 0;
  Payload body;  // GroupBody::Open reads it
};
std::string EncodeTake(const TakeQuestion& question);
TakeQuestion DecodeTake(std::string_view bytes);
std::string EncodeWork(const std::vector<ScoringWork>& work);
std::vector<ScoringWork> DecodeWork(const Payload& bytes);

class ScoringHub {
 public:
  explicit ScoringHub(std::chrono::milliseconds patience) : patience_(patience) {}
  ~ScoringHub() { Close(); }

  void Offer(Payload body, std::function<void()> done);
  // Answers now, with the first group, or when the wait is over.
  void Take(const TakeQuestion& question, RpcResponder responder);
  void Done(const std::vector<uint64_t>& ids);
  // How many workers share the work; 0: the head scores.
  void ShareAmong(int64_t workers);
  // It left or was lost: others get what it has.
  void Left(const std::string& worker);
  // For the head: nothing while workers are there.
  std::vector<ScoringWork> TakeHere(size_t most, Deadline deadline);
  // What is due: waits that are over, work that somebody has had for too long. Some times a second.
  void Tick();
  // Nobody gets anything any more.
  void Close();

  size_t waiting() const;  // groups that nobody has
  // offered, scored, scored_here, taken_back.
  std::map<std::string, int64_t> counters() const;

 private:
  struct Item {
    Payload body;
    std::function<void()> done;
    std::string worker;  // who has it; empty: it waits
    bool here = false;   // the head has it
    Deadline until{};    // of whoever has it
  };
  struct Waiting {
    TakeQuestion question;
    Deadline until;
    RpcResponder responder;
  };
  std::vector<ScoringWork> HandOut(const std::string& worker, bool here, size_t most)
      PLUMB_REQUIRES(mu_);
  void PutBack(uint64_t id, Item& item) PLUMB_REQUIRES(mu_);
  // Those that can be answered now, with what they get.
  std::vector<std::pair<RpcResponder, std::string>> Answers(bool late) PLUMB_REQUIRES(mu_);
  void Answer(std::vector<std::pair<RpcResponder, std::string>> answers);

  const std::chrono::milliseconds patience_;
  mutable Mutex mu_;
  CondVar changed_;
  std::map<uint64_t, Item> items_ PLUMB_GUARDED_BY(mu_);
  std::deque<uint64_t> queue_ PLUMB_GUARDED_BY(mu_);
  std::list<Waiting> asking_ PLUMB_GUARDED_BY(mu_);
  uint64_t next_ PLUMB_GUARDED_BY(mu_) = 1;
  int64_t workers_ PLUMB_GUARDED_BY(mu_) = 0;
  int64_t scored_ PLUMB_GUARDED_BY(mu_) = 0, here_ PLUMB_GUARDED_BY(mu_) = 0,
                  back_ PLUMB_GUARDED_BY(mu_) = 0;
  bool closed_ PLUMB_GUARDED_BY(mu_) = false;
};

}  // namespace plumb::run
