#include "actor/relay/weight_relay.h"

#include <algorithm>
#include <utility>

#include "common/base/error.h"
#include "common/base/file.h"
#include "common/net/weight_wire.h"

namespace plumb::actor {
namespace {

constexpr std::chrono::milliseconds kHold{500};   // of a question for what is not here yet
constexpr size_t kPieceBytes = size_t{16} << 20;  // an answer is one message: it comes, or not
constexpr int64_t kMostWorkers = 64;

}  // namespace

WeightRelay::WeightRelay(const WeightRelayOptions& options)
    : head_key_(options.keys.server_key),
      allowed_(options.keys.empty() ? "" : options.folder + "/relay.allowed") {
  LetIn({});
  // Each worker may hold one question.
  const auto workers = static_cast<int>(std::min(options.children, kMostWorkers) + 2);
  server_ = std::make_unique<RpcServer>(
      options.endpoint,
      [this](RpcRequest request, RpcResponder responder) { Handle(request, std::move(responder)); },
      RpcServerOptions{
          .workers = workers,
          .piece_bytes = kPieceBytes,
          .curve = {.own = options.keys.own, .allowed_file = allowed_, .open = options.keys.open}});
}

void WeightRelay::LetIn(const std::vector<std::string>& keys) {
  if (allowed_.empty()) return;
  std::string text = "# the head, and actors that ask here for weights\n" + head_key_ + "\n";
  for (const std::string& key : keys) text += key + "\n";
  RealFileSystem().WriteFileAtomic(allowed_, text);
}

void WeightRelay::Handle(const RpcRequest& request, RpcResponder responder) {
  if (request.verb == weight_wire::kHereVerb) return responder.Reply(std::string());
  if (request.verb != weight_wire::kBlocksVerb)
    throw Error(ErrorCode::kUnsupported, "an actor that hands weights on does not know '" +
                                             request.verb.substr(0, 40) + "'");
  responder.Reply(shelf_.Answer(weight_wire::DecodeBlocksQuestion(request.payload),
                                std::min(request.deadline, After(kHold))));
}

std::map<std::string, int64_t> WeightRelay::counters() const {
  const auto sockets = server_->counters();
  const auto refused = sockets.find("keys_refused");
  return {{"actor/weight_bytes_handed_on", shelf_.counters().at("weight_bytes")},
          {"actor/relay_keys_refused",
           refused == sockets.end() ? 0 : static_cast<int64_t>(refused->second)}};
}

}  // namespace plumb::actor
