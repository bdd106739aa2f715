#include "common/record/group_body.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <limits>
#include <span>

#include "common/base/error.h"
#include "common/base/hash/crc32c.h"
#include "common/record/body_turns.h"
#include "common/record/codec.h"
#include "common/record/kept_tokens.h"
#include "common/record/schema/trajectory_generated.h"

namespace plumb {
namespace {

namespace fb = flatbuffers;

constexpr char kTag[] = "PGB1";
constexpr size_t kSumBytes = 4, kHeadBytes = 8;
constexpr char kKind[] = {2, 0, 0, 0};
constexpr uint32_t kMaxDepth = 8;
constexpr size_t kMinTableBytes = 8;
constexpr size_t kMaxSamples = 65536;
constexpr size_t kTokenBytes = 17;  // of a token in memory: id, log-prob, version, mask
constexpr size_t kKeptBytes = size_t{16}
                              << 20;  // of the buffer that a thread keeps for the next body

std::atomic<int64_t> sealed_count{0}, unpacked_count{0};

[[noreturn]] void Malformed(const std::string& what) {
  throw Error(ErrorCode::kCorruption, "malformed body of a group: " + what);
}

uint32_t SumOver(Purpose purpose, uint64_t lease_id, std::string_view rest) {
  return Crc32c(rest, Crc32c(LeaseKey(purpose, lease_id)));
}

uint32_t StoredSum(std::string_view bytes) {
  uint32_t sum = 0;
  for (size_t i = kSumBytes; i-- > 0;) sum = (sum << 8) | static_cast<uint8_t>(bytes[i]);
  return sum;
}

// --- sealing ---

// Whether the answer begins with the group's prompt, so that its tokens need not be written again.
bool SharesPrompt(const Trajectory& t, std::span<const int32_t> prompt) {
  if (t.segments.empty() || t.segments[0].origin != Origin::kPrompt) return false;
  if (static_cast<size_t>(t.segments[0].end) != prompt.size()) return false;
  if (!std::equal(prompt.begin(), prompt.end(), t.tokens.begin())) return false;
  // A prompt's tokens were not drawn: each has a set of one byte, 0.
  return t.kept.empty() ||
         std::all_of(t.kept.begin(), t.kept.begin() + static_cast<int64_t>(prompt.size()),
                     [](uint8_t set) { return set == 0; });
}

template <class T>
fb::Offset<fb::Vector<T>> Numbers(fb::FlatBufferBuilder& builder, std::span<const T> values) {
  return builder.CreateVector(values.data(), values.size());
}

// The experts of a group's prompt, which its answers need not write again: of all its tokens but
// the last, which every answer computes for itself. Empty: no answer has them.
std::span<const uint8_t> PromptExperts(const TrajectoryGroup& g) {
  const std::vector<int32_t>& prompt = g.lease.prompt.tokens;
  for (const Trajectory& t : g.trajectories) {
    if (!t.experts.there() || prompt.empty() || !SharesPrompt(t, prompt)) continue;
    return std::span(t.experts.bytes).first((prompt.size() - 1) * t.experts.form.bytes());
  }
  return {};
}

fb::Offset<fb::Vector<uint8_t>> AddExperts(fb::FlatBufferBuilder& builder, const Trajectory& t,
                                           bool shared, std::span<const uint8_t> of_prompt) {
  if (!t.experts.there()) return {};
  const std::span<const uint8_t> all(t.experts.bytes);
  const bool begins = shared && of_prompt.size() <= all.size() &&
                      std::equal(of_prompt.begin(), of_prompt.end(), all.begin());
  return Numbers(builder, begins ? all.subspan(of_prompt.size()) : all);
}

fb::Offset<wire::BodyAnswer> AddAnswer(fb::FlatBufferBuilder& builder, const Trajectory& t,
                                       std::span<const int32_t> prompt,
                                       std::span<const uint8_t> prompt_experts) {
  const bool shared = SharesPrompt(t, prompt);
  const size_t from = shared ? prompt.size() : 0;
  std::vector<wire::BodySegment> segments;
  std::vector<uint32_t> mask_runs;
  std::vector<wire::VersionRun> version_runs;
  int64_t version = -1;
  uint32_t of_version = 0;
  size_t drawn = 0;
  const auto end_version = [&] {
    if (of_version > 0) version_runs.emplace_back(version, of_version);
    of_version = 0;
  };
  for (const Segment& s : t.segments) {
    segments.emplace_back(static_cast<uint8_t>(s.origin), static_cast<uint32_t>(s.end - s.begin));
    if (s.origin != Origin::kPolicy) continue;
    drawn += static_cast<size_t>(s.end - s.begin);
    for (size_t i = static_cast<size_t>(s.begin); i < static_cast<size_t>(s.end); ++i) {
      // Runs of 0 and of 1 take turns, and the first is of 0: one more than a multiple of two is at
      // 0.
      while (mask_runs.size() % 2 != (t.loss_mask[i] == 0 ? 1 : 0) || mask_runs.empty())
        mask_runs.push_back(0);
      ++mask_runs.back();
      if (t.policy_versions[i] != version) end_version(), version = t.policy_versions[i];
      ++of_version;
    }
  }
  end_version();
  float* logprobs = nullptr;
  const auto logprob_list = builder.CreateUninitializedVector<float>(drawn, &logprobs);
  for (const Segment& s : t.segments) {
    if (s.origin == Origin::kPolicy)
      logprobs = std::copy(t.logprobs.begin() + s.begin, t.logprobs.begin() + s.end, logprobs);
  }
  const auto tokens = Numbers(builder, std::span(t.tokens).subspan(from));
  const auto segment_list = builder.CreateVectorOfStructs(segments);
  const auto masks = builder.CreateVector(mask_runs);
  const auto versions = builder.CreateVectorOfStructs(version_runs);
  const auto completion = builder.CreateString(t.completion);
  const auto reason = builder.CreateString(t.unscored_reason);
  const auto kept = t.kept.empty() ? fb::Offset<fb::Vector<uint8_t>>()
                                   : Numbers(builder, std::span(t.kept).subspan(from));
  const auto experts = AddExperts(builder, t, shared, prompt_experts);
  const auto turns = AddTurns(builder, t);
  return wire::CreateBodyAnswer(builder, tokens, shared ? 0 : 1, segment_list, masks, logprob_list,
                                versions, static_cast<uint8_t>(t.finish), completion, reason, kept,
                                experts, turns);
}

size_t SizeOf(const TrajectoryGroup& g) {
  size_t n = 1024 + g.run_id.size() + g.lease.prompt.text.size() + g.lease.prompt.extra_json.size();
  for (const Trajectory& t : g.trajectories) {
    n += 512 + kTokenBytes * t.tokens.size() + sizeof(wire::BodyTurn) * t.turns.size() +
         t.kept.size() + t.experts.bytes.size() + t.completion.size() + t.unscored_reason.size();
  }
  return n;
}

std::string Encode(fb::FlatBufferBuilder& builder, const TrajectoryGroup& g) {
  builder.ForceDefaults(true);  // otherwise -0.0 would be taken for the default and lose its sign
  const PromptLease& lease = g.lease;
  std::vector<fb::Offset<wire::BodyAnswer>> answers;
  answers.reserve(g.trajectories.size());
  const std::span<const uint8_t> prompt_experts = PromptExperts(g);
  for (const Trajectory& t : g.trajectories)
    answers.push_back(AddAnswer(builder, t, lease.prompt.tokens, prompt_experts));
  const auto with_experts = std::find_if(g.trajectories.begin(), g.trajectories.end(),
                                         [](const Trajectory& t) { return t.experts.there(); });
  wire::ExpertForm form;
  if (with_experts != g.trajectories.end()) {
    const ExpertForm& of = with_experts->experts.form;
    form = {static_cast<uint16_t>(of.layers), static_cast<uint16_t>(of.per_token),
            static_cast<uint16_t>(of.experts)};
  }
  const auto of_prompt =
      prompt_experts.empty() ? fb::Offset<fb::Vector<uint8_t>>() : Numbers(builder, prompt_experts);
  fb::Offset<fb::Vector<uint8_t>> prompt;
  if (lease.prompt_sum == 0) {
    Prompt whole = lease.prompt;
    whole.tokens.clear();
    const std::string record = plumb::Encode(whole);
    prompt = builder.CreateVector(reinterpret_cast<const uint8_t*>(record.data()), record.size());
  }
  const auto run = builder.CreateString(g.run_id), actor = builder.CreateString(g.actor),
             dataset = builder.CreateString(lease.prompt.dataset),
             digest = builder.CreateString(g.policy.digest);
  const auto prompt_tokens = builder.CreateVector(lease.prompt.tokens);
  const auto list = builder.CreateVector(answers);
  builder.Finish(
      wire::CreateGroupBody(builder, run, actor, lease.lease_id,
                            static_cast<uint8_t>(lease.purpose), lease.attempt,
                            lease.policy_version, lease.deadline_ms, dataset, lease.prompt.row,
                            lease.prompt_sum, prompt_tokens, prompt, g.policy.version, digest, list,
                            with_experts == g.trajectories.end() ? nullptr : &form, of_prompt),
      kTag);
  std::string bytes(kSumBytes, '\0');
  bytes.reserve(kHeadBytes + builder.GetSize());
  bytes.append(kKind, sizeof(kKind));
  bytes.append(reinterpret_cast<const char*>(builder.GetBufferPointer()), builder.GetSize());
  uint32_t sum = SumOver(lease.purpose, lease.lease_id, std::string_view(bytes).substr(kSumBytes));
  for (size_t i = 0; i < kSumBytes; ++i, sum >>= 8) bytes[i] = static_cast<char>(sum & 0xFF);
  return bytes;
}

// --- opening ---

// What the answers would take once they are unpacked, counted before anything is: shared offsets
// let a small buffer say the same thing millions of times, and every answer may share one long
// prompt.
class Unpacked {
 public:
  explicit Unpacked(size_t wire_bytes) : wire_left_(2 * wire_bytes) {}
  template <class T>
  void Array(const fb::Vector<T>* v) {
    Wire(4 + size_t{v->size()} * sizeof(T));
  }
  template <class T>
  void Array(const fb::Vector<const T*>* v) {
    Wire(4 + size_t{v->size()} * sizeof(T));
  }
  void Text(const fb::String* s) { Wire(5 + size_t{s->size()}); }
  void Tokens(size_t n) {
    if (n > left_ / kTokenBytes)
      Malformed("it unpacks to more than " + std::to_string(kMaxRecordBytes) + " bytes");
    left_ -= n * kTokenBytes;
  }
  void Bytes(size_t n) {
    if (n > left_)
      Malformed("it unpacks to more than " + std::to_string(kMaxRecordBytes) + " bytes");
    left_ -= n;
  }

 private:
  void Wire(size_t bytes) {
    if (bytes > wire_left_) Malformed("it unpacks to more than twice its size");
    wire_left_ -= bytes;
  }
  size_t wire_left_;
  size_t left_ = kMaxRecordBytes;
};

template <class Enum>
Enum ToEnum(uint8_t value, Enum last, const char* what) {
  if (value > static_cast<uint8_t>(last))
    Malformed(std::string(what) + " has the unknown value " + std::to_string(value));
  return static_cast<Enum>(value);
}

std::string ToText(const fb::String* s) { return std::string(s->data(), s->size()); }

// Without an early way out such loops become vector code.
void CheckTokens(const fb::Vector<int32_t>* tokens) {
  int32_t signs = 0;
  for (const int32_t* t = tokens->data(); t != tokens->data() + tokens->size(); ++t) signs |= *t;
  if (signs < 0) Malformed("a token is negative");
}

void CheckLogprobs(const fb::Vector<float>* logprobs) {
  constexpr float kLowest = std::numeric_limits<float>::lowest();
  int32_t outside = 0;  // NaN is neither below nor above
  for (const float* v = logprobs->data(); v != logprobs->data() + logprobs->size(); ++v) {
    outside |= static_cast<int32_t>(!(*v <= 0.0f)) | static_cast<int32_t>(!(*v >= kLowest));
  }
  if (outside != 0) Malformed("a log-prob is above 0 or not finite");
}

// The answer's segments, as ranges of `tokens` where `own` is false: without the shared prompt.
std::vector<Segment> Segments(const wire::BodyAnswer* a, bool own) {
  std::vector<Segment> out;
  int64_t at = 0;
  for (fb::uoffset_t i = own ? 0 : 1; i < a->segments()->size(); ++i) {
    const auto* s = a->segments()->Get(i);
    const int64_t end = at + s->tokens();
    if (end > int64_t{a->tokens()->size()}) Malformed("segments end behind the last token");
    out.push_back({ToEnum(s->origin(), Origin::kEnvironment, "origin"), static_cast<int32_t>(at),
                   static_cast<int32_t>(end)});
    at = end;
  }
  if (at != int64_t{a->tokens()->size()}) Malformed("segments end before the last token");
  return out;
}

bool OwnPrompt(const wire::BodyAnswer* a) {
  if (a->own_prompt() > 1) Malformed("own_prompt is " + std::to_string(a->own_prompt()));
  return a->own_prompt() == 1;
}

ExpertForm FormOf(const wire::GroupBody* b) {
  const wire::ExpertForm* form = b->expert_form();
  return form == nullptr ? ExpertForm{}
                         : ExpertForm{form->layers(), form->per_token(), form->experts()};
}

std::span<const uint8_t> BytesOf(const fb::Vector<uint8_t>* v) {
  return v == nullptr ? std::span<const uint8_t>() : std::span(v->data(), size_t{v->size()});
}

// Whether the answer's experts go on from those of the prompt. REQUIRES: it has some.
bool GoesOnFromPrompt(const wire::BodyAnswer* a, size_t tokens, const ExpertForm& form,
                      std::span<const uint8_t> prompt_experts) {
  const size_t all = (tokens - 1) * form.bytes(), own = a->experts()->size();
  if (own == all) return false;
  if (OwnPrompt(a) || own + prompt_experts.size() != all) {
    Malformed("it has " + std::to_string(own) + " bytes of experts of " + std::to_string(tokens) +
              " tokens");
  }
  return true;
}

void CheckAnswerExperts(const wire::BodyAnswer* a, size_t tokens, const ExpertForm& form,
                        std::span<const uint8_t> prompt_experts, Unpacked& size) {
  if (a->experts() == nullptr) return;
  size.Array(a->experts());
  if (!form.there()) Malformed("an answer has experts of no form");
  if (tokens == 0) Malformed("an answer without tokens has experts");
  GoesOnFromPrompt(a, tokens, form, prompt_experts);
  CheckExperts(form, BytesOf(a->experts()));
  size.Bytes((tokens - 1) * form.bytes());
}

AnswerHead CheckAnswer(const wire::BodyAnswer* a, size_t prompt, Unpacked& size, int64_t& oldest) {
  size.Array(a->tokens()), size.Array(a->mask_runs()), size.Array(a->logprobs()),
      size.Text(a->completion()), size.Text(a->reason());
  size.Array(a->segments()), size.Array(a->version_runs());
  if (a->kept() != nullptr) size.Array(a->kept());
  const bool own = OwnPrompt(a);
  if (!own) {
    if (a->segments()->size() == 0 ||
        a->segments()->Get(0)->origin() != static_cast<uint8_t>(Origin::kPrompt) ||
        a->segments()->Get(0)->tokens() != prompt) {
      Malformed("an answer does not begin with its group's prompt");
    }
  }
  const std::vector<Segment> segments = Segments(a, own);
  if (a->turns() != nullptr) {
    size.Array(a->turns());
    if (const Problem wrong = TurnsProblem(*a, segments, own ? 0 : 1)) Malformed(*wrong);
  }
  const size_t tokens = (own ? 0 : prompt) + a->tokens()->size();
  size.Tokens(tokens);
  CheckTokens(a->tokens());
  size_t drawn = 0;
  for (const Segment& s : segments)
    drawn += s.origin == Origin::kPolicy ? static_cast<size_t>(s.end - s.begin) : 0;
  if (a->logprobs()->size() != drawn) {
    Malformed("it has " + std::to_string(a->logprobs()->size()) + " log-probs of " +
              std::to_string(drawn) + " policy tokens");
  }
  CheckLogprobs(a->logprobs());
  uint64_t masked = 0, of_versions = 0;
  for (const uint32_t run : *a->mask_runs()) masked += run;
  for (const auto* run : *a->version_runs()) {
    of_versions += run->tokens();
    if (run->version() < 0 || run->tokens() == 0) Malformed("a policy token has no version");
    oldest = std::min(oldest, run->version());
  }
  if (masked != drawn)
    Malformed("the loss mask is of " + std::to_string(masked) + " of " + std::to_string(drawn) +
              " policy tokens");
  if (of_versions != drawn) {
    Malformed("it has versions of " + std::to_string(of_versions) + " of " + std::to_string(drawn) +
              " policy tokens");
  }
  if (a->kept() != nullptr && a->kept()->size() > 0) {
    CheckKept({a->kept()->data(), a->kept()->size()}, {a->tokens()->data(), a->tokens()->size()},
              segments);
  }
  return {ToEnum(a->finish(), FinishReason::kAborted, "finish"), static_cast<uint32_t>(tokens),
          a->segments()->size()};
}

GroupHead CheckBody(const wire::GroupBody* b, size_t wire_bytes) {
  Unpacked size(wire_bytes);
  for (const auto* text : {b->run_id(), b->actor(), b->dataset(), b->policy_digest()})
    size.Text(text);
  size.Array(b->prompt_tokens());
  if (b->prompt() != nullptr) size.Array(b->prompt());
  if ((b->prompt() == nullptr) != (b->prompt_sum() != 0))
    Malformed("its prompt is neither here nor of a store");
  CheckTokens(b->prompt_tokens());
  if (b->answers()->size() > kMaxSamples)
    Malformed("it has " + std::to_string(b->answers()->size()) + " answers");
  GroupHead head;
  head.run_id = ToText(b->run_id());
  head.actor = ToText(b->actor());
  PromptLease& lease = head.lease;
  lease.lease_id = b->lease_id();
  lease.purpose = ToEnum(b->purpose(), Purpose::kEval, "purpose");
  lease.attempt = b->attempt();
  lease.num_samples = static_cast<int32_t>(b->answers()->size());
  lease.policy_version = b->wanted_version();
  lease.deadline_ms = b->deadline_ms();
  lease.prompt_sum = b->prompt_sum();
  lease.prompt.dataset = ToText(b->dataset());
  lease.prompt.row = b->row();
  head.policy = {b->policy_version(), ToText(b->policy_digest())};
  for (const int64_t version : {lease.policy_version, head.policy.version}) {
    if (version < -1) Malformed("policy version " + std::to_string(version));
  }
  int64_t oldest = std::numeric_limits<int64_t>::max();
  head.answers.reserve(b->answers()->size());
  const ExpertForm form = FormOf(b);
  if (b->prompt_experts() != nullptr) {
    size.Array(b->prompt_experts());
    CheckExperts(form, BytesOf(b->prompt_experts()));
  }
  for (const auto* a : *b->answers()) {
    head.answers.push_back(CheckAnswer(a, b->prompt_tokens()->size(), size, oldest));
    CheckAnswerExperts(a, head.answers.back().tokens, form, BytesOf(b->prompt_experts()), size);
  }
  head.oldest_version = std::min(oldest, head.policy.version);
  return head;
}

// --- reading ---

template <class T>
void Append(std::vector<T>& out, const fb::Vector<T>* v) {
  out.insert(out.end(), v->data(), v->data() + v->size());
}

void ReadExperts(const wire::BodyAnswer* a, const wire::GroupBody* b, Trajectory& t) {
  if (a->experts() == nullptr) return;
  t.experts.form = FormOf(b);
  const std::span<const uint8_t> of_prompt = BytesOf(b->prompt_experts());
  if (GoesOnFromPrompt(a, t.tokens.size(), t.experts.form, of_prompt))
    t.experts.bytes.assign(of_prompt.begin(), of_prompt.end());
  Append(t.experts.bytes, a->experts());
}

void ReadAnswer(const wire::BodyAnswer* a, const wire::GroupBody* b, bool whole, Trajectory& t) {
  const fb::Vector<int32_t>* prompt = b->prompt_tokens();
  const bool own = OwnPrompt(a);
  const size_t shared = own ? 0 : prompt->size(), n = shared + a->tokens()->size();
  t.tokens.reserve(n);
  if (!own) Append(t.tokens, prompt);
  Append(t.tokens, a->tokens());
  const auto shift = static_cast<int32_t>(shared);
  if (!own) t.segments.push_back({Origin::kPrompt, 0, shift});
  for (const Segment& s : Segments(a, own))
    t.segments.push_back({s.origin, s.begin + shift, s.end + shift});
  t.finish = static_cast<FinishReason>(a->finish());
  t.completion = ToText(a->completion());
  t.unscored_reason = ToText(a->reason());
  ReadTurns(*a, t);
  if (!whole) return;
  t.loss_mask.assign(n, 0);
  t.logprobs.assign(n, 0.0f);
  t.policy_versions.assign(n, -1);
  if (a->kept() != nullptr && a->kept()->size() > 0) {
    t.kept.assign(shared, 0);
    Append(t.kept, a->kept());
  }
  ReadExperts(a, b, t);
  const float* logprob = a->logprobs()->data();
  fb::uoffset_t mask = 0, version = 0;
  uint32_t of_mask = 0, of_version = 0;  // used up of the run
  for (const Segment& s : t.segments) {
    if (s.origin != Origin::kPolicy) continue;
    const auto length = static_cast<size_t>(s.end - s.begin);
    std::copy(logprob, logprob + length, t.logprobs.begin() + s.begin);
    logprob += length;
    for (auto i = static_cast<size_t>(s.begin); i < static_cast<size_t>(s.end);) {
      while (of_mask == a->mask_runs()->Get(mask)) ++mask, of_mask = 0;
      const size_t run =
          std::min<size_t>(static_cast<size_t>(s.end) - i, a->mask_runs()->Get(mask) - of_mask);
      std::fill_n(t.loss_mask.begin() + static_cast<int64_t>(i), run,
                  static_cast<uint8_t>(mask % 2));
      i += run, of_mask += static_cast<uint32_t>(run);
    }
    for (auto i = static_cast<size_t>(s.begin); i < static_cast<size_t>(s.end);) {
      while (of_version == a->version_runs()->Get(version)->tokens()) ++version, of_version = 0;
      const auto* of = a->version_runs()->Get(version);
      const size_t run =
          std::min<size_t>(static_cast<size_t>(s.end) - i, of->tokens() - of_version);
      std::fill_n(t.policy_versions.begin() + static_cast<int64_t>(i), run, of->version());
      i += run, of_version += static_cast<uint32_t>(run);
    }
  }
}

}  // namespace

std::string LeaseKey(Purpose purpose, uint64_t lease_id) {
  std::string key(1, static_cast<char>(purpose));
  for (int shift = 56; shift >= 0; shift -= 8)
    key.push_back(static_cast<char>((lease_id >> shift) & 0xFF));
  return key;
}

GroupHead HeadOf(const TrajectoryGroup& group) {
  GroupHead head;
  head.run_id = group.run_id;
  head.actor = group.actor;
  const PromptLease& lease = group.lease;
  head.lease = {.lease_id = lease.lease_id,
                .purpose = lease.purpose,
                .attempt = lease.attempt,
                .num_samples = lease.num_samples,
                .prompt_sum = lease.prompt_sum,
                .policy_version = lease.policy_version,
                .deadline_ms = lease.deadline_ms};
  head.lease.prompt.dataset = lease.prompt.dataset;
  head.lease.prompt.row = lease.prompt.row;
  head.policy = group.policy;
  head.oldest_version = group.policy.version;
  for (const Trajectory& t : group.trajectories) {
    head.answers.push_back({t.finish, static_cast<uint32_t>(t.tokens.size()),
                            static_cast<uint32_t>(t.segments.size())});
    for (const int64_t version : t.policy_versions) {
      if (version >= 0) head.oldest_version = std::min(head.oldest_version, version);
    }
  }
  return head;
}

void GroupBody::Map(Payload bytes) {
  bytes_ = std::move(bytes);
  const auto* data = reinterpret_cast<const uint8_t*>(bytes_.view().data()) + kHeadBytes;
  if (reinterpret_cast<uintptr_t>(data) % alignof(uint64_t) != 0) {
    const size_t size = bytes_.size() - kHeadBytes;
    auto copy = std::make_shared_for_overwrite<uint64_t[]>((size + 7) / 8);
    std::memcpy(copy.get(), data, size);
    data = reinterpret_cast<const uint8_t*>(copy.get());
    aligned_ = std::move(copy);
  }
  root_ = fb::GetRoot<wire::GroupBody>(data);
}

GroupBody GroupBody::Seal(const TrajectoryGroup& group) {
  CheckInvariants(group);
  const size_t expected = SizeOf(group);
  if (expected > kMaxRecordBytes) {
    throw Error(ErrorCode::kInvalidArgument,
                "a record of about " + std::to_string(expected) + " bytes; at most " +
                    std::to_string(kMaxRecordBytes) + " can be sent or stored at once");
  }
  std::string bytes;
  if (expected > kKeptBytes) {
    fb::FlatBufferBuilder large(expected);
    bytes = Encode(large, group);
  } else {
    thread_local fb::FlatBufferBuilder kept(1024);
    kept.Clear();
    bytes = Encode(kept, group);
  }
  ++sealed_count;
  GroupBody body;
  body.Map(Payload(std::move(bytes)));
  body.head_ = HeadOf(group);
  return body;
}

bool GroupBody::IsBody(std::string_view bytes) {
  return bytes.size() > kSumBytes && bytes[kSumBytes] == kKind[0];
}

GroupBody GroupBody::Open(Payload bytes, bool summed) {
  const std::string_view view = bytes;
  if (view.size() < kHeadBytes + 16 || view.size() > kMaxRecordBytes ||
      view.substr(kSumBytes, 4) != std::string_view(kKind, 4)) {
    Malformed("its " + std::to_string(view.size()) + " bytes do not begin as one");
  }
  GroupBody body;
  body.Map(std::move(bytes));
  const size_t size = view.size() - kHeadBytes;
  const auto* data = body.aligned_ ? reinterpret_cast<const uint8_t*>(body.aligned_.get())
                                   : reinterpret_cast<const uint8_t*>(view.data()) + kHeadBytes;
  fb::Verifier verifier(data, size, kMaxDepth, static_cast<fb::uoffset_t>(size / kMinTableBytes));
  if (!verifier.VerifyBuffer<wire::GroupBody>(kTag))
    Malformed("it is not a valid record of type " + std::string(kTag));
  const Purpose purpose = ToEnum(body.root_->purpose(), Purpose::kEval, "purpose");
  if (!summed && body.sum() != SumOver(purpose, body.root_->lease_id(), view.substr(kSumBytes))) {
    Malformed("the bytes do not match their CRC32C");
  }
  body.head_ = CheckBody(body.root_, view.size());
  return body;
}

uint32_t GroupBody::sum() const { return StoredSum(bytes_); }

TrajectoryGroup GroupBody::Read(bool whole) const {
  unpacked_count += whole ? 1 : 0;
  TrajectoryGroup group;
  group.run_id = head_.run_id;
  group.actor = head_.actor;
  group.lease = head_.lease;
  group.policy = head_.policy;
  if (root_->prompt() != nullptr) {
    group.lease.prompt =
        DecodePrompt(std::as_bytes(std::span(root_->prompt()->data(), root_->prompt()->size())));
  }
  group.lease.prompt.dataset = head_.lease.prompt.dataset;
  group.lease.prompt.row = head_.lease.prompt.row;
  group.lease.prompt.tokens.clear();
  Append(group.lease.prompt.tokens, root_->prompt_tokens());
  group.trajectories.reserve(head_.answers.size());
  for (const auto* a : *root_->answers()) {
    Trajectory& t = group.trajectories.emplace_back();
    t.sample = static_cast<uint32_t>(group.trajectories.size() - 1);
    ReadAnswer(a, root_, whole, t);
  }
  return group;
}

GroupBody::Counts GroupBody::counts() { return {sealed_count.load(), unpacked_count.load()}; }

}  // namespace plumb
