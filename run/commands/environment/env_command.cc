#include "run/commands/environment/env_command.h"

#include <chrono>
#include <cstdio>
#include <fstream>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "common/record/json_text.h"
#include "common/text/template/chat_template.h"
#include "configs/config.h"
#include "environment/doors/open_environment.h"
#include "environment/environments.h"
#include "replay/datasets/rows/line_reader.h"
#include "replay/datasets/rows/row_parser.h"
#include "run/agents/agent_environment.h"
#include "run/agents/open_agents.h"
#include "run/commands/checked_numbers.h"
#include "run/session/interrupt.h"
#include "run/session/recipe/recipe_check.h"
#include "run/session/session.h"

namespace plumb::run {
namespace {

using Json = nlohmann::ordered_json;

struct EnvArguments {
  std::string recipe;
  std::vector<std::string> replies, overrides;
  int64_t rows = 3;
  bool json = false;
};

struct Turn {
  std::string said;  // by the policy; empty: the beginning
  EnvironmentReply reply;
  double seconds = 0;
};

struct Talk {
  Prompt prompt;
  std::vector<Turn> turns;
  bool used_up = false;  // the script ended before the conversation
  double reward = 0;
  bool rewarded = false;
  const std::string& error() const { return turns.back().reply.error; }
};

// The first rows of the recipe's data: of a .jsonl file as they stand there, else as a run of this
// recipe reads them.
std::vector<Prompt> Rows(const configs::Config& config, int64_t count) {
  std::vector<Prompt> rows;
  if (!config.data.train.ends_with(".jsonl")) {
    configs::Config few = config;
    few.data.limit = count;
    few.rollout.prompts_per_step = 1;
    if (few.data.eval != "arithmetic") few.data.eval.clear();
    rows = LoadPrompts(*Session::WithoutRun(few)).train;
    if (rows.size() > static_cast<size_t>(count)) rows.resize(static_cast<size_t>(count));
  } else {
    replay::RowParserOptions options;
    options.map = config.data.map;
    options.convert_numbers = true;
    options.as = replay::RowKind::kPrompts;
    replay::RowParser parser(options);
    replay::LineReader lines(config.data.train);
    for (std::string line; rows.size() < static_cast<size_t>(count) && lines.Next(line);) {
      if (line.find_first_not_of(" \t") == std::string::npos) continue;
      line.reserve(line.size() + replay::LineReader::kPadding);
      try {
        rows.push_back(parser.Parse(line).prompt);
      } catch (const replay::RowProblem& problem) {
        throw Error(ErrorCode::kInvalidArgument, problem.reason + ": " + problem.detail,
                    lines.Where());
      }
      rows.back().row = static_cast<uint64_t>(lines.line_number() - 1);
    }
  }
  if (rows.empty()) throw Error(ErrorCode::kInvalidArgument, "has no rows", config.data.train);
  return rows;
}

// The reply to what was asked last; `seconds`: how long it took.
EnvironmentReply Await(EnvironmentPort& port, const configs::EnvironmentConfig& config,
                       std::chrono::steady_clock::time_point since, double* seconds) {
  // A process may have to be started again first.
  const auto patience = std::chrono::milliseconds(
      static_cast<int64_t>((config.timeout_s + config.episode_seconds) * 1000) + 90000);
  std::vector<EnvironmentReply> replies = port.Poll(since + patience);
  *seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - since).count();
  if (replies.empty()) return {.error = "no reply from the environment"};
  return replies[0];
}

// What the policy says where --reply does not: the answer; of a calculator the sum itself before
// it.
std::vector<std::string> Script(const configs::Config& config, const Prompt& prompt) {
  if (config.environment.kind == configs::EnvironmentKind::kCalculator &&
      prompt.text.ends_with("="))
    return {prompt.text, prompt.ground_truth};
  return {prompt.ground_truth};
}

Talk Converse(EnvironmentPort& port, const configs::Config& config, const Prompt& prompt,
              const std::vector<std::string>& replies, uint64_t episode) {
  Talk talk{.prompt = prompt};
  const std::vector<std::string> script = replies.empty() ? Script(config, prompt) : replies;
  size_t next = 0;
  while (true) {
    Turn turn;
    const auto since = std::chrono::steady_clock::now();
    if (talk.turns.empty()) {
      port.Begin(episode, prompt, 0);
    } else {
      turn.said = script[next++];
      port.Act(episode, turn.said);
    }
    turn.reply = Await(port, config.environment, since, &turn.seconds);
    if (turn.reply.reward) talk.reward += *turn.reply.reward, talk.rewarded = true;
    const bool over = turn.reply.done || !turn.reply.error.empty();
    talk.turns.push_back(std::move(turn));
    if (over) break;
    if (next == script.size()) {
      talk.used_up = true;
      break;
    }
  }
  port.End(episode);
  return talk;
}

// A text on lines of its own, indented.
void PrintText(const std::string& who, const std::string& text) {
  std::printf("  %-12s", who.c_str());
  for (const char c : text) {
    if (c == '\n') std::printf("\n%14s", "");
    else if (static_cast<unsigned char>(c) >= 32 || c == '\t') std::putchar(c);
    else std::putchar('?');
  }
  std::printf("\n");
}

void PrintTalk(const Talk& talk, size_t row) {
  std::printf("row %zu\n", row);
  for (const Message& message : talk.prompt.messages) PrintText(message.role, message.content);
  if (!talk.prompt.text.empty()) PrintText("prompt", talk.prompt.text);
  for (const Turn& turn : talk.turns) {
    if (&turn != &talk.turns.front()) PrintText("policy", turn.said);
    for (const Message& message : turn.reply.messages)
      PrintText("> " + message.role, message.content);
    if (!turn.reply.text.empty()) PrintText("> text", turn.reply.text);
    std::string notes;
    if (turn.reply.reward) notes += "reward " + std::to_string(*turn.reply.reward) + "  ";
    if (turn.reply.failed_call) notes += "failed call  ";
    if (turn.reply.done) notes += "the end  ";
    std::printf("  %-12s%s%.3f s\n", "", notes.c_str(), turn.seconds);
    if (!turn.reply.error.empty()) PrintText("ERROR", turn.reply.error);
  }
  if (talk.used_up)
    std::printf(
        "  the script ends here, the conversation does not: give more turns with --reply\n");
  std::printf("  reward %s\n\n", talk.rewarded ? std::to_string(talk.reward).c_str()
                                               : "none of the environment's own");
}

Json JsonOf(const Talk& talk) {
  Json out = {{"prompt", PromptJson(talk.prompt)}, {"turns", Json::array()}};
  for (const Turn& turn : talk.turns) {
    Json row = Json::object();
    if (&turn != &talk.turns.front()) row["policy"] = turn.said;
    Prompt said;
    said.messages = turn.reply.messages;
    row["messages"] = said.messages.empty() ? Json::array() : PromptJson(said);
    if (!turn.reply.text.empty()) row["text"] = turn.reply.text;
    row["reward"] = turn.reply.reward ? Json(*turn.reply.reward) : Json(nullptr);
    row["done"] = turn.reply.done;
    row["failed_call"] = turn.reply.failed_call;
    if (!turn.reply.error.empty()) row["error"] = turn.reply.error;
    row["seconds"] = turn.seconds;
    out["turns"].push_back(std::move(row));
  }
  out["reward"] = talk.rewarded ? Json(talk.reward) : Json(nullptr);
  out["script_used_up"] = talk.used_up;
  return out;
}

// In which an agent's messages are written where the recipe has no model: with tools and calls.
constexpr char kPlainTemplate[] =
    "{% if tools %}<|im_start|>system\n{{ tools | tojson }}<|im_end|>\n{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] or '' }}"
    "{% for c in m['tool_calls'] or [] %}<tool_call>{{ c['function'] | tojson }}</tool_call>"
    "{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";

// What a recipe's environment needs to be led.
struct Led {
  std::unique_ptr<Tokenizer> tokenizer;  // of agents and calculators
  std::unique_ptr<ChatTemplate> chat;    // of agents, as is the next
  std::unique_ptr<Agents> agents;
  std::unique_ptr<EnvironmentPort> port;
  environment::EnvironmentPool* pool = nullptr;  // the port, of a kind that has a door

  std::map<std::string, double> Counters() const {
    if (pool != nullptr) return pool->Counters();
    std::map<std::string, double> out;
    if (agents == nullptr) return out;
    for (const auto& [name, n] : agents->door().Counters()) out[name] = static_cast<double>(n);
    return out;
  }
  std::vector<std::string> tools() const {
    return pool != nullptr ? pool->rules().tools.names() : std::vector<std::string>();
  }
};

Led LeadAgents(const configs::Config& config) {
  if (config.environment.path.empty()) {
    throw Error(ErrorCode::kInvalidArgument,
                "is empty: agents from elsewhere fetch their episodes of a run, so that there is "
                "none to try here",
                "environment.path");
  }
  Led led;
  const std::string& model = config.model.path;
  led.tokenizer = model.empty() ? Tokenizer::BuiltIn("bytes") : Tokenizer::Load(model);
  led.chat = model.empty() ? ChatTemplate::Parse(kPlainTemplate, "", "<|im_end|>")
                           : ChatTemplate::LoadOrNull(model);
  led.agents = std::make_unique<Agents>(
      config, AgentSurroundings{.tokenizer = led.tokenizer.get(), .chat_template = led.chat.get()});
  led.port = std::make_unique<AgentEnvironment>(led.agents->door(), *led.tokenizer);
  return led;
}

Led LeadCalculator(const configs::Config& config) {
  const std::string& model = config.model.path;
  Led led;
  led.tokenizer = model.empty() ? Tokenizer::BuiltIn(configs::NameOf(config.model.vocabulary))
                                : Tokenizer::Load(model);
  led.port = environment::MakeEnvironments(config.environment, *led.tokenizer, nullptr,
                                           config.reward.allow_unsandboxed);
  return led;
}

Led LeadEnvironment(const configs::Config& config) {
  if (config.environment.kind == configs::EnvironmentKind::kCalculator)
    return LeadCalculator(config);
  if (config.environment.kind == configs::EnvironmentKind::kAgent) return LeadAgents(config);
  environment::OpenOptions options;
  options.allow_unsandboxed = config.reward.allow_unsandboxed;
  options.chat_template = "chatml";  // without a model: one that shows no form of its own
  if (!config.model.path.empty()) {
    const auto text = ChatTemplate::LoadOrNull(config.model.path);
    options.chat_template = text == nullptr ? "" : text->source();
  }
  Led led;
  auto pool = environment::OpenEnvironment(config.environment, options);
  led.pool = pool.get();
  led.port = std::move(pool);
  return led;
}

// "; the first lines of the recipe say how ...: RECIPE:2: COMMAND", of the first command (set in)
// in the comment that the recipe begins with which is none of this program's; else "".
std::string HowItIsMade(const std::string& recipe) {
  std::ifstream in(recipe);
  std::string line;
  for (int number = 1; std::getline(in, line) && line.starts_with("#"); ++number) {
    const size_t words = line.find_first_not_of("# \t");
    if (words == std::string::npos || words < 3 || line.compare(words, 6, "plumb ") == 0) continue;
    return "; the first lines of the recipe say how its environment is made and started: " +
           recipe + ":" + std::to_string(number) + ": " + line.substr(words);
  }
  return "";
}

Led LeadEnvironmentOf(const configs::Config& config, const std::string& recipe) {
  try {
    return LeadEnvironment(config);
  } catch (const Error& error) {
    const std::string how = HowItIsMade(recipe);
    if (how.empty()) throw;
    throw Error(error.code(), error.what() + how);
  }
}

int Test(const EnvArguments& a) {
  const auto read_of = [&](const configs::Loaded& loaded) {  // of what may be missing
    configs::Config read;
    read.model.path.clear();
    read.data.train = loaded.config.data.train;
    read.environment = loaded.config.environment;
    read.model.path = loaded.config.model.path;
    return read;
  };
  const configs::Loaded loaded = CheckedRecipe(a.recipe, a.overrides, read_of);
  const configs::Config& config = loaded.config;
  if (config.environment.kind == configs::EnvironmentKind::kNone) {
    throw Error(
        ErrorCode::kInvalidArgument,
        "has no [environment], so there is nothing to try: name a kind (docs/environments.md)",
        a.recipe);
  }
  const std::vector<Prompt> rows = Rows(config, a.rows);
  const Led led = LeadEnvironmentOf(config, a.recipe);
  std::vector<Talk> talks;
  for (size_t i = 0; i < rows.size(); ++i) {
    if (StopRequested()) {
      std::fprintf(stderr, "plumb: stopped after %zu of %zu rows\n", i, rows.size());
      return kExitFewerSteps;
    }
    talks.push_back(Converse(*led.port, config, rows[i], a.replies, i));
    if (!a.json) PrintTalk(talks.back(), i);
  }
  const auto counters = led.Counters();
  if (a.json) {
    Json out = {{"recipe", a.recipe},
                {"tool_form", led.pool ? Json(configs::NameOf(led.pool->rules().form)) : Json()},
                {"tools", led.tools()},
                {"rows", Json::array()},
                {"counters", counters}};
    for (const Talk& talk : talks) out["rows"].push_back(JsonOf(talk));
    std::printf("%s\n", out.dump(1, ' ', false, Json::error_handler_t::replace).c_str());
  } else {
    std::string names;
    for (const std::string& name : led.tools()) names += (names.empty() ? "" : ", ") + name;
    if (led.pool) std::printf("tools: %s", names.empty() ? "none\n" : names.c_str());
    if (!names.empty())
      std::printf("; calls in the form %s\n", configs::NameOf(led.pool->rules().form).c_str());
    for (const auto& [name, value] : counters) std::printf("%-40s %g\n", name.c_str(), value);
  }
  std::fflush(stdout);
  size_t failed = 0;
  for (const Talk& talk : talks) failed += !talk.error().empty();
  if (failed < talks.size()) return 0;
  std::fprintf(stderr, "plumb: no conversation came through; first: %s%s\n",
               talks[0].error().c_str(), HowItIsMade(a.recipe).c_str());
  return kExitRewardFailed;
}

}  // namespace

void AddEnvCommand(CLI::App& app, CliResult& result) {
  CLI::App* env = app.add_subcommand("env", "Environments outside a run")->require_subcommand(1);
  auto a = std::make_shared<EnvArguments>();
  CLI::App* test = env->add_subcommand(
      "test", "Lead a few scripted conversations with a recipe's environment, as a run would");
  test->add_option("recipe", a->recipe, "TOML file with [environment] and data.train")->required();
  test->add_option("--reply", a->replies,
                   "what the policy writes, a turn each time it is given; without it each row's "
                   "ground truth, once (of a calculator its sum before that)")
      ->allow_extra_args(false);
  test->add_option("--rows", a->rows, "how many rows of the data")->check(WholeNumber(1, 10000));
  test->add_option("--set", a->overrides, "section.key=value, any number of times")
      ->allow_extra_args(false);
  test->add_flag("--json", a->json, "one JSON object instead of the texts");
  test->footer("Exit code 10: no conversation came through.");
  test->callback([a, &result] { result.exit_code = Test(*a); });
}

}  // namespace plumb::run
