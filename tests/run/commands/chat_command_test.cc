// plumb chat with lines piped in, and on a terminal of its own with Ctrl-C.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <pty.h>
#include <sys/wait.h>
#include <unistd.h>

#include <iostream>
#include <sstream>

#include "tests/run/cli_runner.h"
#include "tests/run/models/toy_model.h"
#include "tests/testing/paths.h"
#include "tests/testing/temp_folder.h"

namespace plumb::run {
namespace {

using testing::CliOutput;
using testing::Has;
using testing::JsonLines;
using testing::RunPlumb;

CliOutput Chat(const std::string& lines, std::vector<std::string> more) {
  std::istringstream in(lines);
  std::streambuf* const before = std::cin.rdbuf(in.rdbuf());
  std::cin.clear();
  more.insert(more.begin(), "chat");
  const CliOutput output = RunPlumb(more);
  std::cin.rdbuf(before);
  std::cin.clear();
  return output;
}

// A program on a terminal.
class Terminal {
 public:
  explicit Terminal(std::vector<std::string> line) {
    pid_ = forkpty(&fd_, nullptr, nullptr, nullptr);
    if (pid_ != 0) return;
    std::vector<char*> argv;
    for (std::string& word : line) argv.push_back(word.data());
    argv.push_back(nullptr);
    execv(argv[0], argv.data());
    _exit(127);
  }
  ~Terminal() {
    if (pid_ > 0) kill(pid_, SIGKILL), waitpid(pid_, nullptr, 0);
    close(fd_);
  }
  void Type(const std::string& text) {
    ASSERT_EQ(write(fd_, text.data(), text.size()), static_cast<ssize_t>(text.size()));
  }
  // Reads until `text` has come `times` times since the start; false: it did not within 30 s.
  bool Wait(const std::string& text, int times = 1) {
    const auto count = [&] {
      int n = 0;
      for (size_t at = 0; (at = seen_.find(text, at)) != std::string::npos; at += text.size()) ++n;
      return n;
    };
    while (count() < times) {
      if (!Read()) return count() >= times;
    }
    return true;
  }
  bool WaitForMore(size_t bytes) {
    for (const size_t before = seen_.size(); seen_.size() < before + bytes;) {
      if (!Read()) return false;
    }
    return true;
  }
  int ExitCode() {
    while (Wait("\x01")) {  // to the end; never said
    }
    int status = 0;
    waitpid(pid_, &status, 0);
    pid_ = -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128;
  }
  const std::string& seen() const { return seen_; }

 private:
  bool Read() {
    pollfd ready{fd_, POLLIN, 0};
    char bytes[4096];
    if (poll(&ready, 1, 30'000) != 1) return false;
    const ssize_t n = read(fd_, bytes, sizeof bytes);
    if (n > 0) seen_.append(bytes, static_cast<size_t>(n));
    return n > 0;
  }

  int fd_ = -1;
  pid_t pid_ = -1;
  std::string seen_;
};

TEST(ChatCommand, PipedLinesAreATurnEach) {
  const plumb::testing::TempFolder temp;
  testing::WriteToyModel(temp / "model", {.max_positions = 300, .chat_template = true});
  const std::vector<std::string> more = {
      temp / "model", "--max-new-tokens", "8", "--greedy", "--threads", "1", "--system", "4"};
  const std::string save = "/save " + (temp / "talk.jsonl") + "\n";
  const CliOutput output =
      Chat("1+1\n\n2+\\\n3\n" + save + "/reset\n1+1\n" + save + "/system\n/exit\n9\n", more);
  ASSERT_EQ(output.code, 0) << output.err;
  const auto talks = JsonLines(RealFileSystem().ReadFile(temp / "talk.jsonl", 1 << 20));
  ASSERT_EQ(talks.size(), 2u);
  const auto& first = talks[0]["messages"];
  ASSERT_EQ(first.size(), 5u) << "system, two questions, two answers";
  EXPECT_EQ(first[0]["content"], "4");
  EXPECT_EQ(first[3]["content"], "2+\n3") << "a line that goes on";
  EXPECT_EQ(talks[1]["messages"].size(), 3u) << "the system message stays";
  EXPECT_EQ(talks[1]["messages"][2], first[2]) << "the same question, greedily";
  std::string shown;
  for (const auto& [talk, message] : {std::pair{0, 2}, {0, 4}, {1, 2}})
    shown += talks[static_cast<size_t>(talk)]["messages"][static_cast<size_t>(message)]["content"]
                 .get<std::string>() +
             "\n";
  EXPECT_EQ(output.out, shown) << "answers alone, and nothing behind /exit";
}

TEST(ChatCommand, WhatCannotBeIsSaid) {
  const plumb::testing::TempFolder temp;
  testing::WriteToyModel(temp / "plain");
  const CliOutput plain = Chat("1\n", {temp / "plain"});
  EXPECT_EQ(plain.code, 2);
  EXPECT_TRUE(Has(plain.err, "no chat template") && Has(plain.err, "--raw")) << plain.err;
  testing::WriteToyModel(temp / "model", {.chat_template = true, .end_token = false});
  const CliOutput full =
      Chat("1\n" + std::string(62, '2') + "\n", {temp / "model", "--threads", "1"});
  EXPECT_EQ(full.code, 2) << "the second question finds no room";
  EXPECT_TRUE(Has(full.err, "[cut: the context of 64 tokens is full; /reset]") &&
              Has(full.err, "nothing was cut"))
      << full.err;
  EXPECT_EQ(Chat("/nonsense\n", {temp / "model"}).code, 2);
  EXPECT_EQ(Chat("/save\n", {temp / "model"}).code, 2);
  testing::WriteFile(temp / "none.json", "");
  EXPECT_EQ(Chat("1\n", {temp / "model", "--tools", temp / "none.json"}).code, 2);
  testing::WriteFile(temp / "odd.json", "no json");
  EXPECT_TRUE(Has(Chat("1\n", {temp / "model", "--tools", temp / "odd.json"}).err, "--tools: "));
  const CliOutput odd = Chat("1\n\nh\n", {temp / "model", "--threads", "1"});
  EXPECT_TRUE(Has(odd.err, "line 3 of the chat: the character 'h'")) << odd.err;
  EXPECT_TRUE(Has(Chat("/help\n/tokens\n", {temp / "model"}).err, "0 of 64 tokens"));
  const CliOutput cut = Chat("1\n", {temp / "model", "--max-new-tokens", "3"});
  EXPECT_TRUE(Has(cut.err, "[cut after 3 tokens: --max-new-tokens]")) << cut.err;
}

TEST(ChatCommand, OnATerminalCtrlCEndsTheAnswerAndNotTheProgram) {
  const plumb::testing::TempFolder temp;
  // Answers without end: only Ctrl-C ends them before the test's patience does.
  testing::WriteToyModel(temp / "model",
                         {.max_positions = 200'000, .chat_template = true, .end_token = false});
  Terminal terminal({plumb::testing::BinaryPath("plumb"), "chat", temp / "model",
                     "--max-new-tokens", "190000", "--threads", "1"});
  ASSERT_TRUE(terminal.Wait("> ")) << terminal.seen();
  terminal.Type("\x03");
  ASSERT_TRUE(terminal.Wait("/exit ends the chat")) << "at the prompt it says how to leave";
  ASSERT_TRUE(terminal.Wait("> ", 2)) << terminal.seen();
  terminal.Type("1+1\n");
  ASSERT_TRUE(terminal.Wait("1+1\r\n")) << "the terminal's echo";
  ASSERT_TRUE(terminal.WaitForMore(40)) << "it answers";
  terminal.Type("\x03");
  ASSERT_TRUE(terminal.Wait("[stopped]")) << terminal.seen().substr(0, 400);
  ASSERT_TRUE(terminal.Wait("> ", 3));
  terminal.Type("/tokens\n");
  ASSERT_TRUE(terminal.Wait("of 200000 tokens"));
  terminal.Type("/nonsense\n");
  ASSERT_TRUE(terminal.Wait("no such command"));
  terminal.Type("\x04");  // Ctrl-D
  EXPECT_EQ(terminal.ExitCode(), 0) << terminal.seen();
}

}  // namespace
}  // namespace plumb::run
