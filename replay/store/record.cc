#include "replay/store/record.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <memory>
#include <span>

#include "common/base/error.h"
#include "common/base/hash/crc32c.h"
#include "common/base/hash/digest.h"
#include "common/base/text.h"
#include "common/record/codec.h"

namespace plumb::replay {
namespace {

constexpr size_t kMaxReason = size_t{1} << 20;
constexpr size_t kLeaseKeyBytes = 9;
constexpr size_t kMaxName = 4096, kMaxCounters = 10'000;
constexpr size_t kSumBytes = 4, kKindBytes = 1;
constexpr size_t kBodyBytes = 4;  // from the sum to the record of a body
constexpr uint32_t kScores =
    ~uint32_t{0};  // begins a GroupScore; before December 2026 it was the number of answers
constexpr uint8_t kScored = 1, kAborted = 2;

void AppendBigEndian(std::string& out, uint64_t v, size_t bytes) {
  char text[8];
  for (size_t i = bytes; i-- > 0; v >>= 8) text[i] = static_cast<char>(v & 0xFF);
  out.append(text, bytes);
}

void AppendLittleEndian(std::string& out, uint32_t v) {
  for (int shift = 0; shift < 32; shift += 8) out.push_back(static_cast<char>((v >> shift) & 0xFF));
}

uint64_t ReadBigEndian(std::string_view bytes) {
  uint64_t v = 0;
  for (const char c : bytes) v = (v << 8) | static_cast<uint8_t>(c);
  return v;
}

uint32_t Sum(std::string_view key, std::string_view payload) {
  return Crc32c(payload, Crc32c(key));
}

// The payload of a value, where `sum_of` adds it to the sum of the key.
template <class AddTo>
std::string_view CheckedPayload(std::string_view family, std::string_view key,
                                std::string_view value, AddTo sum_of) {
  const auto broken = [&](const char* how) {
    throw Error(
        ErrorCode::kCorruption,
        std::string(how) +
            "; the value is not used: look at the disk, resume from a copy or an older checkpoint",
        "store record '" + ReadableKey(family, key) + "'");
  };
  if (value.size() < kSumBytes) broken("the value is shorter than its checksum");
  const std::string_view payload = value.substr(kSumBytes);
  if (SumOf(value) != sum_of(payload, Crc32c(key))) broken("the bytes do not match their CRC32C");
  return payload;
}

// A group's value, copied while it is summed to where the record behind its kind lies aligned: the
// codec then needs no copy of its own.
class AlignedValue {
 public:
  AlignedValue(std::string_view key, std::string_view value) {
    // Asking the system for such memory again and again may cost more than all the rest. The pages
    // that no group has reached are not there.
    thread_local std::unique_ptr<uint64_t[]> kept;
    const size_t words = value.size() / 8 + 3;
    if (words <= kKeptWords && !kept) kept = std::make_unique_for_overwrite<uint64_t[]>(kKeptWords);
    if (words > kKeptWords) large_ = std::make_unique_for_overwrite<uint64_t[]>(words);
    char* const to = reinterpret_cast<char*>(large_ ? large_.get() : kept.get()) + 16 -
                     (GroupBody::IsBody(value) ? kBodyBytes : kKindBytes);
    CheckedPayload("groups", key, value, [&](std::string_view payload, uint32_t seed) {
      return Crc32cCopy(payload.data(), payload.size(), to, seed);
    });
    std::copy_n(value.data(), kSumBytes, to - kSumBytes);
    value_ = {to - kSumBytes, value.size()};
  }
  // As long as this is there, and the next of this thread is not.
  std::string_view value() const { return value_; }

 private:
  static constexpr size_t kKeptWords = (size_t{16} << 20) / 8;
  std::unique_ptr<uint64_t[]> large_;
  std::string_view value_;
};

// Body and scores in one, as they were stored before December 2026.
StoredGroup DecodeWhole(std::string_view key, std::string_view payload) {
  const std::string where = ReadableKey("groups", key);
  ByteReader reader(payload, where);
  StoredGroup stored;
  const uint8_t kind = reader.U8();
  if (kind > static_cast<uint8_t>(GroupKind::kDropped)) {
    throw Error(ErrorCode::kUnsupported,
                "unknown kind " + std::to_string(kind) + ": written by a newer Plumb?", where);
  }
  stored.kind = static_cast<GroupKind>(kind);
  uint32_t samples = 0;
  if (stored.kind == GroupKind::kDropped) {
    stored.drop_reason = reader.Bytes(kMaxReason);
    samples = reader.U32();
  }
  stored.group = DecodeTrajectoryGroup(BytesOf(reader.Rest()));
  const size_t answers =
      stored.group.trajectories.size();  // still earlier ones stored none of a dropped group
  if (stored.kind == GroupKind::kGroup ? answers == 0 : answers != 0 && answers != samples) {
    throw Error(ErrorCode::kCorruption, "its kind and its trajectories contradict each other",
                where);
  }
  if (stored.kind == GroupKind::kDropped)
    stored.group.lease.num_samples = static_cast<int32_t>(samples);
  return stored;
}

StoredGroup DecodeBody(std::string_view key, std::string_view value,
                       std::string_view scores_value) {
  StoredGroup stored;
  try {
    const GroupBody body = GroupBody::Open(Payload(nullptr, value), /*summed=*/true);
    const GroupScore scores = DecodeGroupScore(key, Unseal("scores", key, scores_value));
    CheckScores(body.head(), scores);
    stored.group = body.Unpack();
    ApplyScores(scores, stored.group);
    stored.kind = scores.dropped ? GroupKind::kDropped : GroupKind::kGroup;
    stored.drop_reason = scores.dropped.value_or("");
  } catch (const Error& e) {
    throw e.where().empty() ? Error(e.code(), e.message(), ReadableKey("groups", key)) : e;
  }
  if (!ScoresAreOf(scores_value, value)) {
    throw Error(ErrorCode::kCorruption, "its scores are of another answer",
                ReadableKey("groups", key));
  }
  return stored;
}

}  // namespace

std::pair<Purpose, uint64_t> ParseLeaseKey(std::string_view key) {
  if (key.size() != kLeaseKeyBytes ||
      static_cast<uint8_t>(key[0]) > static_cast<uint8_t>(Purpose::kEval)) {
    throw Error(ErrorCode::kCorruption,
                "a lease key of the store is malformed: " + ReadableKey("", key));
  }
  return {static_cast<Purpose>(key[0]), ReadBigEndian(key.substr(1))};
}

std::string PromptKey(std::string_view dataset, uint64_t row) {
  std::string key(dataset);
  key.push_back('\0');
  AppendBigEndian(key, row, 8);
  return key;
}

std::string EvaluationKey(int64_t version, int32_t samples) {
  std::string key;
  AppendBigEndian(key, static_cast<uint64_t>(version), 8);
  AppendBigEndian(key, static_cast<uint64_t>(samples), 4);
  return key;
}

std::string ReadableKey(std::string_view family, std::string_view key) {
  std::string text(family);
  text += ' ';
  const bool lease = ((family == "groups" || family == "leases") && key.size() == kLeaseKeyBytes) ||
                     (family == "scores" && key.size() >= kLeaseKeyBytes);
  if (lease && static_cast<uint8_t>(key[0]) <= 1) {
    text += key[0] == 0 ? "train lease " : "eval lease ";
    text += std::to_string(ReadBigEndian(key.substr(1, 8)));
    return key.size() == kLeaseKeyBytes ? text
                                        : text.append(" ").append(key.substr(kLeaseKeyBytes));
  }
  if (const size_t zero = key.find('\0'); (family == "prompts" || family == "preferences") &&
                                          zero != std::string_view::npos &&
                                          key.size() == zero + 9) {
    text.append(key.substr(0, zero));
    return text + "/" + std::to_string(ReadBigEndian(key.substr(zero + 1)));
  }
  bool printable = !key.empty();
  for (const char c : key) printable &= c >= 0x20 && c < 0x7F;
  if (printable) return text.append(key);
  return text + Hex(std::as_bytes(std::span(key)));
}

uint32_t SumOf(std::string_view value) {
  uint32_t sum = 0;
  for (size_t i = kSumBytes; i-- > 0;) sum = (sum << 8) | static_cast<uint8_t>(value[i]);
  return sum;
}

uint32_t ValueSum(std::string_view key, std::string_view payload) { return Sum(key, payload); }

std::string Seal(std::string_view key, std::string_view payload) {
  const uint32_t sum = Sum(key, payload);
  std::string value;
  value.reserve(payload.size() + 4);
  AppendLittleEndian(value, sum);
  value.append(payload);
  return value;
}

uint64_t ChainRow(uint64_t hash, uint64_t row_hash) {
  char both[16];
  for (size_t i = 0; i < 8; ++i) {
    both[i] = static_cast<char>((hash >> (8 * i)) & 0xFF);
    both[8 + i] = static_cast<char>((row_hash >> (8 * i)) & 0xFF);
  }
  return HashBytes({both, sizeof(both)});
}

std::string_view Unseal(std::string_view family, std::string_view key, std::string_view value) {
  return CheckedPayload(family, key, value, [](std::string_view payload, uint32_t seed) {
    return Crc32c(payload, seed);
  });
}

std::string EncodeLeaseRecord(const LeaseRecord& r) {
  return ByteWriter().U8(r.complete ? 1 : 0).U32(r.attempt).U32(r.requeues).U64(r.sequence).Take();
}

LeaseRecord DecodeLeaseRecord(std::string_view key, std::string_view payload) {
  ByteReader reader(payload, ReadableKey("leases", key));
  LeaseRecord r;
  r.complete = reader.U8() != 0;
  r.attempt = reader.U32();
  r.requeues = reader.U32();
  r.sequence = reader.U64();
  reader.ExpectEnd();
  return r;
}

void CheckPromptSum(const PromptRef& ref, std::string_view value, const std::string& where) {
  if (SumOf(value) == ref.sum) return;
  throw Error(ErrorCode::kConflict,
              ReadableKey("prompts", PromptKey(ref.dataset, ref.row)) +
                  " is another one than was handed out (checksum " + std::to_string(SumOf(value)) +
                  ", the answers were given to " + std::to_string(ref.sum) +
                  "): a run's prompts never change; bring the run's own store back",
              where);
}

StoredGroup OpenStoredGroup(std::string_view key, std::string_view value, std::string_view scores) {
  const AlignedValue copy(key, value);
  StoredGroup stored = GroupBody::IsBody(value) ? DecodeBody(key, copy.value(), scores)
                                                : DecodeWhole(key, copy.value().substr(kSumBytes));
  if (key != LeaseKey(stored.group.lease.purpose, stored.group.lease.lease_id)) {
    throw Error(ErrorCode::kCorruption, "holds the group of another lease",
                ReadableKey("groups", key));
  }
  return stored;
}

void BatchWriter::Add(std::string_view key, std::string_view value, std::string_view scores) {
  PLUMB_CHECK(key.size() == kLeaseKeyBytes, "no key of a group");
  const size_t more = key.size() + 4 + value.size() + 4 + scores.size();
  // Groups of a batch are much of a size.
  if (groups_++ == 0)
    bytes_.reserve(std::min(kMaxRecordBytes, 4 + expected_groups_ * (more + more / 8)));
  bytes_.append(key);
  for (const std::string_view part : {value, scores}) {
    AppendLittleEndian(bytes_, static_cast<uint32_t>(part.size()));
    bytes_.append(part);
  }
}

std::string BatchWriter::Take() {
  std::string count;
  AppendLittleEndian(count, groups_);
  bytes_.replace(0, count.size(), count);
  return std::move(bytes_);
}

std::vector<TrajectoryGroup> DecodeBatch(std::string_view bytes) {
  ByteReader reader(bytes, "a batch of the store");
  const uint32_t n = reader.U32();
  if (n > bytes.size() / kLeaseKeyBytes) {
    throw Error(ErrorCode::kCorruption, "claims " + std::to_string(n) + " groups",
                "a batch of the store");
  }
  std::vector<TrajectoryGroup> groups;
  groups.reserve(n);
  for (uint32_t i = 0; i < n; ++i) {
    const std::string_view key = reader.Raw(kLeaseKeyBytes);
    const std::string_view value = reader.Bytes(bytes.size());
    groups.push_back(OpenStoredGroup(key, value, reader.Bytes(bytes.size())).group);
  }
  reader.ExpectEnd();
  return groups;
}

Prompt DecodePromptRow(std::string_view, std::string_view payload) {
  return DecodePrompt(BytesOf(payload));
}

PreferenceRecord DecodePreferenceRow(std::string_view, std::string_view payload) {
  return DecodePreferenceRecord(BytesOf(payload));
}

std::string LogprobKey(const Digest& model, const Digest& sequence) {
  std::string key = model;
  key.push_back('\0');
  return key.append(sequence);
}

std::string EncodeLogprobs(std::span<const float> logprobs) {
  ByteWriter writer;
  for (const float value : logprobs) writer.U32(std::bit_cast<uint32_t>(value));
  return writer.Take();
}

std::vector<float> DecodeLogprobs(std::string_view key, std::string_view payload) {
  const std::string where = ReadableKey("logprobs", key);
  ByteReader reader(payload, where);
  std::vector<float> out;
  out.reserve(payload.size() / 4);
  while (!reader.AtEnd()) {
    out.push_back(std::bit_cast<float>(reader.U32()));
    if (!std::isfinite(out.back()) || out.back() > 0) {
      throw Error(ErrorCode::kCorruption,
                  "holds " + std::to_string(out.back()) + ", which is no log-prob", where);
    }
  }
  return out;
}

std::string ScoreKey(Purpose purpose, uint64_t lease_id, std::string_view name) {
  return LeaseKey(purpose, lease_id).append(name);
}

std::string EncodeGroupScore(const GroupScore& score, uint32_t body_sum) {
  ByteWriter writer;
  writer.U32(kScores).U32(body_sum).U8(score.dropped ? 1 : 0).Bytes(score.dropped.value_or(""));
  writer.U32(static_cast<uint32_t>(score.answers.size()));
  for (const ScoredAnswer& a : score.answers) {
    writer.U8(static_cast<uint8_t>((a.scored ? kScored : 0) | (a.aborted ? kAborted : 0)))
        .Bytes(a.unscored_reason);
    writer.U64(std::bit_cast<uint64_t>(a.reward)).U32(static_cast<uint32_t>(a.parts.size()));
    for (const RewardPart& p : a.parts) {
      writer.Bytes(p.name)
          .U64(std::bit_cast<uint64_t>(p.value))
          .U64(std::bit_cast<uint64_t>(p.weight));
      writer.U8(static_cast<uint8_t>(p.scope))
          .U32(static_cast<uint32_t>(p.index))
          .Bytes(p.function_digest);
    }
  }
  return writer.Take();
}

GroupScore DecodeGroupScore(std::string_view key, std::string_view payload, uint32_t* body_sum) {
  const std::string where = ReadableKey("scores", key);
  ByteReader reader(payload, where);
  const auto number = [&] {
    const double v = std::bit_cast<double>(reader.U64());
    if (!std::isfinite(v))
      throw Error(ErrorCode::kCorruption, "holds a number that is not finite", where);
    return v;
  };
  const auto flags = [&](uint8_t all) {
    const uint8_t set = reader.U8();
    if (set > all) throw Error(ErrorCode::kCorruption, "holds unknown flags", where);
    return set;
  };
  GroupScore score;
  uint32_t n = reader.U32(), sum = 0;
  const bool whole = n == kScores;  // else all answers are scored, and nothing else is said of them
  if (whole) {
    sum = reader.U32();
    const bool dropped = flags(1) != 0;
    const std::string_view reason = reader.Bytes(payload.size());
    if (dropped) score.dropped = reason;
    else if (!reason.empty())
      throw Error(ErrorCode::kCorruption, "says why a group was dropped that was not", where);
    n = reader.U32();
  }
  if (body_sum != nullptr) *body_sum = sum;
  for (; n > 0; --n) {  // each turn reads bytes: a wrong count ends at the end of the value
    ScoredAnswer a;
    if (whole) {
      const uint8_t set = flags(kScored | kAborted);
      a.scored = (set & kScored) != 0;
      a.aborted = (set & kAborted) != 0;
      a.unscored_reason = reader.Bytes(payload.size());
    }
    a.reward = number();
    for (uint32_t parts = reader.U32(); parts > 0; --parts) {
      RewardPart p;
      p.name = reader.Bytes(kMaxReason);
      p.value = number();
      p.weight = number();
      const uint8_t scope = reader.U8();
      if (scope > static_cast<uint8_t>(RewardScope::kToken))
        throw Error(ErrorCode::kCorruption, "holds an unknown scope", where);
      p.scope = static_cast<RewardScope>(scope);
      p.index = static_cast<int32_t>(reader.U32());
      p.function_digest = reader.Bytes(kMaxReason);
      a.parts.push_back(std::move(p));
    }
    score.answers.push_back(std::move(a));
  }
  reader.ExpectEnd();
  return score;
}

bool ScoresAreOf(std::string_view scores, std::string_view body) {
  constexpr size_t kAt = kSumBytes + sizeof(kScores);
  return scores.size() >= kAt + kSumBytes && SumOf(scores.substr(kSumBytes)) == kScores &&
         SumOf(scores.substr(kAt)) == SumOf(body);
}

GroupScore ScoresOf(const TrajectoryGroup& group) {
  GroupScore scores;
  scores.answers.reserve(group.trajectories.size());
  for (const Trajectory& t : group.trajectories) {
    scores.answers.push_back(
        {t.reward, t.rewards, t.scored, t.finish == FinishReason::kAborted, t.unscored_reason});
  }
  return scores;
}

void ApplyScores(const GroupScore& scores, TrajectoryGroup& group) {
  PLUMB_CHECK(scores.answers.size() == group.trajectories.size());
  for (size_t i = 0; i < scores.answers.size(); ++i) {
    Trajectory& t = group.trajectories[i];
    const ScoredAnswer& a = scores.answers[i];
    t.rewards = a.parts;
    t.reward = a.reward;
    t.scored = a.scored;
    t.unscored_reason = a.unscored_reason;
  }
}

void CheckScores(const GroupHead& head, const GroupScore& scores) {
  const auto broken = [&](const std::string& what) {
    throw Error(ErrorCode::kCorruption,
                "the scores of lease " + std::to_string(head.lease.lease_id) + " " + what);
  };
  if (scores.answers.size() != head.answers.size()) {
    broken("are of " + std::to_string(scores.answers.size()) + " answers instead of " +
           std::to_string(head.answers.size()));
  }
  for (size_t i = 0; i < scores.answers.size(); ++i) {
    const AnswerHead& answer = head.answers[i];
    if (scores.answers[i].aborted != (answer.finish == FinishReason::kAborted))
      broken("and its answers contradict each other");
    if (!std::isfinite(scores.answers[i].reward)) broken("hold a reward that is not finite");
    for (const RewardPart& p : scores.answers[i].parts) {
      if (!std::isfinite(p.value) || !std::isfinite(p.weight))
        broken("hold a part '" + p.name + "' that is not finite");
      const uint32_t end = p.scope == RewardScope::kTrajectory ? UINT32_MAX
                           : p.scope == RewardScope::kSegment  ? answer.segments
                                                               : answer.tokens;
      if (p.index < 0 || static_cast<uint32_t>(p.index) >= end)
        broken("hold a part '" + p.name + "' of a token or segment that is not there");
    }
  }
}

void WriteCounters(const std::map<std::string, int64_t>& counters, ByteWriter& writer) {
  writer.U32(static_cast<uint32_t>(counters.size()));
  for (const auto& [name, value] : counters) writer.Bytes(name).U64(static_cast<uint64_t>(value));
}

std::string EncodeCounters(const std::map<std::string, int64_t>& counters) {
  ByteWriter writer;
  WriteCounters(counters, writer);
  return writer.Take();
}

std::map<std::string, int64_t> ReadCounters(ByteReader& in) {
  const uint32_t n = in.U32();
  if (n > kMaxCounters)
    throw Error(ErrorCode::kCorruption, "a peer claims " + std::to_string(n) + " counters");
  std::map<std::string, int64_t> counters;
  for (uint32_t i = 0; i < n; ++i) {
    std::string name(in.Bytes(kMaxName));
    counters[std::move(name)] = static_cast<int64_t>(in.U64());
  }
  in.ExpectEnd();
  return counters;
}

std::string PlanKey(int64_t step) {
  std::string key;
  AppendBigEndian(key, static_cast<uint64_t>(step), 8);
  return key;
}

int64_t ParsePlanKey(std::string_view key) {
  if (key.size() == 8) return static_cast<int64_t>(ReadBigEndian(key));
  throw Error(ErrorCode::kCorruption,
              "a plan's key in the store is malformed: " + ReadableKey("", key));
}

std::string EncodeStepPlan(const StepPlan& plan) {
  ByteWriter writer;
  writer.U32(static_cast<uint32_t>(plan.prompt_rows.size()));
  for (const uint64_t row : plan.prompt_rows) writer.U64(row);
  writer.U8(plan.drawn ? 1 : 0).U32(static_cast<uint32_t>(plan.replayed.size()));
  for (const uint64_t id : plan.replayed) writer.U64(id);
  writer.U64(plan.total_replayed);
  if (plan.chosen.empty()) return writer.Take();
  writer.U32(static_cast<uint32_t>(plan.chosen.size()));
  for (const uint64_t id : plan.chosen) writer.U64(id);
  return writer.Take();
}

StepPlan DecodeStepPlan(std::string_view key, std::string_view payload) {
  ByteReader reader(payload, ReadableKey("plans", key));
  StepPlan plan;
  for (uint32_t n = reader.U32(); n > 0; --n) plan.prompt_rows.push_back(reader.U64());
  plan.drawn = reader.U8() != 0;
  for (uint32_t n = reader.U32(); n > 0; --n) plan.replayed.push_back(reader.U64());
  plan.total_replayed = reader.U64();
  if (reader.AtEnd()) return plan;  // a fixed share, or not chosen yet
  for (uint32_t n = reader.U32(); n > 0; --n) plan.chosen.push_back(reader.U64());
  reader.ExpectEnd();
  return plan;
}

std::string EncodeEvaluation(const Store::Evaluation& e) {
  return ByteWriter()
      .U64(static_cast<uint64_t>(e.version))
      .U32(static_cast<uint32_t>(e.samples))
      .U64(e.prompts)
      .Take();
}

Store::Evaluation DecodeEvaluation(std::string_view key, std::string_view payload) {
  ByteReader reader(payload, ReadableKey("eval", key));
  Store::Evaluation e;
  e.version = static_cast<int64_t>(reader.U64());
  e.samples = static_cast<int32_t>(reader.U32());
  e.prompts = reader.U64();
  reader.ExpectEnd();
  return e;
}

}  // namespace plumb::replay
