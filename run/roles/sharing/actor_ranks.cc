#include "run/roles/sharing/actor_ranks.h"

#include <utility>

#include "common/base/error.h"
#include "common/base/file.h"
#include "common/base/log.h"
#include "policy_model/families/tensor_share.h"
#include "policy_model/memory/threads.h"
#include "run/session/interrupt.h"

namespace plumb::run {
namespace {

using nlohmann::json;
using policy_model::Weights;

constexpr std::chrono::milliseconds kSignOfLife{1000};
constexpr char kSubmit[] = "submit", kAbandon[] = "abandon", kStep[] = "step", kNew[] = "new",
               kEnd[] = "end";

Weights MakeShare(const learner::RankTensorGroup& group, const Session& session) {
  return {policy_model::ShareOf(session.shape(), group.rank(), group.size(), "rollout.tp"),
          session.stream(), session.dtype()};
}

}  // namespace

json ToJson(const actor::GenerateRequest& r) {
  PLUMB_CHECK(!r.turns && r.openings.empty(), "rollout.tp is refused with an environment");
  json out = {{"id", r.id},
              {"tokens", r.tokens},
              {"samples", r.num_samples},
              {"first", r.first_sample},
              {"key", r.prompt_key},
              {"limit", r.limit},
              {"greedy_last", r.greedy_last}};
  if (r.sampling) {
    out["sampling"] = {r.sampling->temperature, r.sampling->top_k, r.sampling->top_p,
                       r.sampling->min_p, r.sampling->seed};
  }
  return out;
}

actor::GenerateRequest RequestOf(const json& in) {
  actor::GenerateRequest r;
  r.id = in.at("id").get<uint64_t>();
  r.tokens = in.at("tokens").get<std::vector<int32_t>>();
  r.num_samples = in.at("samples").get<int32_t>();
  r.first_sample = in.at("first").get<uint32_t>();
  r.prompt_key = in.at("key").get<uint64_t>();
  r.limit = in.at("limit").get<int32_t>();
  r.greedy_last = in.at("greedy_last").get<bool>();
  if (in.contains("sampling")) {
    const json& s = in["sampling"];
    r.sampling = kernels::SamplingOptions{.temperature = s.at(0).get<float>(),
                                          .top_k = s.at(1).get<int32_t>(),
                                          .top_p = s.at(2).get<float>(),
                                          .min_p = s.at(3).get<float>(),
                                          .seed = s.at(4).get<uint64_t>()};
  }
  return r;
}

LeadingRank::LeadingRank(learner::Ranks& ranks, const Session& session)
    : group_(ranks, session.stream()),
      vocab_(session.shape().vocab),
      share_(MakeShare(group_, session)) {}

actor::EngineShare LeadingRank::engine_share() {
  return {.group = &group_, .vocab = vocab_, .followers = this};
}

void LeadingRank::Submitted(const actor::GenerateRequest& request) {
  calls_.push_back({{kSubmit, ToJson(request)}});
}

void LeadingRank::Abandoned() { calls_.push_back({{kAbandon, true}}); }

const Weights& LeadingRank::Stepping(const Weights& whole, int64_t version) {
  // A learner that went back publishes a number again; its weights lie elsewhere then.
  const bool fresh = version != version_ || taken_ != &whole;
  calls_.push_back({{kStep, version}, {kNew, fresh}});
  Tell();
  if (fresh) {
    group_.Spread(whole, share_);
    version_ = version;
    taken_ = &whole;
  }
  return share_;
}

void LeadingRank::StillHere() {
  if (std::chrono::steady_clock::now() - told_ >= kSignOfLife) Tell();
}

void LeadingRank::End() {
  calls_.push_back({{kEnd, true}});
  Tell();
}

void LeadingRank::Tell() {
  group_.ranks().Share(std::exchange(calls_, json::array()).dump());
  told_ = std::chrono::steady_clock::now();
}

void FollowActor(learner::Ranks& ranks, const Session& session) {
  learner::RankTensorGroup group(ranks, session.stream());
  const Weights whole = Weights::WithoutMemory(session.shape(), session.stream(), session.dtype());
  Weights share = MakeShare(group, session);
  actor::Engine engine(share.shape(), session.stream(), session.dtype(),
                       EngineOptionsOf(session.config(), session.shape()), &session.tokenizer(),
                       {.group = &group, .vocab = session.shape().vocab});
  LogInfo("rank " + std::to_string(ranks.rank()) + " of " + std::to_string(ranks.size()) +
          " computes as rank 0 says");
  for (;;) {
    const std::string text = ranks.Share("");
    try {
      for (const json& call : json::parse(text)) {
        if (call.contains(kEnd)) return;
        if (call.contains(kSubmit)) engine.Submit(RequestOf(call[kSubmit]));
        if (call.contains(kAbandon)) engine.Abandon();
        if (!call.contains(kStep)) continue;
        if (call.at(kNew).get<bool>()) group.Spread(whole, share);
        engine.Step(share, call[kStep].get<int64_t>());
        engine.TakeFinished();  // the first rank has them, too
      }
    } catch (const json::exception& e) {
      throw Error(ErrorCode::kCorruption,
                  std::string("what rank 0 says of its steps is not understood: ") + e.what());
    }
  }
}

bool RunActorOfRanks(const Session& session, const Endpoints& endpoints, int64_t index,
                     const learner::RankPlace& place, RunOptions options) {
  NowBusy(Busy::kInOrder);
  const std::string folder = endpoints.folder + "/a" + std::to_string(index);
  RealFileSystem().CreateDirectories(folder);
  std::unique_ptr<learner::Ranks> ranks;
  try {
    ranks = learner::JoinInFolder(folder, place.rank, place.size, StallTime(session.config()),
                                  [&] { return options.Stopped(); });
  } catch (const learner::JoinStopped&) {
    return false;
  }
  options.ranks = ranks.get();
  try {
    policy_model::UseThreads(ThreadSharesOf(session.config()).actor);
    if (ranks->first()) RunActorRole(session, endpoints, index, options);
    else FollowActor(*ranks, session);
  } catch (const std::exception& e) {
    ranks->SayEnded(e.what());
    throw;
  }
  return true;
}

}  // namespace plumb::run
