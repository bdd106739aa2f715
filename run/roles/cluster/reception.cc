#include "run/roles/cluster/reception.h"

#include <random>
#include <utility>

#include "common/base/error.h"
#include "common/base/file.h"
#include "common/base/log.h"

namespace plumb::run {
namespace {

constexpr int kBeatsUntilLost = 8;

std::string RandomName() {
  std::random_device random;
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string name;
  for (int i = 0; i < 16; ++i) name.push_back(kDigits[random() % 16]);
  return name;
}

}  // namespace

Reception::Reception(ReceptionOptions options)
    : options_(std::move(options)),
      recipe_(configs::ToToml(options_.config)),
      recipe_digest_(options_.recipe_digest),
      life_(RandomName()),
      roster_(options_.lost_after) {
  server_ = std::make_unique<RpcServer>(
      options_.endpoint,
      [this](RpcRequest request, RpcResponder responder) {
        try {
          bool answered = false;
          std::string reply = Handle(request, responder, &answered);
          if (!answered) responder.Reply(std::move(reply));
        } catch (const Error& e) {
          responder.Fail(e);
        } catch (const std::exception& e) {
          responder.Fail(Error(ErrorCode::kIo, e.what()));
        }
      },
      RpcServerOptions{.curve = options_.doors});
}

const RoleFiles& Reception::FilesFor(MemberKind kind) {
  const auto found = files_.find(kind);
  if (found != files_.end()) return found->second;
  return files_[kind] = FilesOf(options_.config, kind);
}

std::string Reception::Join(std::string_view text) {
  JoinRequest request;
  bool older = false;
  try {
    request = DecodeJoin(text);
    if (request.build != BuildName()) {
      throw Error(ErrorCode::kConflict,
                  "the head is Plumb " + BuildName() + ", this role is " + request.build +
                      ": results are only equal where all roles are of one build; install the "
                      "head's",
                  request.member.name);
    }
    if (!request.recipe.empty() && request.recipe != recipe_digest_) {
      throw Error(ErrorCode::kConflict,
                  "this head runs a recipe with digest " + recipe_digest_ +
                      ", the role was started "
                      "for " +
                      request.recipe + ": it belongs to another run",
                  request.member.name);
    }
    older = roster_.Join(request.member);
  } catch (const Error& e) {
    ++refused_;
    LogWarning("a role was refused: " + std::string(e.what()));
    throw;
  }
  if (older) {
    LogInfo(request.member.name + " has begun anew: what its earlier life held is free");
    options_.gone(request.member);
  }
  LogInfo(request.member.name + " has joined as " + NameOf(request.member.kind) + " from " +
          request.member.machine);
  Welcome welcome{.life = life_,
                  .run_id = options_.run_id,
                  .recipe = recipe_,
                  .recipe_digest = recipe_digest_,
                  .model_digest = options_.model_digest,
                  .files = {},
                  .ports = options_.ports,
                  .beat_ms = std::max<int64_t>(1, options_.lost_after.count() / kBeatsUntilLost)};
  MutexLock lock(mu_);
  welcome.files = FilesFor(request.member.kind);
  return EncodeWelcome(welcome);
}

Payload Reception::File(std::string_view text) {
  const FileQuestion question = DecodeFileQuestion(text);
  std::string path;
  {
    MutexLock lock(mu_);
    for (const RoleFile& file : FilesFor(question.kind).files) {
      if (file.name == question.name) path = file.path;
    }
  }
  if (path.empty())
    throw Error(ErrorCode::kNotFound, "this run has no such file for a role", question.name);
  // Not mapped: somebody may be editing it.
  return Payload(RealFileSystem().ReadFile(path, size_t{1} << 40));
}

std::string Reception::Handle(const RpcRequest& request, RpcResponder& responder, bool* answered) {
  if (request.verb == kJoinVerb) return Join(request.payload);
  if (request.verb == kFileVerb) {
    *answered = true;
    responder.Reply(File(request.payload));
    return {};
  }
  if (request.verb == kBeatVerb) {
    const Who who = DecodeWho(request.payload);
    BeatReply reply{.life = life_,
                    .known = roster_.Beat(who.name, who.epoch),
                    .ended = ended_.load(),
                    .relay = {}};
    if (reply.known && who.relay && options_.relay)
      reply.relay = options_.relay(who.name, *who.relay);
    return EncodeBeat(reply);
  }
  if (request.verb == kLeaveVerb) {
    const Who who = DecodeWho(request.payload);
    for (const Member& member : roster_.members()) {
      if (member.name != who.name || !roster_.Leave(who.name, who.epoch)) continue;
      LogInfo(member.name + " has left");
      options_.gone(member);
    }
    return {};
  }
  throw Error(ErrorCode::kUnsupported,
              "the head does not know the request '" + request.verb.substr(0, 40) + "'");
}

void Reception::Sweep() {
  for (const Member& member : roster_.Sweep()) {
    LogWarning(member.name + " on " + member.machine + " was silent for " +
               std::to_string(options_.lost_after.count()) +
               " ms and counts as lost: others do what it had begun");
    options_.gone(member);
  }
}

std::map<std::string, int64_t> Reception::counters() const {
  auto counters = roster_.counters();
  counters["refused"] = refused_.load();
  const auto socket = server_->counters();
  const auto keys = socket.find("keys_refused");
  counters["keys_refused"] = keys == socket.end() ? 0 : static_cast<int64_t>(keys->second);
  return counters;
}

}  // namespace plumb::run
