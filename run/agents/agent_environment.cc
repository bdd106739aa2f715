#include "run/agents/agent_environment.h"

#include <utility>

#include "common/base/error.h"

namespace plumb::run {

void AgentEnvironment::Begin(uint64_t episode, const Prompt& prompt, uint32_t sample) {
  episodes_[episode];
  door_.Begin(episode, prompt, sample);
}

void AgentEnvironment::Act(uint64_t episode, const std::string& text) {
  const auto at = episodes_.find(episode);
  if (at == episodes_.end() || at->second.calls.empty()) {
    throw Error(ErrorCode::kInvalidArgument,
                "episode " + std::to_string(episode) + " asks for nothing", "agent");
  }
  AgentAnswer answer;
  answer.call = at->second.calls.front().call;
  answer.episode = episode;
  answer.tokens = tokenizer_.Encode(text);
  answer.logprobs.assign(answer.tokens.size(), 0.0f);
  at->second.calls.pop_front();
  at->second.awaits = true;
  door_.Answer(std::move(answer));
}

void AgentEnvironment::Say(uint64_t episode, Open& open, std::vector<EnvironmentReply>* out) {
  if (!open.awaits || open.calls.empty()) return;
  open.awaits = false;
  EnvironmentReply reply{.episode = episode};
  reply.text = tokenizer_.Decode(open.calls.front().tokens, /*skip_special=*/false);
  out->push_back(std::move(reply));
}

std::vector<EnvironmentReply> AgentEnvironment::Poll(Deadline deadline) {
  std::vector<EnvironmentReply> out;
  for (auto& [number, open] : episodes_) Say(number, open, &out);
  while (out.empty() && std::chrono::steady_clock::now() < deadline) {
    for (AgentEvent& event : door_.Poll(deadline)) {
      const auto at = episodes_.find(event.episode);
      if (at == episodes_.end()) continue;
      if (event.kind == AgentEvent::Kind::kCall) {
        at->second.calls.push_back(std::move(event.call));
        Say(event.episode, at->second, &out);
      } else if (event.kind == AgentEvent::Kind::kEnded) {
        EnvironmentReply reply{.episode = event.episode};
        reply.done = true;
        reply.reward = event.reward;
        reply.error = event.timed_out ? "its time is over (environment.episode_seconds)"
                                      : std::move(event.error);
        out.push_back(std::move(reply));
      }
    }
    if (door_.closed()) break;
  }
  return out;
}

void AgentEnvironment::End(uint64_t episode) {
  episodes_.erase(episode);
  door_.End(episode);
}

}  // namespace plumb::run
