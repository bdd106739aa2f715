// plumb chat MODEL: a conversation in the terminal; or a line a turn from what is piped in.
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <iostream>
#include <memory>

#include "common/base/error.h"
#include "common/base/file.h"
#include "common/base/output_path.h"
#include "common/text/tokenizer/text_stream.h"
#include "run/commands/checked_numbers.h"
#include "run/commands/cli.h"
#include "run/commands/model_options.h"
#include "run/models/conversation.h"

namespace plumb::run {
namespace {

constexpr char kHelp[] =
    "  /system TEXT  another system message from here on; without TEXT: none\n"
    "  /reset        forget the conversation (the system message stays)\n"
    "  /save FILE    add the conversation to FILE, a line {\"messages\": [...]}\n"
    "  /tokens       how much of the context is used\n"
    "  /help         this\n"
    "  /exit         leave; so does Ctrl-D. Ctrl-C ends an answer\n"
    "A line that ends with \\ goes on in the next one; a second / says a line that begins with "
    "one.\n";

struct ChatArguments {
  std::string model, system, tools;
  ModelOptions options;
  SamplingArguments sampling;
  int64_t kv_mb = 2048;
};

class Chat {
 public:
  Chat(const ModelFolder& model, const ConversationOptions& options)
      : terminal_(isatty(STDIN_FILENO) != 0),
        model_(model),
        options_(options),
        talk_(model, options) {}

  void Run() {
    if (terminal_) {
      std::fprintf(stderr, "%s, context of %lld tokens. /help says what there is.\n",
                   model_.path.c_str(), static_cast<long long>(talk_.context()));
    }
    if (talk_.context() < model_.shape.max_positions) {
      std::fprintf(stderr,
                   "the model has %lld positions, memory for keys and values holds %lld: --kv-mb\n",
                   static_cast<long long>(model_.shape.max_positions),
                   static_cast<long long>(talk_.context()));
    }
    for (std::string line; !left_ && Next(line);) {
      if (line.find_first_not_of(" \t") == std::string::npos) continue;
      try {
        if (line.starts_with("/") && !line.starts_with("//")) Command(line);
        else Turn(line.starts_with("//") ? line.substr(1) : line);
      } catch (const Error& e) {
        // Nobody is there who could say something else.
        if (!terminal_) {
          const std::string of = e.where().empty() || e.where() == "chat" ? "" : e.where() + ", ";
          throw Error(e.code(), e.message(),
                      of + "line " + std::to_string(lines_) + " of the chat");
        }
        std::fprintf(stderr, "%s\n", e.what());
      }
    }
  }

 private:
  // One line of the person's, put together; false: the end.
  bool Next(std::string& text) {
    NowBusy(Busy::kAsking, "Ctrl-D or /exit ends the chat");
    text.clear();
    for (std::string line;;) {
      if (terminal_) std::fputs(text.empty() ? kChatPrompt : ". ", stderr);
      if (!std::getline(std::cin, line)) {
        if (terminal_) std::fputc('\n', stderr);
        return !text.empty();
      }
      ++lines_;
      if (line.ends_with('\r')) line.pop_back();
      if (!line.ends_with('\\')) {
        text += line;
        return true;
      }
      line.back() = '\n';
      text += line;
    }
  }

  void Turn(const std::string& text) {
    NowBusy(Busy::kAnswering);
    const Conversation::Answer answer = talk_.Say(
        text,
        [](const std::string& said) {
          const std::string piece = isatty(STDOUT_FILENO) != 0 ? ForTerminal(said) : said;
          std::fwrite(piece.data(), 1, piece.size(), stdout);
          FlushOutput();
        },
        [] { return AnswerStopped().load(); });
    std::fputc('\n', stdout);
    FlushOutput();
    std::string note;
    if (answer.stopped && answer.tokens == 0)
      note = "stopped before a word: the question is forgotten";
    else if (answer.stopped) note = "stopped";
    else if (answer.context_full)
      note = "cut: the context of " + std::to_string(talk_.context()) + " tokens is full; /reset";
    else if (answer.finish == FinishReason::kLength)
      note = "cut after " + std::to_string(answer.tokens) + " tokens: --max-new-tokens";
    if (!note.empty()) std::fprintf(stderr, "[%s]\n", note.c_str());
  }

  void Command(const std::string& line) {
    const size_t space = std::min(line.find(' '), line.size());
    const std::string verb = line.substr(0, space);
    const size_t begin = line.find_first_not_of(' ', space);
    const std::string rest = begin == std::string::npos ? "" : line.substr(begin);
    if (verb == "/exit" || verb == "/quit") {
      left_ = true;
    } else if (verb == "/help") {
      std::fputs(kHelp, stderr);
    } else if (verb == "/reset") {
      talk_.Reset();
      Note("forgotten");
    } else if (verb == "/system") {
      talk_.SetSystem(rest);
      Note(rest.empty() ? "no system message" : "the system message is another");
    } else if (verb == "/tokens") {
      std::fprintf(stderr, "%lld of %lld tokens\n", static_cast<long long>(talk_.Tokens()),
                   static_cast<long long>(talk_.context()));
    } else if (verb == "/save") {
      if (rest.empty()) throw Error(ErrorCode::kInvalidArgument, "needs the name of a file", verb);
      RealFileSystem().OpenAppend(rest)->Append(talk_.MessagesJson() + "\n");
      Note(std::to_string(talk_.messages().size()) + " messages added to " + rest);
    } else {
      throw Error(
          ErrorCode::kInvalidArgument,
          "there is no such command: /help lists them; //... says a line that begins with /", verb);
    }
  }
  void Note(const std::string& text) const {
    if (terminal_) std::fprintf(stderr, "[%s]\n", text.c_str());
  }

  const bool terminal_;
  const ModelFolder& model_;
  const ConversationOptions options_;
  Conversation talk_;
  int64_t lines_ = 0;  // read
  bool left_ = false;
};

void Talk(const ChatArguments& a) {
  constexpr size_t kMaxBytes = size_t{16} << 20;
  ConversationOptions options{
      .system = a.system,
      .tools_json = a.tools.empty() ? "" : RealFileSystem().ReadFile(a.tools, kMaxBytes),
      .max_new_tokens = a.sampling.max_new_tokens,
      .stop = a.sampling.stop,
      .kv_mb = a.kv_mb};
  if (!a.tools.empty() && options.tools_json.empty())
    throw Error(ErrorCode::kInvalidArgument, "the file is empty", a.tools);
  const ModelFolder model = LoadModel(a.model, a.options);
  const Sampling sampling = ResolveSampling(a.sampling, ReadSamplingDefaults(model.base));
  if (!sampling.said.empty()) std::fprintf(stderr, "%s\n", sampling.said.c_str());
  options.sampling = sampling.options;
  Chat(model, options).Run();
  NowBusy(Busy::kNothingToKeep);
}

}  // namespace

void AddChatCommand(CLI::App& app, CliResult&) {
  auto a = std::make_shared<ChatArguments>();
  a->sampling.max_new_tokens = 1024;
  CLI::App* chat = app.add_subcommand("chat", "Talk with a model in the terminal");
  chat->add_option("model", a->model, "a model folder, an adapter's, or a run's, e.g. runs/demo")
      ->required();
  chat->add_option("--system", a->system, "system message");
  chat->add_option("--tools", a->tools,
                   "JSON file with a list of tool definitions, for the chat template to show; what "
                   "the model calls is shown, not done");
  AddSamplingOptions(chat, a->sampling);
  chat->get_option("--max-new-tokens")->description("limit of an answer (1024)");
  chat->add_option("--kv-mb", a->kv_mb, "MiB for keys and values (2048); bounds the context")
      ->check(WholeNumber(1, 1 << 20));
  AddModelOptions(chat, a->options);
  chat->footer(kHelp);
  chat->callback([a] { Talk(*a); });
}

}  // namespace plumb::run
