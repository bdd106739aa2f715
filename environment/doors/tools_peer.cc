// kind = "tools": our own tools, in this process (python runs in one of its own).
#include <map>
#include <nlohmann/json.hpp>

#include "environment/doors/peer.h"

namespace plumb::environment {
namespace {

using Json = nlohmann::json;

class ToolsPeer : public Peer {
 public:
  ToolsPeer(const configs::EnvironmentConfig& config, ToolSetup setup)
      : config_(config), setup_(std::move(setup)) {}

  Problem Start(std::string* tools) override {
    try {
      if (tools_.empty()) tools_ = MakeTools(config_, setup_);
    } catch (const Error& error) {
      return error.what();
    }
    *tools = "[";
    for (const auto& tool : tools_) *tools += (tools->size() > 1 ? "," : "") + tool->schema();
    *tools += "]";
    return std::nullopt;
  }

  PeerReply Call(const PeerRequest& request, Deadline deadline) override {
    PeerReply reply;
    if (request.ask == Ask::kEnd) {
      episodes_.erase(request.episode);
      return reply;
    }
    if (request.ask == Ask::kBegin) {
      std::vector<std::unique_ptr<ToolSession>> sessions;
      for (const auto& tool : tools_) {
        Problem problem;
        sessions.push_back(tool->Begin(*request.prompt, &problem));
        if (problem) {
          reply.error = *problem;
          return reply;
        }
      }
      episodes_[request.episode] = std::move(sessions);
      return reply;
    }
    auto& sessions = episodes_.at(request.episode);
    for (const ToolCall& call : request.calls) {
      for (size_t i = 0; i < tools_.size(); ++i) {
        if (tools_[i]->name() != call.name) continue;
        const ToolResult result = sessions[i]->Call(Json::parse(call.arguments), deadline);
        reply.results.push_back({result.text, result.failed});
        if (result.reward) reply.reward = reply.reward.value_or(0) + *result.reward;
        reply.done |= result.done;
      }
    }
    reply.done |= request.calls.empty();  // the answer
    return reply;
  }

 private:
  const configs::EnvironmentConfig config_;
  const ToolSetup setup_;
  std::vector<std::unique_ptr<Tool>> tools_;
  std::map<uint64_t, std::vector<std::unique_ptr<ToolSession>>> episodes_;  // [tools] each
};

}  // namespace

std::unique_ptr<Peer> MakeToolsPeer(const configs::EnvironmentConfig& config, ToolSetup setup) {
  return std::make_unique<ToolsPeer>(config, std::move(setup));
}

}  // namespace plumb::environment
