// A door with its endpoint, and somebody in the actor's place who answers by a script; what tests
// of agents share.
#pragma once

#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "run/agents/agent_door.h"
#include "run/agents/agent_server.h"
#include "tests/run/serve/api_client.h"

namespace plumb::run::testing {

inline constexpr char kHermes[] =
    "{% if tools %}<system>{{ tools | tojson }}<eos>{% endif %}"
    "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] or '' }}"
    "{% for c in m['tool_calls'] or [] %}<tool_call>{{ c['function'] | tojson }}</tool_call>"
    "{% endfor %}<eos>{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}";

class House {
 public:
  // What the policy says to a call, without the end token.
  using Says = std::function<std::string(const AgentCall&)>;
  explicit House(Says says, DoorOptions options = Options(), const char* chat_template = kHermes)
      : tokenizer(Tokenizer::BuiltIn("bytes")),
        chat(chat_template ? ChatTemplate::Parse(chat_template, "<bos>", "<eos>") : nullptr),
        says_(std::move(says)) {
    options.eos = {tokenizer->Find("<eos>")};
    door = std::make_unique<AgentDoor>(tokenizer.get(), chat.get(), options);
    server = std::make_unique<AgentServer>(*door, *tokenizer, AgentServerOptions{.key = "house"});
    actor_ = std::thread([this] { Act(); });
  }
  ~House() {
    door->Close();
    actor_.join();
  }

  static DoorOptions Options() {
    DoorOptions options;
    options.environment.timeout_s = 20;
    options.environment.episode_seconds = 60;
    return options;
  }

  // An episode with an agent.
  AgentTask Begin(const std::string& text = "2+3?") {
    Prompt prompt;
    prompt.messages = {{.role = "user", .content = text}};
    prompt.ground_truth = "5";
    prompt.extra_json = R"({"level": 2})";
    door->Begin(next_++, prompt, 1);
    return door->Fetch(After(std::chrono::seconds(10))).value();
  }
  std::string Path(const AgentTask& task, const std::string& what) const {
    return "/episodes/" + std::to_string(task.episode) + "/v1/" + what;
  }
  HttpReply Ask(const AgentTask& task, const std::string& what, const nlohmann::json& body) const {
    return Post(server->port(), Path(task, what), body,
                "Authorization: Bearer " + task.key + "\r\n");
  }
  // The end of an episode, as the actor hears of it.
  AgentEvent Ended(const AgentTask& task) {
    MutexLock lock(mu_);
    const bool there =
        heard_.wait_until(lock, After(std::chrono::seconds(30)),
                          [&]() PLUMB_REQUIRES(mu_) { return ended_.contains(task.episode); });
    EXPECT_TRUE(there);
    return there ? ended_.at(task.episode) : AgentEvent{};
  }
  std::vector<AgentCall> calls() const {
    MutexLock lock(mu_);
    return calls_;
  }
  std::vector<AgentCall> left() const {
    MutexLock lock(mu_);
    return left_;
  }

  const std::unique_ptr<Tokenizer> tokenizer;
  const std::unique_ptr<ChatTemplate> chat;
  std::unique_ptr<AgentDoor> door;
  std::unique_ptr<AgentServer> server;

 private:
  void Act() {
    while (!door->closed()) {
      for (const AgentEvent& event : door->Poll(After(std::chrono::milliseconds(50)))) {
        if (event.kind == AgentEvent::Kind::kEnded) door->End(event.episode);
        {
          MutexLock lock(mu_);
          if (event.kind == AgentEvent::Kind::kEnded) ended_[event.episode] = event;
          else (event.kind == AgentEvent::Kind::kCall ? calls_ : left_).push_back(event.call);
          heard_.notify_all();
        }
        // Last: whoever has the answer looks at once at what was heard.
        if (event.kind == AgentEvent::Kind::kCall) door->Answer(AnswerOf(event.call));
      }
    }
  }
  AgentAnswer AnswerOf(const AgentCall& call) const {
    AgentAnswer answer{.call = call.call, .episode = call.episode};
    const std::string text = says_(call);
    if (text.starts_with("refuse ")) {
      answer.refused = text.substr(7);
      answer.code = "max_turns";
      return answer;
    }
    answer.tokens = tokenizer->Encode(text + "<eos>");
    for (size_t i = 0; i < answer.tokens.size(); ++i)
      answer.logprobs.push_back(-0.5f - static_cast<float>(i));
    return answer;
  }

  const Says says_;
  mutable Mutex mu_;
  CondVar heard_;
  std::map<uint64_t, AgentEvent> ended_ PLUMB_GUARDED_BY(mu_);
  std::vector<AgentCall> calls_ PLUMB_GUARDED_BY(mu_), left_ PLUMB_GUARDED_BY(mu_);
  uint64_t next_ = 7;
  std::thread actor_;
};

}  // namespace plumb::run::testing
