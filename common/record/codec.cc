#include "common/record/codec.h"

#include <cmath>
#include <cstring>
#include <memory>

#include "common/base/error.h"
#include "common/record/schema/trajectory_generated.h"

namespace plumb {
namespace {

namespace fb = flatbuffers;

// Four bytes behind the root offset: which record it is.
constexpr char kGroupTag[] = "PGR1";
constexpr char kLeaseTag[] = "PLE1";
constexpr char kPromptTag[] = "PPR1";
constexpr char kLeasesTag[] = "PLS1";
constexpr char kPreferenceTag[] = "PPF1";

constexpr uint32_t kMaxDepth = 16;
// every table of ours is larger; bounds how many can be in so many bytes
constexpr size_t kMinTableBytes = 8;
constexpr int32_t kMaxSamples = 65536;
// Memory that a thread keeps for the next record, on either way: asking the system for it again and
// again may cost more than all the rest. Pages that no record has reached are not there.
constexpr size_t kKeptBytes = size_t{16} << 20;

[[noreturn]] void Malformed(const std::string& what) {
  throw Error(ErrorCode::kCorruption, "malformed record: " + what);
}

// --- encoding ---

size_t SizeOf(const Prompt& p) {
  size_t n = 256 + p.dataset.size() + p.text.size() + p.ground_truth.size() + p.extra_json.size() +
             4 * p.tokens.size();
  for (const Message& m : p.messages)
    n += 64 + m.role.size() + m.content.size() + m.fields_json.size();
  return n;
}
size_t SizeOf(const PreferenceRecord& r) {
  size_t n = 512 + r.dataset.size() + r.prompt_text.size() + r.extra_json.size() +
             4 * (r.prompt_tokens.size() + r.chosen_tokens.size() + r.rejected_tokens.size());
  for (const auto* list : {&r.prompt, &r.chosen, &r.rejected}) {
    for (const Message& m : *list)
      n += 64 + m.role.size() + m.content.size() + m.fields_json.size();
  }
  return n;
}
size_t SizeOf(const PromptLease& lease) { return 128 + SizeOf(lease.prompt); }

class Encoder {
 public:
  explicit Encoder(size_t expected) : builder_(std::min(expected, kMaxRecordBytes)) {
    CheckSize(expected);
    // Without it -0.0 would be taken for the default 0.0 and lose its sign; and a row's number
    // could not be set later.
    builder_.ForceDefaults(true);
  }
  // For the next record; keeps the memory.
  void Restart(size_t expected) {
    CheckSize(expected);
    builder_.Clear();
  }

  template <class Table>
  std::string_view FinishInPlace(fb::Offset<Table> root, const char* tag) {
    builder_.Finish(root, tag);
    return {reinterpret_cast<const char*>(builder_.GetBufferPointer()), builder_.GetSize()};
  }
  template <class Table>
  std::string Finish(fb::Offset<Table> root, const char* tag) {
    return std::string(FinishInPlace(root, tag));
  }

  fb::Offset<wire::Prompt> Add(const Prompt& p) {
    const auto& messages = Messages(p.messages);
    const auto dataset = Text(p.dataset), text = Text(p.text), truth = Text(p.ground_truth),
               extra = Text(p.extra_json);
    const auto list = builder_.CreateVector(messages);
    const auto tokens = builder_.CreateVector(p.tokens);
    return wire::CreatePrompt(builder_, dataset, p.row, text, list, truth, extra, p.weight, tokens);
  }

  fb::Offset<wire::PromptLease> Add(const PromptLease& l) {
    const auto prompt = Add(l.prompt);
    return wire::CreatePromptLease(builder_, l.lease_id, static_cast<uint8_t>(l.purpose), l.attempt,
                                   l.num_samples, l.policy_version, l.deadline_ms, prompt,
                                   l.prompt_sum);
  }

  fb::Offset<wire::PreferenceRecord> Add(const PreferenceRecord& r) {
    const auto dataset = Text(r.dataset), text = Text(r.prompt_text), extra = Text(r.extra_json);
    const auto prompt = builder_.CreateVector(Messages(r.prompt)),
               chosen = builder_.CreateVector(Messages(r.chosen)),
               rejected = builder_.CreateVector(Messages(r.rejected));
    const auto prompt_tokens = builder_.CreateVector(r.prompt_tokens);
    const auto chosen_tokens = builder_.CreateVector(r.chosen_tokens);
    const auto rejected_tokens = builder_.CreateVector(r.rejected_tokens);
    return wire::CreatePreferenceRecord(builder_, static_cast<uint8_t>(r.kind), dataset, r.row,
                                        text, prompt, chosen, rejected, r.desirable ? 1 : 0,
                                        r.margin, r.has_margin ? 1 : 0, r.weight, extra,
                                        prompt_tokens, chosen_tokens, rejected_tokens);
  }

  fb::FlatBufferBuilder& builder() { return builder_; }

 private:
  static void CheckSize(size_t expected) {
    if (expected <= kMaxRecordBytes) return;
    throw Error(ErrorCode::kInvalidArgument,
                "a record of about " + std::to_string(expected) + " bytes; at most " +
                    std::to_string(kMaxRecordBytes) + " can be sent or stored at once");
  }
  // Until the next call.
  const std::vector<fb::Offset<wire::Message>>& Messages(const std::vector<Message>& messages) {
    messages_.clear();
    for (const Message& m : messages) {
      const auto role = Text(m.role), content = Text(m.content);
      const auto fields = m.fields_json.empty() ? fb::Offset<fb::String>() : Text(m.fields_json);
      messages_.push_back(wire::CreateMessage(builder_, role, content, fields));
    }
    return messages_;
  }
  fb::Offset<fb::String> Text(const std::string& s) { return builder_.CreateString(s); }
  fb::FlatBufferBuilder builder_;
  std::vector<fb::Offset<wire::Message>> messages_;
};

// use(encoder) with one for a record of about so many bytes.
template <class Use>
auto WithEncoder(size_t expected, Use use) {
  if (expected > kKeptBytes) {
    Encoder large(expected);
    return use(large);
  }
  thread_local Encoder kept(1024);
  kept.Restart(expected);
  return use(kept);
}

template <class Record>
std::string EncodeOne(const Record& record, const char* tag) {
  return WithEncoder(SizeOf(record),
                     [&](Encoder& encoder) { return encoder.Finish(encoder.Add(record), tag); });
}

// --- decoding ---

// What a message would take once it is unpacked, counted before anything is: shared offsets let a
// small buffer say the same thing millions of times.
class LogicalSize {
 public:
  explicit LogicalSize(size_t wire_bytes) : left_(2 * wire_bytes) {}

  void Spend(size_t bytes) {
    if (bytes > left_) Malformed("it unpacks to more than twice its size");
    left_ -= bytes;
  }
  void Text(const fb::String* s) { Spend(5 + size_t{s->size()}); }
  void Messages(const fb::Vector<fb::Offset<wire::Message>>* list) {
    for (const auto* m : *list) {
      Spend(16), Text(m->role()), Text(m->content());
      if (m->fields_json() != nullptr) Text(m->fields_json());
    }
  }
  template <class T>
  void Array(const fb::Vector<T>* v) {
    Spend(4 + size_t{v->size()} * sizeof(T));
  }

  // The constants are what the fixed fields of a table take on the wire at least, offsets to it
  // included.
  void Add(const wire::Prompt* p) {
    Spend(48);
    Text(p->dataset()), Text(p->text()), Text(p->ground_truth()), Text(p->extra_json()),
        Array(p->tokens());
    Messages(p->messages());
  }
  void Add(const wire::PreferenceRecord* r) {
    Spend(64);
    Text(r->dataset()), Text(r->prompt_text()), Text(r->extra_json());
    Array(r->prompt_tokens()), Array(r->chosen_tokens()), Array(r->rejected_tokens());
    for (const auto* list : {r->prompt(), r->chosen(), r->rejected()}) Messages(list);
  }
  void Add(const wire::PromptLease* l) { Spend(40), Add(l->prompt()); }
  void Add(const wire::Trajectory* t) {
    Spend(60);
    Array(t->tokens()), Array(t->loss_mask()), Array(t->logprobs()), Array(t->policy_versions());
    Text(t->completion()), Text(t->unscored_reason());
    if (t->kept()) Array(t->kept());
    for (const auto* s : *t->segments()) Spend(21), Text(s->media_digest());
    for (const auto* r : *t->rewards()) Spend(37), Text(r->name()), Text(r->function_digest());
  }
  void Add(const wire::TrajectoryGroup* g) {
    Spend(28);
    Text(g->run_id()), Text(g->actor()), Text(g->policy_digest()), Add(g->lease());
    for (const auto* t : *g->trajectories()) Add(t);
  }
  void Add(const wire::PromptLeases* list) {
    for (const auto* l : *list->leases()) Add(l);
  }

 private:
  size_t left_;
};

template <class Enum>
Enum ToEnum(uint8_t value, Enum last, const char* what) {
  if (value > static_cast<uint8_t>(last))
    Malformed(std::string(what) + " has the unknown value " + std::to_string(value));
  return static_cast<Enum>(value);
}

std::string ToText(const fb::String* s) { return std::string(s->data(), s->size()); }

static_assert(FLATBUFFERS_LITTLEENDIAN, "arrays are taken out of a message as they lie there");
template <class T>
std::vector<T> ToVector(const fb::Vector<T>* v) {
  return std::vector<T>(v->data(), v->data() + v->size());
}

std::vector<Message> ToMessages(const fb::Vector<fb::Offset<wire::Message>>* list) {
  std::vector<Message> out;
  out.reserve(list->size());
  for (const auto* m : *list) {
    out.push_back({ToText(m->role()), ToText(m->content()),
                   m->fields_json() != nullptr ? ToText(m->fields_json()) : ""});
  }
  return out;
}

Prompt Unpack(const wire::Prompt* p) {
  Prompt out;
  out.dataset = ToText(p->dataset());
  out.row = p->row();
  out.text = ToText(p->text());
  out.messages = ToMessages(p->messages());
  out.ground_truth = ToText(p->ground_truth());
  out.extra_json = ToText(p->extra_json());
  out.weight = p->weight();
  if (!std::isfinite(out.weight)) Malformed("a prompt's weight is not finite");
  out.tokens = ToVector(p->tokens());
  for (const int32_t token : out.tokens) {
    if (token < 0) Malformed("a prompt's token is negative");
  }
  return out;
}

bool ToBool(uint8_t value, const char* what) {
  if (value > 1) Malformed(std::string(what) + " is " + std::to_string(value));
  return value == 1;
}

PreferenceRecord Unpack(const wire::PreferenceRecord* r) {
  PreferenceRecord out;
  out.kind = ToEnum(r->kind(), PreferenceKind::kDemonstration, "kind");
  out.dataset = ToText(r->dataset());
  out.row = r->row();
  out.prompt_text = ToText(r->prompt_text());
  out.prompt = ToMessages(r->prompt());
  out.chosen = ToMessages(r->chosen());
  out.rejected = ToMessages(r->rejected());
  out.desirable = ToBool(r->desirable(), "desirable");
  out.margin = r->margin();
  out.has_margin = ToBool(r->has_margin(), "has_margin");
  out.weight = r->weight();
  out.extra_json = ToText(r->extra_json());
  out.prompt_tokens = ToVector(r->prompt_tokens());
  out.chosen_tokens = ToVector(r->chosen_tokens());
  out.rejected_tokens = ToVector(r->rejected_tokens());
  try {
    CheckInvariants(out);
  } catch (const Error& e) {
    Malformed(e.what());
  }
  return out;
}

PromptLease Unpack(const wire::PromptLease* l) {
  PromptLease out;
  out.lease_id = l->lease_id();
  out.purpose = ToEnum(l->purpose(), Purpose::kEval, "purpose");
  out.attempt = l->attempt();
  out.num_samples = l->num_samples();
  if (out.num_samples < 0 || out.num_samples > kMaxSamples) {
    Malformed("a lease asks for " + std::to_string(out.num_samples) + " samples");
  }
  out.policy_version = l->policy_version();
  if (out.policy_version < -1)
    Malformed("a lease asks for policy version " + std::to_string(out.policy_version));
  out.deadline_ms = l->deadline_ms();
  out.prompt_sum = l->prompt_sum();
  out.prompt = Unpack(l->prompt());
  return out;
}

void Unpack(const wire::Trajectory* t, Trajectory& out) {
  out.sample = t->sample();
  out.tokens = ToVector(t->tokens());
  out.segments.reserve(t->segments()->size());
  for (const auto* s : *t->segments()) {
    out.segments.push_back(
        {ToEnum(s->origin(), Origin::kEnvironment, "origin"), s->begin(), s->end()});
  }
  out.loss_mask = ToVector(t->loss_mask());
  out.logprobs = ToVector(t->logprobs());
  out.policy_versions = ToVector(t->policy_versions());
  out.finish = ToEnum(t->finish(), FinishReason::kAborted, "finish");
  out.completion = ToText(t->completion());
  out.rewards.reserve(t->rewards()->size());
  for (const auto* r : *t->rewards()) {
    out.rewards.push_back({ToText(r->name()), r->value(), r->weight(),
                           ToEnum(r->scope(), RewardScope::kToken, "scope"), r->index(),
                           ToText(r->function_digest())});
  }
  out.reward = t->reward();
  if (t->scored() > 1) Malformed("scored is " + std::to_string(t->scored()));
  out.scored = t->scored() == 1;
  out.unscored_reason = ToText(t->unscored_reason());
  if (t->kept()) out.kept = ToVector(t->kept());
}

TrajectoryGroup Unpack(const wire::TrajectoryGroup* g) {
  TrajectoryGroup out;
  out.run_id = ToText(g->run_id());
  out.actor = ToText(g->actor());
  out.lease = Unpack(g->lease());
  out.policy = {g->policy_version(), ToText(g->policy_digest())};
  if (out.policy.version < -1) Malformed("policy version " + std::to_string(out.policy.version));
  out.trajectories.reserve(g->trajectories()->size());
  for (const auto* t : *g->trajectories()) Unpack(t, out.trajectories.emplace_back());
  CheckInvariants(out);
  return out;
}

std::vector<PromptLease> Unpack(const wire::PromptLeases* list) {
  std::vector<PromptLease> out;
  for (const auto* l : *list->leases()) out.push_back(Unpack(l));
  return out;
}

template <class Table>
auto DecodeOne(std::span<const std::byte> bytes, const char* tag) {
  // Ours end on a multiple of four; anything else has lost or gained bytes, if only padding.
  if (bytes.size() < 16 || bytes.size() % 4 != 0 ||
      bytes.size() > kMaxRecordBytes + (kMaxRecordBytes >> 3)) {
    Malformed("it has " + std::to_string(bytes.size()) + " bytes");
  }
  // Scalars are aligned relative to the buffer's begin; a payload may begin anywhere.
  const uint8_t* data = reinterpret_cast<const uint8_t*>(bytes.data());
  std::unique_ptr<uint64_t[]> large;
  if (reinterpret_cast<uintptr_t>(data) % alignof(uint64_t) != 0) {
    thread_local std::unique_ptr<uint64_t[]> kept;
    if (bytes.size() <= kKeptBytes && !kept)
      kept = std::make_unique_for_overwrite<uint64_t[]>(kKeptBytes / 8);
    if (bytes.size() > kKeptBytes)
      large = std::make_unique_for_overwrite<uint64_t[]>((bytes.size() + 7) / 8);
    uint64_t* const aligned = large ? large.get() : kept.get();
    std::memcpy(aligned, data, bytes.size());
    data = reinterpret_cast<const uint8_t*>(aligned);
  }
  const size_t max_tables = bytes.size() / kMinTableBytes;
  fb::Verifier verifier(data, bytes.size(), kMaxDepth, static_cast<fb::uoffset_t>(max_tables));
  if (!verifier.VerifyBuffer<Table>(tag))
    Malformed("it is not a valid record of type " + std::string(tag));
  const Table* root = fb::GetRoot<Table>(data);
  LogicalSize(bytes.size()).Add(root);
  return Unpack(root);
}

}  // namespace

std::string Encode(const PromptLease& lease) { return EncodeOne(lease, kLeaseTag); }
std::string Encode(const Prompt& prompt) { return EncodeOne(prompt, kPromptTag); }

std::string Encode(const PreferenceRecord& record) { return EncodeOne(record, kPreferenceTag); }

struct RowEncoder::Impl {
  Encoder encoder{1024};
  fb::voffset_t row_field = 0;  // of the table that was encoded last
  template <class Record>
  std::string_view Encode(const Record& record, const char* tag, fb::voffset_t field) {
    row_field = field;
    encoder.Restart(SizeOf(record));
    return encoder.FinishInPlace(encoder.Add(record), tag);
  }
};
RowEncoder::RowEncoder() : impl_(std::make_unique<Impl>()) {}
RowEncoder::~RowEncoder() = default;

std::string_view RowEncoder::Encode(const Prompt& prompt) {
  PLUMB_CHECK(prompt.row == 0, "the number comes with WithRow");
  return impl_->Encode(prompt, kPromptTag, wire::Prompt::VT_ROW);
}
std::string_view RowEncoder::Encode(const PreferenceRecord& record) {
  PLUMB_CHECK(record.row == 0, "the number comes with WithRow");
  return impl_->Encode(record, kPreferenceTag, wire::PreferenceRecord::VT_ROW);
}
std::string_view RowEncoder::WithRow(uint64_t row) {
  fb::FlatBufferBuilder& builder = impl_->encoder.builder();
  const bool set = fb::GetMutableRoot<fb::Table>(builder.GetBufferPointer())
                       ->SetField<uint64_t>(impl_->row_field, row, 0);
  PLUMB_CHECK(set, "a row without a place for its number");
  return {reinterpret_cast<const char*>(builder.GetBufferPointer()), builder.GetSize()};
}
std::string_view RowEncoder::Behind(uint32_t sum) {
  fb::FlatBufferBuilder& builder = impl_->encoder.builder();
  // it builds downwards: in front of what is there
  builder.PushBytes(reinterpret_cast<const uint8_t*>(&sum), sizeof(sum));
  return {reinterpret_cast<const char*>(builder.GetBufferPointer()), builder.GetSize()};
}

std::string Encode(std::span<const PromptLease> leases) {
  size_t expected = 64;
  for (const auto& l : leases) expected += SizeOf(l);
  return WithEncoder(expected, [&](Encoder& encoder) {
    std::vector<fb::Offset<wire::PromptLease>> list;
    for (const auto& l : leases) list.push_back(encoder.Add(l));
    const auto vector = encoder.builder().CreateVector(list);
    return encoder.Finish(wire::CreatePromptLeases(encoder.builder(), vector), kLeasesTag);
  });
}

TrajectoryGroup DecodeTrajectoryGroup(std::span<const std::byte> bytes) {
  return DecodeOne<wire::TrajectoryGroup>(bytes, kGroupTag);
}
PromptLease DecodePromptLease(std::span<const std::byte> bytes) {
  return DecodeOne<wire::PromptLease>(bytes, kLeaseTag);
}
Prompt DecodePrompt(std::span<const std::byte> bytes) {
  return DecodeOne<wire::Prompt>(bytes, kPromptTag);
}
PreferenceRecord DecodePreferenceRecord(std::span<const std::byte> bytes) {
  return DecodeOne<wire::PreferenceRecord>(bytes, kPreferenceTag);
}
std::vector<PromptLease> DecodePromptLeases(std::span<const std::byte> bytes) {
  return DecodeOne<wire::PromptLeases>(bytes, kLeasesTag);
}

}  // namespace plumb
