// What the tests of this folder share: a conversation held from begin to end, options of hosts.
#pragma once

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "environment/doors/open_environment.h"
#include "tests/testing/paths.h"

namespace plumb::environment {

inline constexpr const char* kHermesTemplate = "{{ '<tool_call>' }}";

inline OpenOptions TestOptions(const std::string& chat_template = kHermesTemplate) {
  OpenOptions options;
  options.chat_template = chat_template;
  options.host = {plumb::testing::BinaryPath("environment/plumb_environment_host")};
  return options;
}

inline configs::EnvironmentConfig TestConfig(configs::EnvironmentKind kind,
                                             const std::string& example = "") {
  configs::EnvironmentConfig config;
  config.kind = kind;
  if (!example.empty()) config.path = PLUMB_SOURCE_DIR "/examples/environments/" + example;
  config.memory_mb = 1024;
  config.timeout_s = 20;  // a busy machine is no failure
  return config;
}

inline Prompt TestPrompt(const std::string& truth = "7", const std::string& extra = "{}") {
  Prompt prompt;
  prompt.messages = {{"user", "Find the number."}};
  prompt.ground_truth = truth;
  prompt.extra_json = extra;
  return prompt;
}

// The reply to what was asked last.
inline EnvironmentReply Next(EnvironmentPort& port) {
  std::vector<EnvironmentReply> replies = port.Poll(After(std::chrono::seconds(60)));
  EXPECT_EQ(replies.size(), 1u);
  return replies.empty() ? EnvironmentReply{.error = "no reply"} : replies[0];
}

inline std::string Call(const std::string& name, const std::string& arguments) {
  return "<tool_call>\n{\"name\": \"" + name + "\", \"arguments\": " + arguments +
         "}\n</tool_call>";
}

// Begins and says each text in turn, until it is over; all replies, the opening first.
inline std::vector<EnvironmentReply> Talk(EnvironmentPort& port, const Prompt& prompt,
                                          const std::vector<std::string>& texts,
                                          uint64_t episode = 1) {
  port.Begin(episode, prompt, 0);
  std::vector<EnvironmentReply> out = {Next(port)};
  for (const std::string& text : texts) {
    if (!out.back().error.empty() || out.back().done) break;
    port.Act(episode, text);
    out.push_back(Next(port));
  }
  port.End(episode);
  return out;
}

inline std::string Said(const EnvironmentReply& reply) {
  std::string out;
  for (const Message& message : reply.messages) out += message.role + ": " + message.content + "|";
  return out + reply.text + (reply.error.empty() ? "" : "ERROR " + reply.error);
}

}  // namespace plumb::environment
