// Keys and values of the store as bytes: the only place that knows them.
//
// A value is CRC32C over (key, payload), 4 bytes little endian, then the payload; the key is part
// of the sum, so a value that turns up under another key is noticed as well. Integers in keys are
// big endian (they sort), in values little.
// Thread safety: pure functions. Errors: kCorruption naming the key.
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "common/record/codec.h"
#include "common/record/trajectory.h"
#include "replay/store/byte_io.h"
#include "replay/store/store.h"

namespace plumb::replay {

std::pair<Purpose, uint64_t> ParseLeaseKey(std::string_view key);
// Keys of leases and groups: LeaseKey of common/record/group_body.h.
std::string PromptKey(std::string_view dataset, uint64_t row);
std::string EvaluationKey(int64_t version, int32_t samples);
// For messages: "train lease 17", "prompt train/17", or the text or hex of it.
std::string ReadableKey(std::string_view family, std::string_view key);

std::string Seal(std::string_view key, std::string_view payload);
// The payload, a view into `value`.
std::string_view Unseal(std::string_view family, std::string_view key, std::string_view value);

// What Seal puts in front of the payload, and what stands in front of a value.
uint32_t ValueSum(std::string_view key, std::string_view payload);
uint32_t SumOf(std::string_view value);

// What the rows of a dataset are, in 64 bits that change with any of them and their order: that of
// the rows before and the next row's own (HashBytes of its bytes with row number 0).
uint64_t ChainRow(uint64_t hash, uint64_t row_hash);

std::string EncodeLeaseRecord(const LeaseRecord& record);
LeaseRecord DecodeLeaseRecord(std::string_view key, std::string_view payload);
// Throws kConflict where the row that is stored under a prompt's name is another one than `ref`
// says.
void CheckPromptSum(const PromptRef& ref, std::string_view value, const std::string& where);
// What a key of `groups` holds, with the scores that lie beside it (empty: it holds them): sums
// checked, decoded, and found to be of the lease that the key names. The prompt as it travels:
// Store::Read adds its texts.
StoredGroup OpenStoredGroup(std::string_view key, std::string_view value, std::string_view scores);
Prompt DecodePromptRow(std::string_view key, std::string_view payload);
PreferenceRecord DecodePreferenceRow(std::string_view key, std::string_view payload);
std::string LogprobKey(const Digest& model, const Digest& sequence);
std::string EncodeLogprobs(std::span<const float> logprobs);
std::vector<float> DecodeLogprobs(std::string_view key, std::string_view payload);  // finite, <= 0
std::string ScoreKey(Purpose purpose, uint64_t lease_id, std::string_view name);
// With the sum of the body that it is of. `body_sum`, where given, becomes that sum; 0 in records
// of before December 2026.
std::string EncodeGroupScore(const GroupScore& score, uint32_t body_sum);
GroupScore DecodeGroupScore(std::string_view key, std::string_view payload,
                            uint32_t* body_sum = nullptr);
// Whether a value of `scores` is of this value of `groups`.
bool ScoresAreOf(std::string_view scores, std::string_view body);
// What a group's trajectories say of themselves, and back.
GroupScore ScoresOf(const TrajectoryGroup& group);
void ApplyScores(const GroupScore& scores, TrajectoryGroup& group);
// Throws kCorruption for scores that cannot be of this group.
void CheckScores(const GroupHead& head, const GroupScore& scores);
std::string PlanKey(int64_t step);
int64_t ParsePlanKey(std::string_view key);
std::string EncodeStepPlan(const StepPlan& plan);
StepPlan DecodeStepPlan(std::string_view key, std::string_view payload);
std::string EncodeEvaluation(const Store::Evaluation& evaluation);
Store::Evaluation DecodeEvaluation(std::string_view key, std::string_view payload);

// Counters for the wire; the reader goes to the end.
void WriteCounters(const std::map<std::string, int64_t>& counters, ByteWriter& writer);
std::string EncodeCounters(const std::map<std::string, int64_t>& counters);
std::map<std::string, int64_t> ReadCounters(ByteReader& in);

// A batch for the wire: number of groups (4 bytes), then of each the key (9), and length (4) and
// bytes of the value and of its scores, all as the store holds them. Their sums are checked where
// they are read and once more by whoever decodes them.
class BatchWriter {
 public:
  // `expected_groups` saves memory from being moved.
  explicit BatchWriter(uint64_t expected_groups)
      : expected_groups_(expected_groups), bytes_(4, '\0') {}
  void Add(std::string_view key, std::string_view value, std::string_view scores);
  std::string Take();

 private:
  const uint64_t expected_groups_;
  uint32_t groups_ = 0;
  std::string bytes_;
};
// Trusts nothing; a damaged group is named by its lease.
std::vector<TrajectoryGroup> DecodeBatch(std::string_view bytes);

}  // namespace plumb::replay
