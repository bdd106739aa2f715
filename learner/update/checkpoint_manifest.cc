#include "learner/update/checkpoint_manifest.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <span>

#include "common/base/error.h"
#include "common/base/hash/sha256.h"
#include "common/base/json/strict_json.h"

namespace plumb::learner {
namespace {

using Json = nlohmann::json;  // written with its keys in order
// read as they stand, so that the hash is of what was written
using Read = nlohmann::ordered_json;

constexpr char kMomentsSha256[] = "moments_sha256";  // only of moments that were left out
// Only where the loss has a scale: {"scale": 65536, "steps": 0}.
constexpr char kLossScale[] = "loss_scale";

std::string HashOf(const std::string& text) {
  Sha256 hash;
  hash.Update(std::as_bytes(std::span(text.data(), text.size())));
  return hash.HexDigest();
}

void AddLossScale(const Optimizer::Counters& counters, Json& to) {
  const LossScale::State& state = counters.loss_scale;
  if (state.scale > 0) to[kLossScale] = {{"scale", state.scale}, {"steps", state.steps}};
}

Json ToJson(const CheckpointState::Model& m) {
  Json out = {{"updates", m.counters.updates},
              {"skipped", m.counters.skipped},
              {"skipped_in_a_row", m.counters.skipped_in_a_row},
              {"moment_steps", m.moment_steps}};
  AddLossScale(m.counters, out);
  if (!m.moments_sha256.empty()) out[kMomentsSha256] = m.moments_sha256;
  return out;
}

Json ToJson(const CheckpointState& s) {
  Json models = Json::object();
  for (const auto& [name, m] : s.models) models[name] = ToJson(m);
  Json out = {{"step", s.step},
              {"policy_version", s.policy.version},
              {"policy_digest", s.policy.digest},
              {"updates", s.counters.updates},
              {"skipped", s.counters.skipped},
              {"skipped_in_a_row", s.counters.skipped_in_a_row},
              {"moment_steps", s.moment_steps},
              {"optimizer", s.optimizer},
              {"moments", s.moments},
              {"seed", s.seed},
              {"store_cursor", s.store_cursor},
              {"tokens", s.tokens},
              {"wall_s", s.wall_s},
              {"state", Json::parse(s.state_json)},
              {"algorithm", Json::parse(s.algorithm_json)},
              {"models", models}};
  AddLossScale(s.counters, out);
  if (!s.base_digest.empty()) out["base_digest"] = s.base_digest;
  if (!s.moments_sha256.empty()) out[kMomentsSha256] = s.moments_sha256;
  return out;
}

// One object of the file. nlohmann converts numbers silently (1e300 to an integer is undefined):
// every kind is asked for first.
class Object {
 public:
  Object(const Read& j, std::string name, const std::string& where)
      : j_(j), name_(std::move(name)), where_(where) {
    if (!j_.is_object()) Corrupt("'" + name_ + "' is not an object");
  }
  const Read& json() const { return j_; }
  bool Has(const char* key) const { return j_.contains(key); }
  const Read& At(const char* key) const {
    const auto found = j_.find(key);
    if (found == j_.end()) Corrupt("'" + name_ + "' has no '" + key + "'");
    return *found;
  }
  Object In(const char* key) const { return Object(At(key), key, where_); }
  int64_t Count(const char* key, int64_t least = 0) const {
    const Read& v = At(key);
    const bool fits = v.is_number_unsigned() ? v.get<uint64_t>() <= static_cast<uint64_t>(INT64_MAX)
                                             : v.is_number_integer();
    if (!fits || v.get<int64_t>() < least)
      Corrupt("'" + std::string(key) + "' is not a whole number from " + std::to_string(least) +
              " on");
    return v.get<int64_t>();
  }
  uint64_t Unsigned(const char* key) const {
    const Read& v = At(key);
    if (!v.is_number_unsigned())
      Corrupt("'" + std::string(key) + "' is not a whole number from 0 on");
    return v.get<uint64_t>();
  }
  double Number(const char* key) const {
    const Read& v = At(key);
    if (!v.is_number()) Corrupt("'" + std::string(key) + "' is not a number");
    return v.get<double>();
  }
  bool Truth(const char* key) const {
    const Read& v = At(key);
    if (!v.is_boolean()) Corrupt("'" + std::string(key) + "' is neither true nor false");
    return v.get<bool>();
  }
  std::string Text(const char* key) const {
    const Read& v = At(key);
    if (!v.is_string()) Corrupt("'" + std::string(key) + "' is not a text");
    return v.get<std::string>();
  }
  Optimizer::Counters Counters() const {
    Optimizer::Counters counters{.updates = Count("updates"),
                                 .skipped = Count("skipped"),
                                 .skipped_in_a_row = Count("skipped_in_a_row")};
    if (!Has(kLossScale)) return counters;
    const Object of = In(kLossScale);
    counters.loss_scale = {.scale = of.Number("scale"), .steps = of.Count("steps")};
    if (!(counters.loss_scale.scale >= 1)) Corrupt("'scale' is not a number from 1 on");
    return counters;
  }
  [[noreturn]] void Corrupt(const std::string& what) const {
    throw Error(ErrorCode::kCorruption, "malformed manifest: " + what, where_);
  }

 private:
  const Read& j_;
  const std::string name_;
  const std::string& where_;
};

CheckpointState StateOf(const Object& in, const std::string& where) {
  CheckpointState s;
  s.step = in.Count("step");
  s.policy = {.version = in.Count("policy_version", -1), .digest = in.Text("policy_digest")};
  s.counters = in.Counters();
  s.moment_steps = in.Count("moment_steps");
  if (in.Has("optimizer")) s.optimizer = in.Truth("optimizer");
  if (in.Has("moments")) s.moments = in.Truth("moments");  // always, before there was a choice
  if (s.moments && !s.optimizer) in.Corrupt("'moments' without 'optimizer'");
  s.seed = in.Unsigned("seed");
  s.store_cursor = in.Count("store_cursor");
  s.tokens = in.Count("tokens");
  s.wall_s = in.Number("wall_s");
  if (in.Has("base_digest")) s.base_digest = in.Text("base_digest");
  if (in.Has(kMomentsSha256)) s.moments_sha256 = in.Text(kMomentsSha256);
  s.state_json = in.At("state").dump();
  // Checkpoints written before there were other models have neither.
  if (in.Has("algorithm")) s.algorithm_json = in.At("algorithm").dump();
  if (in.Has("models")) {
    const Object models = in.In("models");
    for (const auto& [name, value] : models.json().items()) {
      const Object model(value, name, where);
      s.models[name] = {.counters = model.Counters(), .moment_steps = model.Count("moment_steps")};
      if (model.Has(kMomentsSha256)) s.models[name].moments_sha256 = model.Text(kMomentsSha256);
    }
  }
  return s;
}

}  // namespace

bool CheckpointState::LacksMoments() const {
  if (moments) return false;
  return moment_steps > 0 || std::any_of(models.begin(), models.end(), [](const auto& model) {
           return model.second.moment_steps > 0;
         });
}

std::string WriteManifest(const CheckpointManifest& manifest) {
  const Json body = {{"files", manifest.files},
                     {"state", manifest.state ? ToJson(*manifest.state) : Json::object()}};
  return Json{{"format", kCheckpointFormat}, {"body", body}, {"body_sha256", HashOf(body.dump())}}
      .dump(1);
}

CheckpointManifest ReadManifest(std::string_view text, const std::string& where) {
  const Read j = ParseStrictJson(text, where);
  const Object root(j, "the file", where);
  if (const int64_t format = root.Count("format"); format != kCheckpointFormat) {
    throw Error(ErrorCode::kUnsupported,
                "checkpoint format " + std::to_string(format) + ", this build reads " +
                    std::to_string(kCheckpointFormat),
                where);
  }
  const Object body = root.In("body");
  if (HashOf(body.json().dump()) != root.Text("body_sha256")) {
    throw Error(ErrorCode::kCorruption, "the manifest does not match its own hash", where);
  }
  CheckpointManifest manifest;
  const Object files = body.In("files");
  for (const auto& [name, hash] : files.json().items()) {
    if (!hash.is_string()) files.Corrupt("the file '" + name + "' has no hash");
    manifest.files[name] = hash.get<std::string>();
  }
  if (const Object state = body.In("state"); !state.json().empty())
    manifest.state = StateOf(state, where);
  return manifest;
}

}  // namespace plumb::learner
