// Keys and values of the store as bytes: the only place that knows them.
//
// A value is CRC32C over (key, payload), 4 bytes little endian, then the payload; the key is part of the sum, so a value
// that turns up under another key is noticed as well. Integers in keys are big endian (they sort), in values little.
// Thread safety: pure functions. Errors: kCorruption naming the key.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "common/codec.h"
#include "common/trajectory.h"
#include "replay/store.h"

namespace plumb::replay {

std::string LeaseKey(Purpose purpose, uint64_t lease_id);              // leases and groups
std::pair<Purpose, uint64_t> ParseLeaseKey(std::string_view key);
std::string PromptKey(std::string_view dataset, uint64_t row);
std::string EvaluationKey(int64_t version, int32_t samples);
// For messages: "train lease 17", "prompt train/17", or the text or hex of it.
std::string ReadableKey(std::string_view family, std::string_view key);

std::string Seal(std::string_view key, std::string_view payload);
// The payload, a view into `value`.
std::string_view Unseal(std::string_view family, std::string_view key, std::string_view value);

// What Seal puts in front of the payload.
uint32_t ValueSum(std::string_view key, std::string_view payload);

// What the rows of a dataset are, in 64 bits that change with any of them and their order: that of the rows before and the next
// row's own (HashBytes of its bytes with row number 0).
uint64_t ChainRow(uint64_t hash, uint64_t row_hash);

std::string EncodeLeaseRecord(const LeaseRecord& record);
LeaseRecord DecodeLeaseRecord(std::string_view key, std::string_view payload);
std::string EncodeStoredGroup(const StoredGroup& stored);
StoredGroup DecodeStoredGroup(std::string_view key, std::string_view payload);
// Seal(key, EncodeStoredGroup) of a whole group, without copies between.
std::string SealGroup(std::string_view key, const TrajectoryGroup& group);
// What a key of `groups` holds: the sum checked, decoded, and found to be of the lease that the key names.
StoredGroup OpenStoredGroup(std::string_view key, std::string_view value);
std::string EncodePromptRow(const Prompt& prompt);
Prompt DecodePromptRow(std::string_view key, std::string_view payload);
std::string EncodePreferenceRow(const PreferenceRecord& record);
PreferenceRecord DecodePreferenceRow(std::string_view key, std::string_view payload);
std::string LogprobKey(const Digest& model, const Digest& sequence);
std::string EncodeLogprobs(std::span<const float> logprobs);
std::vector<float> DecodeLogprobs(std::string_view key, std::string_view payload);  // finite, <= 0
std::string ScoreKey(Purpose purpose, uint64_t lease_id, std::string_view name);
std::string EncodeGroupScore(const GroupScore& score);
GroupScore DecodeGroupScore(std::string_view key, std::string_view payload);
std::string PlanKey(int64_t step);
int64_t ParsePlanKey(std::string_view key);
std::string EncodeStepPlan(const StepPlan& plan);
StepPlan DecodeStepPlan(std::string_view key, std::string_view payload);
std::string EncodeEvaluation(const Store::Evaluation& evaluation);
Store::Evaluation DecodeEvaluation(std::string_view key, std::string_view payload);

// Little-endian writer and bounds-checked reader for the few structures that are not FlatBuffers.
class ByteWriter {
 public:
  ByteWriter& U8(uint8_t v);
  ByteWriter& U32(uint32_t v);
  ByteWriter& U64(uint64_t v);
  ByteWriter& Bytes(std::string_view v);  // u32 length, bytes
  std::string Take() { return std::move(out_); }
  const std::string& bytes() const { return out_; }

 private:
  std::string out_;
};

class ByteReader {
 public:
  // `what` names the structure in errors.
  ByteReader(std::string_view bytes, std::string what) : bytes_(bytes), what_(std::move(what)) {}
  uint8_t U8();
  uint32_t U32();
  uint64_t U64();
  std::string_view Bytes(size_t max_length);  // a view into the bytes given
  std::string_view Raw(size_t n) { return Next(n); }  // the next n bytes, a view as well
  std::string_view Rest();  // all that is left
  bool AtEnd() const { return at_ == bytes_.size(); }
  void ExpectEnd() const;  // throws when bytes are left over

 private:
  std::string_view Next(size_t n);
  std::string_view bytes_;
  std::string what_;
  size_t at_ = 0;
};

// A batch for the wire: number of groups (4 bytes), then of each the key (9) and length (4) and bytes of the value, both as the store
// holds them. The sum over both is checked where they are read and once more by whoever decodes them.
class BatchWriter {
 public:
  // `expected_groups` saves memory from being moved.
  explicit BatchWriter(uint64_t expected_groups)
      : expected_groups_(expected_groups), bytes_(4, '\0') {}
  void Add(std::string_view key, std::string_view value);
  std::string Take();

 private:
  const uint64_t expected_groups_;
  uint32_t groups_ = 0;
  std::string bytes_;
};
// Trusts nothing; a damaged group is named by its lease.
std::vector<TrajectoryGroup> DecodeBatch(std::string_view bytes);

}  // namespace plumb::replay
