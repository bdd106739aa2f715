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

// The same into `value`, which keeps its memory.
void SealInto(std::string_view key, std::string_view payload, std::string& value);

// What the rows of a dataset are, in 64 bits that change with any of them and their order: that of the rows before and the next
// row's own (HashBytes of its bytes with row number 0).
uint64_t ChainRow(uint64_t hash, uint64_t row_hash);

std::string EncodeLeaseRecord(const LeaseRecord& record);
LeaseRecord DecodeLeaseRecord(std::string_view key, std::string_view payload);
std::string EncodeStoredGroup(const StoredGroup& stored);
StoredGroup DecodeStoredGroup(std::string_view key, std::string_view payload);
// A batch for the wire. Dropped groups (no trajectories) keep their lease whole, which the records' codec alone refuses.
std::string EncodeBatch(std::vector<TrajectoryGroup> groups);
std::vector<TrajectoryGroup> DecodeBatch(std::string_view bytes);
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
  std::string_view Rest();  // all that is left
  bool AtEnd() const { return at_ == bytes_.size(); }
  void ExpectEnd() const;  // throws when bytes are left over

 private:
  std::string_view Take(size_t n);
  std::string_view bytes_;
  std::string what_;
  size_t at_ = 0;
};

}  // namespace plumb::replay
