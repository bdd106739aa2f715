// What of a group never changes once its answers are there: written once, read where it lies.
//
//   actor ── Seal ──► the same bytes ──► reward worker ── Open, ForScoring
//                     the same bytes ──► store ── Open, head()
//                     the same bytes ──► learner ── Open, Unpack
//
// Purpose: tokens, log-probs, versions, finish, kept sets and texts of a group are encoded by the
// actor with their checksum and travel and lie in the store as these bytes; scores are a record of
// their own (replay/store/record.h). Form: CRC-32C over the group's key and all that follows (4
// bytes, little endian), the kind of the store's value (1 byte, 2), three zero bytes, and a
// GroupBody of common/record/schema/trajectory.fbs. A policy token takes its id and its log-prob, 8
// bytes; versions and the loss mask are runs; the prompt is written once for all answers, and
// without its text where the store that leased it has it. Experts that were recorded
// (expert_choices.h) come besides, those of the prompt once; a body without has the bytes that it
// had before there was a place for them. Goals: verified before it is read; a
// reader pays for what it reads. Non-goals: other readers than this file. Thread safety: const
// methods. Ownership: a body shares the bytes that it was opened on, or owns a copy where they were
// not aligned. Errors: Open: kCorruption for every byte that is wrong. Seal: kCorruption for a
// group that CheckInvariants refuses, kInvalidArgument for one too large to send or store
// (kMaxRecordBytes).
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "common/record/payload.h"
#include "common/record/trajectory.h"

namespace plumb {

namespace wire {
struct GroupBody;
}

// The key of a group in the store: purpose (1 byte), lease id (8, big endian).
std::string LeaseKey(Purpose purpose, uint64_t lease_id);

struct AnswerHead {
  FinishReason finish = FinishReason::kStop;
  uint32_t tokens = 0;  // prompt + completion
  uint32_t segments = 0;
};

// What a store judges a group by.
struct GroupHead {
  std::string run_id, actor;
  PromptLease lease;  // the prompt without text and tokens
  PolicyVersion policy;
  int64_t oldest_version = -1;  // that sampled any token; policy.version where none was sampled
  std::vector<AnswerHead> answers;
};
GroupHead HeadOf(const TrajectoryGroup& group);

class GroupBody {
 public:
  static GroupBody Seal(const TrajectoryGroup& group);
  // Checks everything there is to check. `summed`: the caller has checked the sum.
  static GroupBody Open(Payload bytes, bool summed = false);

  const GroupHead& head() const { return head_; }
  const Payload& bytes() const { return bytes_; }
  uint32_t sum() const;
  // The whole group, without scores. The prompt has no text where head().lease.prompt_sum names a
  // row of the store.
  TrajectoryGroup Unpack() const { return Read(/*whole=*/true); }
  // The same without loss masks, log-probs, versions, kept sets and experts.
  TrajectoryGroup ForScoring() const { return Read(/*whole=*/false); }

  // Whether these bytes say of themselves that they are a body.
  static bool IsBody(std::string_view bytes);

  // How many bodies this process has sealed and unpacked so far.
  struct Counts {
    int64_t sealed = 0, unpacked = 0;
  };
  static Counts counts();

 private:
  GroupBody() = default;
  void Map(Payload bytes);
  TrajectoryGroup Read(bool whole) const;

  Payload bytes_;
  std::shared_ptr<const uint64_t[]> aligned_;  // a copy, where bytes_ lie askew
  const wire::GroupBody* root_ = nullptr;
  GroupHead head_;
};

}  // namespace plumb
