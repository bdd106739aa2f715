#include "run/session/reward_samples.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "common/base/error.h"
#include "common/base/json/strict_json.h"
#include "common/text/unicode.h"
#include "replay/datasets/rows/line_reader.h"
#include "replay/datasets/rows/row_parser.h"
#include "reward/part/truth.h"

namespace plumb::run {
namespace {

using nlohmann::json;

constexpr size_t kSampledPrompts = 3;

[[noreturn]] void Refuse(const std::string& where, const std::string& what) {
  throw Error(ErrorCode::kInvalidArgument, what, where);
}

// A text, or a list with one message of the assistant.
std::string AnswerText(const json& value, const std::string& column, const std::string& where) {
  if (value.is_string()) return value.get<std::string>();
  if (value.is_array() && value.size() == 1 && value[0].is_object() &&
      value[0].value("role", json()) == "assistant" && value[0].contains("content") &&
      value[0]["content"].is_string()) {
    return value[0]["content"].get<std::string>();
  }
  Refuse(where, "'" + column + "' is neither a text nor a list with one assistant message");
}

// Takes the answers out of the row; what is left is the prompt's.
std::vector<std::string> TakeAnswers(json& row, const configs::Config& config,
                                     const std::string& where) {
  std::vector<std::string> answers;
  std::vector<std::string> names = {"completion", "response", "output"};
  if (const auto mapped = config.data.map.find("completion"); mapped != config.data.map.end())
    names.insert(names.begin(), mapped->second);
  for (const std::string& name : names) {
    if (!row.contains(name)) continue;
    answers.push_back(AnswerText(row[name], name, where));
    row.erase(name);
    return answers;
  }
  if (row.contains("completions")) {
    if (!row["completions"].is_array() || row["completions"].empty())
      Refuse(where, "'completions' is not a list of answers");
    for (const json& value : row["completions"])
      answers.push_back(AnswerText(value, "completions", where));
    row.erase("completions");
    return answers;
  }
  if (row.contains("messages") && row["messages"].is_array() && !row.contains("prompt")) {
    json messages = row["messages"];
    if (messages.size() < 2)
      Refuse(where, "'messages' needs a question and the assistant's answer");
    answers.push_back(AnswerText(json::array({messages.back()}), "the last of 'messages'", where));
    messages.erase(messages.size() - 1);
    row.erase("messages");
    row["prompt"] = std::move(messages);
    return answers;
  }
  std::string columns;
  for (const auto& [name, value] : row.items()) columns += (columns.empty() ? "" : ", ") + name;
  Refuse(where,
         "the row has no answer to score: name it completion, response, output, completions or "
         "messages; its columns: " +
             (columns.empty() ? "none" : columns));
}

Prompt PromptOf(const json& row, const configs::Config& config, const std::string& where) {
  replay::RowParserOptions options;
  options.convert_numbers = true;
  for (const auto& [key, column] : config.data.map) {
    if ((key == "prompt" || key == "answer") && row.contains(column)) options.map[key] = column;
  }
  std::string text = row.dump();
  text.reserve(text.size() + 64);
  try {
    replay::RowParser parser(options);  // one a row: rows of different forms may stand together
    replay::ParsedRow parsed = parser.Parse(text);
    if (replay::KindOf(parsed.form) == replay::RowKind::kPrompts) return std::move(parsed.prompt);
    Refuse(where, std::string("the row is one of the form ") + replay::FormName(parsed.form) +
                      ", not a prompt with an answer");
  } catch (const replay::RowProblem& problem) {
    Refuse(where, problem.reason + ": " + problem.detail);
  }
}

std::string Tagged(const std::string& answer) {
  return "<think>" + answer + "</think><answer>" + answer + "</answer>";
}

// The right answer as text, of several the first.
std::string FirstTruth(const Prompt& prompt) {
  std::string why;
  const auto truths = reward::Truths(prompt, &why);
  return truths.empty() ? prompt.ground_truth : truths[0];
}

// The row's worked program, of HumanEval or MBPP; empty: none.
std::string Solution(const Prompt& prompt) {
  const json extra =
      json::parse(prompt.extra_json.empty() ? "{}" : prompt.extra_json, nullptr, false);
  if (!extra.is_object()) return "";
  for (const char* name : {"canonical_solution", "code"}) {
    if (extra.contains(name) && extra[name].is_string()) return extra[name].get<std::string>();
  }
  return "";
}

void Tokenize(const Session& session, const Prompt& prompt, const std::string& completion,
              Trajectory* t) {
  t->tokens = prompt.tokens;
  const int32_t prompt_end = static_cast<int32_t>(t->tokens.size());
  const std::vector<int32_t> answer = session.encoder().Answer(completion);
  t->tokens.insert(t->tokens.end(), answer.begin(), answer.end());
  const int32_t end = static_cast<int32_t>(t->tokens.size());
  t->segments = {{Origin::kPrompt, 0, prompt_end}, {Origin::kPolicy, prompt_end, end}};
}

}  // namespace

std::vector<RewardSample> ReadRewardSamples(const std::string& path,
                                            const configs::Config& config) {
  std::vector<RewardSample> samples;
  replay::LineReader lines(path);
  for (std::string line; lines.Next(line);) {
    const std::string where = lines.Where();
    if (lines.too_long())
      Refuse(where, "the line is longer than " +
                        std::to_string(replay::LineReader::kDefaultMaxLine) + " bytes");
    if (line.find_first_not_of(" \t") == std::string::npos) continue;
    if (!IsUtf8(line)) Refuse(where, "not valid UTF-8");
    json row;
    try {
      row = json(ParseStrictJson(line));
    } catch (const Error& error) {
      Refuse(where, error.message());
    }
    if (!row.is_object()) Refuse(where, "a row has to be one JSON object on one line");
    const std::vector<std::string> answers = TakeAnswers(row, config, where);
    const Prompt prompt = PromptOf(row, config, where);
    for (const std::string& answer : answers) {
      samples.push_back({"line " + std::to_string(lines.line_number()), prompt, answer});
    }
  }
  if (samples.empty()) Refuse(path, "no samples: the file has no rows");
  return samples;
}

std::vector<RewardSample> MakeRewardSamples(const configs::Config& config) {
  configs::Config few = config;
  few.data.limit = kSampledPrompts;
  few.rollout.prompts_per_step = 1;
  if (few.data.eval != "arithmetic") few.data.eval.clear();
  std::vector<Prompt> prompts = LoadPrompts(*Session::WithoutRun(few)).train;
  prompts.resize(std::min(prompts.size(), kSampledPrompts));
  std::vector<RewardSample> samples;
  for (Prompt& prompt : prompts) {
    prompt.tokens.clear();
    const std::string truth = FirstTruth(prompt);
    if (const std::string solution = Solution(prompt); !solution.empty()) {
      samples.push_back({"gold", prompt, solution});
      samples.push_back({"wrong", prompt, "    return None\n"});
    } else if (!truth.empty()) {
      const auto other = std::find_if(prompts.begin(), prompts.end(), [&](const Prompt& p) {
        return !p.ground_truth.empty() && FirstTruth(p) != truth;
      });
      const std::string wrong = other != prompts.end() ? FirstTruth(*other) : truth + "1";
      samples.push_back({"gold", prompt, truth});
      samples.push_back({"gold_tagged", prompt, Tagged(truth)});
      samples.push_back({"wrong", prompt, Tagged(wrong)});
    } else {
      samples.push_back({"wrong", prompt, "0"});  // every vocabulary has it
    }
    samples.push_back({"empty", prompt, ""});
  }
  return samples;
}

bool SaysTheSame(const Prompt& a, const Prompt& b) {
  return a.text == b.text && a.messages == b.messages && a.ground_truth == b.ground_truth &&
         a.extra_json == b.extra_json && a.weight == b.weight;
}

std::vector<TrajectoryGroup> GroupsOf(const std::vector<RewardSample>& samples,
                                      const Session* session) {
  std::vector<TrajectoryGroup> groups;
  const Prompt* last = nullptr;
  for (const RewardSample& sample : samples) {
    try {
      if (last == nullptr || !SaysTheSame(*last, sample.prompt)) {
        groups.emplace_back();
        groups.back().lease.lease_id = groups.size() - 1;
        groups.back().lease.prompt = sample.prompt;
        if (session != nullptr)
          groups.back().lease.prompt.tokens = session->Tokenize(sample.prompt);
      }
      last = &sample.prompt;
      TrajectoryGroup& group = groups.back();
      Trajectory t;
      t.sample = static_cast<uint32_t>(group.trajectories.size());
      if (session != nullptr) Tokenize(*session, group.lease.prompt, sample.completion, &t);
      t.completion = sample.completion;
      group.trajectories.push_back(std::move(t));
    } catch (const Error& error) {
      throw Error(error.code(), error.message(), "sample '" + sample.label + "'");
    }
    groups.back().lease.num_samples = static_cast<int32_t>(groups.back().trajectories.size());
  }
  return groups;
}

}  // namespace plumb::run
