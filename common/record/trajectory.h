// The record that travels the ring. Start reading here, then common/record/ports.h, then
// run/roles/roles.h.
//
// Purpose: a prompt (task), the lease under which an actor answers it, and the group of answers
// with everything that was true when they were made: tokens, who wrote them, log-probabilities,
// policy versions, rewards.
// Thread safety: plain values. Ownership: each value owns its arrays.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "common/base/hash/digest.h"
#include "common/record/expert_choices.h"

namespace plumb {

// Which weights: the learner's counter and what they were.
struct PolicyVersion {
  int64_t version = -1;  // -1: none yet
  Digest digest;         // empty: none yet
  bool operator==(const PolicyVersion&) const = default;
};

// One turn of a dialogue. Most say no more than two texts; what else a row's message holds travels
// along as it is written there, for the chat template: tool_calls, name, reasoning_content, weight,
// ...
struct Message {
  std::string role;  // system | developer | user | assistant | tool | function | ipython
  std::string
      content;  // its text; of a list of text parts all of them in a row; "" where it is null
  // "" or one JSON object without blanks: the other keys in their order, none of them null, and in
  // front of them "content" where that is no text but null or a list of parts. Never "role".
  std::string fields_json = {};
  bool operator==(const Message&) const = default;
};

// A task. Exactly one of `text` and `messages` is non-empty; `tokens` is filled once, by whoever
// owns the tokenizer, and from then on is the truth (text is never tokenized again).
struct Prompt {
  std::string dataset;            // name of the table it was imported into
  uint64_t row = 0;               // row number there, stable over imports
  std::string text;               // used as it is
  std::vector<Message> messages;  // rendered through the chat template
  std::string ground_truth;       // what a rule compares with; may be empty
  // every other column of the row as one JSON object; reaches the reward function
  std::string extra_json;
  double weight = 1.0;
  std::vector<int32_t> tokens;  // [S_prompt]
  bool operator==(const Prompt&) const = default;
};

// Do not change the values of existing entries: they are stored.
enum class Purpose : uint8_t {
  kTrain = 0,  // consumed by the learner
  kEval = 1,   // held-out, never trained on
};

// A prompt promised to an actor until a deadline. Lease ids are issued by the store, consecutive
// from 0 within a purpose, and never reused; a prompt handed out again keeps its id and has a
// higher attempt.
struct PromptLease {
  uint64_t lease_id = 0;
  Purpose purpose = Purpose::kTrain;
  uint32_t attempt = 0;
  int32_t num_samples = 1;  // group size G
  // The checksum of the prompt's row in the store that leased it. With one the prompt travels as
  // (dataset, row, tokens), and who needs its text, messages, ground truth or other columns asks
  // the store. 0: it comes from no store and travels whole.
  uint32_t prompt_sum = 0;
  // the version that has to sample it (schedule sync, eval); -1: the newest at hand
  int64_t policy_version = -1;
  int64_t deadline_ms = 0;  // store's monotonic clock, for its own bookkeeping
  Prompt prompt;
  bool operator==(const PromptLease&) const = default;
};

// Who wrote a range of tokens. Do not change the values of existing entries: they are stored.
enum class Origin : uint8_t { kPrompt = 0, kPolicy = 1, kEnvironment = 2 };

struct Segment {
  Origin origin = Origin::kPrompt;
  int32_t begin = 0;  // token range [begin, end) of the trajectory
  int32_t end = 0;
  bool operator==(const Segment&) const = default;
};

// What an environment made of one turn of the policy.
struct Turn {
  int32_t segment = 0;           // the turn's, of the trajectory
  std::optional<double> reward;  // what it said of the turn; finite
  bool called = false;           // it answered, or could not: the turn was a call
  bool failed_call = false;      // malformed, unknown, or it raised
  bool operator==(const Turn&) const = default;
};

// Do not change the values of existing entries: they are stored.
enum class FinishReason : uint8_t {
  kStop = 0,     // the model ended it: end-of-sequence or a stop rule
  kLength = 1,   // cut at the token limit ("clipped")
  kAborted = 2,  // given up by the actor; never trained on
};

// What a reward is attached to. Do not change the values of existing entries: they are stored.
enum class RewardScope : uint8_t { kTrajectory = 0, kSegment = 1, kToken = 2 };

// One named component of a score.
struct RewardPart {
  std::string name;   // "correct", "format", ...
  double value = 0;   // finite; in [0, 1] for built-in rules
  double weight = 1;  // its share in Trajectory::reward
  RewardScope scope = RewardScope::kTrajectory;
  int32_t index = 0;            // segment or token number for the other scopes
  std::string function_digest;  // which code computed it
  bool operator==(const RewardPart&) const = default;
};

// One answer. Invariants (CheckInvariants): segments cover [0, tokens.size()) in order without
// holes; the per-token arrays are as long as tokens; loss_mask is 1 only in policy segments;
// logprobs are finite and <= 0, and 0 where the origin is not the policy; policy_versions are >= 0
// exactly where the origin is the policy; `turns` are of policy segments in order; `kept` is empty
// or has a set a token that holds it; `experts` is not there or of all tokens but the last.
struct Trajectory {
  uint32_t sample = 0;          // 0..G-1 within the group: part of the random address
  std::vector<int32_t> tokens;  // [S] prompt + completion
  std::vector<Segment> segments;
  std::vector<uint8_t> loss_mask;        // [S] 1: this token is trained on
  std::vector<float> logprobs;           // [S] of the distribution that was sampled from, in nats
  std::vector<int64_t> policy_versions;  // [S] version that sampled the token, -1 elsewhere
  FinishReason finish = FinishReason::kStop;
  // text of the policy's and environment's tokens, special tokens kept
  std::string completion;
  // Where an environment takes part: of each of the policy's segments. Empty: there is none.
  std::vector<Turn> turns;
  std::vector<RewardPart> rewards;
  // sum of weight * value over all parts; valid when scored
  double reward = 0;
  bool scored = false;
  std::string unscored_reason;  // why not, when !scored after the reward role
  // Where a sampling filter was on: for each token of [0, S) the set it was drawn from
  // (common/record/kept_tokens.h), every token where the origin is not the policy. logprobs are of
  // those sets. Empty: no filter was on.
  std::vector<uint8_t> kept;
  // Where rollout.replay_experts was on: the experts that each token of [0, S - 1) went through
  // when its keys and values were computed, a prompt's too. Not there: not recorded.
  ExpertChoices experts;
  bool operator==(const Trajectory&) const = default;

  int32_t prompt_length() const;      // end of the leading prompt segment
  int32_t completion_length() const;  // tokens.size() - prompt_length()
  int32_t policy_length() const;      // tokens that the policy wrote: all segments of it
};

// The G answers of one prompt: the unit of transport, scoring, storage and advantage.
// Unique in a store by (run_id, lease.lease_id, lease.purpose).
struct TrajectoryGroup {
  std::string run_id;
  std::string actor;  // which actor made it
  PromptLease lease;
  PolicyVersion policy;                  // the newest version that sampled any token of it
  std::vector<Trajectory> trajectories;  // [G], ordered by sample
  bool operator==(const TrajectoryGroup&) const = default;
};

// A demonstration: tokens with a loss mask, for supervised fine-tuning.
struct Demonstration {
  std::vector<int32_t> tokens;     // [S]
  std::vector<uint8_t> loss_mask;  // [S] 1: learn to predict this token
  bool operator==(const Demonstration&) const = default;
};

// Throws Error(kCorruption) naming the first invariant that does not hold.
void CheckInvariants(const Trajectory& trajectory);
void CheckInvariants(const TrajectoryGroup& group);
// One rule of them by itself: a set for each token of the segments, which tile `tokens`, and each
// holds its token.
void CheckKept(std::span<const uint8_t> kept, std::span<const int32_t> tokens,
               std::span<const Segment> segments);

}  // namespace plumb
