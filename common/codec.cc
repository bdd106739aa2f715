#include "common/codec.h"

#include "common/error.h"
#include "common/schema/trajectory_generated.h"

namespace plumb {
namespace {

using flatbuffers::FlatBufferBuilder;
using flatbuffers::Offset;

[[noreturn]] void Corrupt(const std::string& what) { throw Error(ErrorCode::kCorruption, "message is malformed: " + what); }

// ---- writing ----

template <class T>
Offset<flatbuffers::Vector<T>> Array(FlatBufferBuilder& b, const std::vector<T>& values) {
  return b.CreateVector(values.data(), values.size());
}

Offset<wire::Prompt> Write(FlatBufferBuilder& b, const Prompt& p) {
  std::vector<Offset<wire::Message>> messages;
  for (const Message& m : p.messages) {
    const auto role = b.CreateString(m.role);
    messages.push_back(wire::CreateMessage(b, role, b.CreateString(m.content)));
  }
  const auto dataset = b.CreateString(p.dataset), text = b.CreateString(p.text);
  const auto list = b.CreateVector(messages);
  const auto truth = b.CreateString(p.ground_truth), extra = b.CreateString(p.extra_json);
  return wire::CreatePrompt(b, dataset, p.row, text, list, truth, extra, p.weight, Array(b, p.tokens));
}

Offset<wire::Lease> Write(FlatBufferBuilder& b, const PromptLease& l) {
  const auto prompt = Write(b, l.prompt);
  return wire::CreateLease(b, l.lease_id, static_cast<uint8_t>(l.purpose), l.attempt, l.num_samples, l.policy_version,
                           l.deadline_ms, prompt);
}

Offset<wire::Trajectory> Write(FlatBufferBuilder& b, const Trajectory& t) {
  std::vector<Offset<wire::Segment>> segments;
  for (const Segment& s : t.segments) {
    const auto media = b.CreateString(s.media_digest);
    segments.push_back(wire::CreateSegment(b, static_cast<uint8_t>(s.origin), s.begin, s.end, media));
  }
  std::vector<Offset<wire::RewardPart>> rewards;
  for (const RewardPart& r : t.rewards) {
    const auto name = b.CreateString(r.name);
    const auto digest = b.CreateString(r.function_digest);
    rewards.push_back(
        wire::CreateRewardPart(b, name, r.value, r.weight, static_cast<uint8_t>(r.scope), r.index, digest));
  }
  const auto tokens = Array(b, t.tokens);
  const auto segment_list = b.CreateVector(segments);
  const auto mask = Array(b, t.loss_mask);
  const auto logprobs = Array(b, t.logprobs);
  const auto versions = Array(b, t.policy_versions);
  const auto completion = b.CreateVector(reinterpret_cast<const uint8_t*>(t.completion.data()), t.completion.size());
  const auto reward_list = b.CreateVector(rewards);
  const auto reason = b.CreateString(t.unscored_reason);
  return wire::CreateTrajectory(b, t.sample, tokens, segment_list, mask, logprobs, versions,
                                static_cast<uint8_t>(t.finish), completion, reward_list, t.reward, t.scored, reason);
}

Offset<wire::Group> Write(FlatBufferBuilder& b, const TrajectoryGroup& g) {
  std::vector<Offset<wire::Trajectory>> trajectories;
  for (const Trajectory& t : g.trajectories) trajectories.push_back(Write(b, t));
  const auto run_id = b.CreateString(g.run_id), actor = b.CreateString(g.actor);
  const auto lease = Write(b, g.lease);
  const auto digest = b.CreateString(g.policy.digest);
  const auto list = b.CreateVector(trajectories);
  return wire::CreateGroup(b, run_id, actor, lease, g.policy.version, digest, list);
}

std::string Take(FlatBufferBuilder& b, Offset<wire::Root> root) {
  wire::FinishRootBuffer(b, root);
  return std::string(reinterpret_cast<const char*>(b.GetBufferPointer()), b.GetSize());
}

// ---- reading ----

// Counts what would be copied out, so that offsets shared many times are noticed before they are followed.
class Budget {
 public:
  explicit Budget(size_t wire_bytes) : left_(2 * wire_bytes + 64) {}
  void Spend(size_t bytes) {
    if (bytes > left_) Corrupt("it unpacks to more than twice its size");
    left_ -= bytes;
  }
  std::string Text(const flatbuffers::String* s) {
    if (!s) return {};
    Spend(s->size());
    return s->str();
  }
  template <class T>
  std::vector<T> Values(const flatbuffers::Vector<T>* v) {
    if (!v) return {};
    Spend(v->size() * sizeof(T));
    return std::vector<T>(v->begin(), v->end());
  }

 private:
  size_t left_;
};

template <class E>
E Enum(uint8_t value, E last, const char* what) {
  if (value > static_cast<uint8_t>(last)) Corrupt(std::string(what) + " has the unknown value " + std::to_string(value));
  return static_cast<E>(value);
}

Prompt Read(Budget& budget, const wire::Prompt* w) {
  if (!w) Corrupt("the prompt is missing");
  budget.Spend(16);
  Prompt p;
  p.dataset = budget.Text(w->dataset());
  p.row = w->row();
  p.text = budget.Text(w->text());
  if (w->messages()) {
    for (const wire::Message* m : *w->messages()) {
      budget.Spend(8);
      p.messages.push_back({budget.Text(m->role()), budget.Text(m->content())});
    }
  }
  p.ground_truth = budget.Text(w->ground_truth());
  p.extra_json = budget.Text(w->extra_json());
  p.weight = w->weight();
  if (!(p.weight >= 0 && p.weight < 1e300)) Corrupt("the prompt's weight is not a finite number >= 0");
  p.tokens = budget.Values(w->tokens());
  return p;
}

PromptLease Read(Budget& budget, const wire::Lease* w) {
  if (!w) Corrupt("the lease is missing");
  PromptLease l;
  l.lease_id = w->lease_id();
  l.purpose = Enum(w->purpose(), Purpose::kEval, "purpose");
  l.attempt = w->attempt();
  l.num_samples = w->num_samples();
  if (l.num_samples < 0 || l.num_samples > (1 << 20)) Corrupt("num_samples is out of range");
  l.policy_version = w->policy_version();
  l.deadline_ms = w->deadline_ms();
  l.prompt = Read(budget, w->prompt());
  return l;
}

Trajectory Read(Budget& budget, const wire::Trajectory* w) {
  budget.Spend(16);
  Trajectory t;
  t.sample = w->sample();
  t.tokens = budget.Values(w->tokens());
  if (w->segments()) {
    for (const wire::Segment* s : *w->segments()) {
      budget.Spend(8);
      t.segments.push_back({.origin = Enum(s->origin(), Origin::kEnvironment, "origin"), .begin = s->begin(),
                            .end = s->end(), .media_digest = budget.Text(s->media_digest())});
    }
  }
  t.loss_mask = budget.Values(w->loss_mask());
  t.logprobs = budget.Values(w->logprobs());
  t.policy_versions = budget.Values(w->policy_versions());
  t.finish = Enum(w->finish(), FinishReason::kAborted, "finish");
  if (w->completion()) {
    budget.Spend(w->completion()->size());
    t.completion.assign(reinterpret_cast<const char*>(w->completion()->data()), w->completion()->size());
  }
  if (w->rewards()) {
    for (const wire::RewardPart* r : *w->rewards()) {
      budget.Spend(16);
      t.rewards.push_back({.name = budget.Text(r->name()), .value = r->value(), .weight = r->weight(),
                           .scope = Enum(r->scope(), RewardScope::kToken, "scope"), .index = r->index(),
                           .function_digest = budget.Text(r->function_digest())});
    }
  }
  t.reward = w->reward();
  t.scored = w->scored();
  t.unscored_reason = budget.Text(w->unscored_reason());
  return t;
}

TrajectoryGroup Read(Budget& budget, const wire::Group* w) {
  if (!w) Corrupt("the group is missing");
  TrajectoryGroup g;
  g.run_id = budget.Text(w->run_id());
  g.actor = budget.Text(w->actor());
  g.lease = Read(budget, w->lease());
  g.policy = {.version = w->policy_version(), .digest = budget.Text(w->policy_digest())};
  if (w->trajectories()) {
    for (const wire::Trajectory* t : *w->trajectories()) g.trajectories.push_back(Read(budget, t));
  }
  if (!g.trajectories.empty()) CheckInvariants(g);
  return g;
}

const wire::Root* Open(std::span<const std::byte> bytes) {
  if (bytes.size() < 8 || bytes.size() > kMaxRecordBytes) {
    Corrupt("it has " + std::to_string(bytes.size()) + " bytes");
  }
  const auto* data = reinterpret_cast<const uint8_t*>(bytes.data());
  // One table needs at least its 4-byte offset on the wire, which bounds how many there can honestly be.
  flatbuffers::Verifier verifier(data, bytes.size(), /*max_depth=*/16,
                                 static_cast<flatbuffers::uoffset_t>(bytes.size() / 4 + 16));
  if (!wire::VerifyRootBuffer(verifier)) Corrupt("it is not a verified FlatBuffer of this schema");
  return wire::GetRoot(data);
}

}  // namespace

std::string Encode(const Prompt& prompt) {
  FlatBufferBuilder b;
  const auto p = Write(b, prompt);
  return Take(b, wire::CreateRoot(b, p));
}

std::string Encode(const PromptLease& lease) {
  FlatBufferBuilder b;
  const auto l = Write(b, lease);
  return Take(b, wire::CreateRoot(b, 0, l));
}

std::string Encode(const TrajectoryGroup& group) {
  FlatBufferBuilder b(4096);
  const auto g = Write(b, group);
  return Take(b, wire::CreateRoot(b, 0, 0, g));
}

std::string Encode(std::span<const PromptLease> leases) {
  FlatBufferBuilder b(4096);
  std::vector<Offset<wire::Lease>> list;
  for (const PromptLease& l : leases) list.push_back(Write(b, l));
  const auto table = wire::CreateLeases(b, b.CreateVector(list));
  return Take(b, wire::CreateRoot(b, 0, 0, 0, table));
}

std::string Encode(std::span<const TrajectoryGroup> groups) {
  FlatBufferBuilder b(1 << 16);
  std::vector<Offset<wire::Group>> list;
  for (const TrajectoryGroup& g : groups) list.push_back(Write(b, g));
  const auto table = wire::CreateGroups(b, b.CreateVector(list));
  return Take(b, wire::CreateRoot(b, 0, 0, 0, 0, table));
}

Prompt DecodePrompt(std::span<const std::byte> bytes) {
  Budget budget(bytes.size());
  return Read(budget, Open(bytes)->prompt());
}

PromptLease DecodeLease(std::span<const std::byte> bytes) {
  Budget budget(bytes.size());
  return Read(budget, Open(bytes)->lease());
}

TrajectoryGroup DecodeGroup(std::span<const std::byte> bytes) {
  Budget budget(bytes.size());
  return Read(budget, Open(bytes)->group());
}

std::vector<PromptLease> DecodeLeases(std::span<const std::byte> bytes) {
  Budget budget(bytes.size());
  const wire::Root* root = Open(bytes);
  if (!root->leases()) Corrupt("the list of leases is missing");
  std::vector<PromptLease> out;
  if (root->leases()->leases()) {
    for (const wire::Lease* l : *root->leases()->leases()) out.push_back(Read(budget, l));
  }
  return out;
}

std::vector<TrajectoryGroup> DecodeGroups(std::span<const std::byte> bytes) {
  Budget budget(bytes.size());
  const wire::Root* root = Open(bytes);
  if (!root->groups()) Corrupt("the list of groups is missing");
  std::vector<TrajectoryGroup> out;
  if (root->groups()->groups()) {
    for (const wire::Group* g : *root->groups()->groups()) out.push_back(Read(budget, g));
  }
  return out;
}

}  // namespace plumb
