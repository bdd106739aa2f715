#include "replay/datasets/export_row.h"

#include <algorithm>
#include <span>
#include <utility>

#include <simdjson.h>
#include <nlohmann/json.hpp>

#include "common/base/error.h"
#include "common/record/json_text.h"
#include "common/text/unicode.h"
#include "replay/datasets/rows/end_token.h"

namespace plumb::replay {
namespace {

struct ExtraColumn {
  std::string name;
  std::string json;
};

std::vector<ExtraColumn> ExtraColumns(const std::string& extra_json) {
  std::vector<ExtraColumn> out;
  if (extra_json.empty()) return out;
  simdjson::dom::parser parser;
  simdjson::dom::object object;
  if (parser.parse(extra_json).get(object) != simdjson::SUCCESS) {
    throw Error(ErrorCode::kCorruption,
                "the extra columns of a record are no JSON object: " + extra_json.substr(0, 80));
  }
  for (const auto [name, value] : object)
    out.push_back({std::string(name), simdjson::minify(value)});
  return out;
}

bool HasAny(const std::vector<ExtraColumn>& columns, std::initializer_list<const char*> names) {
  return std::any_of(columns.begin(), columns.end(), [&](const ExtraColumn& c) {
    return std::find(names.begin(), names.end(), c.name) != names.end();
  });
}

// A JSON object that is written column by column.
class RowText {
 public:
  void Json(const std::string& name, std::string_view json) {
    Begin(name);
    text_ += json;
  }
  void Text(const std::string& name, std::string text) {
    Begin(name);
    AppendText(std::move(text));
  }
  void Number(const std::string& name, double value) { Json(name, nlohmann::json(value).dump()); }
  void Messages(const std::string& name, const std::vector<Message>& messages) {
    Begin(name);
    std::vector<Message> whole = messages;
    for (Message& message : whole) {
      if (RepairUtf8(message.content)) Note("texts_with_replaced_bytes");
    }
    AppendJsonMessages(text_, whole);
  }
  void Turns(const std::string& name, const std::string& text,
             const std::vector<Message>& messages) {
    if (messages.empty()) {
      Text(name, text);
    } else {
      Messages(name, messages);
    }
  }
  void Texts(const std::string& name, const std::vector<std::string>& texts) {
    Begin(name);
    text_.push_back('[');
    for (const std::string& text : texts) {
      if (&text != texts.data()) text_.push_back(',');
      AppendText(text);
    }
    text_.push_back(']');
  }
  // A column of ours goes before one of the same name.
  void Extras(const std::vector<ExtraColumn>& columns) {
    for (const ExtraColumn& column : columns) {
      if (std::find(names_.begin(), names_.end(), column.name) != names_.end()) {
        Note("columns_in_the_way");
      } else {
        Json(column.name, column.json);
      }
    }
  }
  void Note(const std::string& what) { ++notes_[what]; }
  std::string TakeObject() { return std::exchange(text_, "{") + "}"; }
  void TakeNotes(RowText& nested) {
    for (const auto& [what, n] : std::exchange(nested.notes_, {})) notes_[what] += n;
  }
  ExportCandidate Take() { return {TakeObject(), std::move(notes_)}; }

 private:
  void Begin(const std::string& name) {
    if (text_.size() > 1) text_.push_back(',');
    AppendJsonText(text_, name);
    text_.push_back(':');
    names_.push_back(name);
  }
  void AppendText(std::string text) {
    if (RepairUtf8(text)) Note("texts_with_replaced_bytes");
    AppendJsonText(text_, text);
  }
  std::string text_ = "{";
  std::vector<std::string> names_;
  ExportNotes notes_;
};

std::vector<Message> AsMessages(const std::string& text, const std::vector<Message>& messages) {
  return messages.empty() ? std::vector<Message>{{"user", text}} : messages;
}

void WriteWeight(RowText& row, double weight) {
  if (weight == 1.0) return;
  row.Number("weight", weight);
  row.Note("weights");
}

std::string TokenList(std::span<const int32_t> tokens) {
  std::string out = "[";
  for (const int32_t id : tokens) {
    if (out.size() > 1) out.push_back(',');
    out += std::to_string(id);
  }
  return out + "]";
}

void WriteTokens(RowText& row, const PreferenceRecord& record, bool wanted) {
  if (record.prompt_tokens.empty() && record.chosen_tokens.empty()) return;
  if (!wanted || record.prompt_tokens.empty()) return row.Note("token_lists_left_out");
  const bool pair = record.kind == PreferenceKind::kPair;
  RowText lists;
  lists.Json("prompt", TokenList(record.prompt_tokens));
  lists.Json(pair ? "chosen" : "completion", TokenList(record.chosen_tokens));
  if (pair) lists.Json("rejected", TokenList(record.rejected_tokens));
  row.Json("plumb_tokens", lists.TakeObject());
}

// `truth`: the column of the ground truth; "": it stands in the others already.
ExportCandidate TrlPrompt(const Prompt& prompt, const std::vector<ExtraColumn>& extras,
                          const std::string& truth) {
  RowText row;
  row.Turns("prompt", prompt.text, prompt.messages);
  if (!truth.empty()) row.Text(truth, prompt.ground_truth);
  WriteWeight(row, prompt.weight);
  row.Extras(extras);
  return row.Take();
}

// `answers`: of a rollout, written behind.
void WriteVerlPrompt(RowText& row, const Prompt& prompt, const std::vector<ExtraColumn>& extras) {
  if (prompt.messages.empty()) row.Note("text_prompts_as_user_messages");
  // a row of verl already
  if (HasAny(extras, {"reward_model"}) && HasAny(extras, {"data_source"})) {
    row.Messages("prompt", AsMessages(prompt.text, prompt.messages));
    WriteWeight(row, prompt.weight);
    row.Extras(extras);
    return;
  }
  row.Text("data_source", prompt.dataset);
  row.Messages("prompt", AsMessages(prompt.text, prompt.messages));
  const auto ability = std::find_if(extras.begin(), extras.end(),
                                    [](const ExtraColumn& c) { return c.name == "ability"; });
  row.Json("ability",
           ability != extras.end() && ability->json.starts_with('"') ? ability->json : "\"\"");
  RowText truth;
  truth.Text("style", "rule");
  truth.Text("ground_truth", prompt.ground_truth);
  row.Json("reward_model", truth.TakeObject());
  RowText info, ours;
  ours.Text("prompt", prompt.messages.empty() ? "text" : "messages");
  if (prompt.weight != 1.0) ours.Number("weight", prompt.weight);
  if (HasAny(extras, {"index"})) ours.Text("index", "column");
  else info.Json("index", std::to_string(prompt.row));
  info.Json("plumb", ours.TakeObject());
  info.Extras(extras);
  row.TakeNotes(info);
  row.Json("extra_info", info.TakeObject());
  if (!extras.empty()) row.Note("other_columns_under_extra_info");
}

// An answer as a text where it is one assistant's message behind a text, else as messages.
void WriteAnswer(RowText& row, const std::string& name, const std::vector<Message>& answer,
                 bool dialogue) {
  if (!dialogue && answer.size() == 1 && answer[0].role == "assistant" &&
      answer[0].fields_json.empty()) {
    row.Text(name, answer[0].content);
  } else {
    row.Messages(name, answer);
  }
}

std::vector<Message> Whole(const PreferenceRecord& record, const std::vector<Message>& answer) {
  std::vector<Message> all = record.prompt;
  all.insert(all.end(), answer.begin(), answer.end());
  return all;
}

// `write`: what the row says of its turns.
template <class Write>
ExportCandidate RecordRow(const PreferenceRecord& record, const std::vector<ExtraColumn>& extras,
                          bool tokens, const Write& write) {
  RowText row;
  write(row);
  WriteWeight(row, record.weight);
  WriteTokens(row, record, tokens);
  row.Extras(extras);
  return row.Take();
}

// What the assistant says in it.
std::string AnswerText(const Trajectory& t, const std::vector<std::string>& end_tokens,
                       RowText& row) {
  std::string text = Said(t, end_tokens);
  if (text.size() != t.completion.size()) row.Note("end_tokens_left_out");
  if (HasEnvironment(t)) row.Note("answers_of_several_turns_as_one_text");
  return text;
}

// An answer that was never generated has no score, whatever a store of before says.
std::string ScoreOf(const Trajectory& t, RowText& row) {
  const bool generated = t.finish != FinishReason::kAborted;
  if (t.scored && generated) return nlohmann::json(t.reward).dump();
  row.Note("answers_without_a_score");
  if (!generated) row.Note("answers_never_generated");
  return "null";
}

}  // namespace

const char* FormName(ExportForm form) { return form == ExportForm::kTrl ? "trl" : "verl"; }

std::optional<ExportForm> ExportFormOfName(std::string_view name) {
  for (const ExportForm form : {ExportForm::kTrl, ExportForm::kVerl}) {
    if (name == FormName(form)) return form;
  }
  return std::nullopt;
}

std::string TruthColumn(const Prompt& prompt) {
  const auto extras = ExtraColumns(prompt.extra_json);
  for (const char* name : {"answer", "label"}) {
    if (HasAny(extras, {name})) return name;
  }
  return "";
}

std::vector<ExportCandidate> Candidates(const Prompt& prompt, ExportForm form,
                                        const std::string& truth) {
  const auto extras = ExtraColumns(prompt.extra_json);
  std::vector<ExportCandidate> out;
  if (form == ExportForm::kVerl) {
    RowText row;
    WriteVerlPrompt(row, prompt, extras);
    out.push_back(row.Take());
    return out;
  }
  // The truth may be read out of a column that is kept (GSM8K's solution, verl's reward_model):
  // then it needs none of its own.
  const bool implied =
      HasAny(extras, {"answer", "label", "ground_truth", "reward_model", "reward_spec"});
  if (implied || prompt.ground_truth.empty())
    out.push_back(TrlPrompt(prompt, extras, /*truth=*/""));
  if (prompt.ground_truth.empty()) return out;
  if (!truth.empty() && !HasAny(extras, {truth.c_str()}))
    out.push_back(TrlPrompt(prompt, extras, truth));
  out.push_back(TrlPrompt(prompt, extras, "ground_truth"));
  return out;
}

std::vector<ExportCandidate> Candidates(const PreferenceRecord& record, ExportForm form,
                                        bool tokens) {
  std::vector<ExportCandidate> out;
  const bool pair = record.kind == PreferenceKind::kPair;
  if (record.chosen.empty() || (pair && record.rejected.empty())) return out;
  const auto extras = ExtraColumns(record.extra_json);
  const bool prompt = !record.prompt_text.empty() || !record.prompt.empty();
  if (!prompt && record.kind != PreferenceKind::kDemonstration) return out;
  const bool dialogue = record.prompt_text.empty();
  const auto add = [&](const auto& write) {
    out.push_back(RecordRow(record, extras, tokens, write));
  };
  const auto messages = [&](RowText& row) {
    row.Messages("messages", Whole(record, record.chosen));
  };
  const auto completion = [&](RowText& row) {
    row.Turns("prompt", record.prompt_text, record.prompt);
    WriteAnswer(row, "completion", record.chosen, dialogue);
    if (record.kind == PreferenceKind::kLabelled)
      row.Json("label", record.desirable ? "true" : "false");
  };
  if (pair) {
    const auto margin = [&](RowText& row) {
      if (record.has_margin) row.Number("margin", record.margin);
    };
    add([&](RowText& row) {
      row.Turns("prompt", record.prompt_text, record.prompt);
      WriteAnswer(row, "chosen", record.chosen, dialogue);
      WriteAnswer(row, "rejected", record.rejected, dialogue);
      margin(row);
    });
    if (record.prompt.empty()) return out;
    add([&](RowText& row) {
      row.Messages("chosen", Whole(record, record.chosen));
      row.Messages("rejected", Whole(record, record.rejected));
      margin(row);
    });
  } else if (record.kind == PreferenceKind::kLabelled) {
    add(completion);
  } else if (!prompt && record.chosen.size() == 1) {
    add([&](RowText& row) { WriteAnswer(row, "text", record.chosen, /*dialogue=*/false); });
  } else if (form == ExportForm::kVerl && dialogue) {
    add(messages);
  } else {
    add(completion);
    if (dialogue) add(messages);
  }
  return out;
}

std::vector<ExportCandidate> RolloutRows(const TrajectoryGroup& group, ExportForm form,
                                         const std::vector<std::string>& end_tokens, bool tokens) {
  const Prompt& prompt = group.lease.prompt;
  const auto extras = ExtraColumns(prompt.extra_json);
  std::vector<ExportCandidate> out;
  if (form == ExportForm::kVerl) {
    RowText row;
    WriteVerlPrompt(row, prompt, extras);
    std::vector<std::string> responses;
    std::string scores;
    for (const Trajectory& t : group.trajectories) {
      responses.push_back(AnswerText(t, end_tokens, row));
      scores += (scores.empty() ? "" : ",") + ScoreOf(t, row);
    }
    row.Texts("responses", responses);
    row.Json("scores", "[" + scores + "]");
    out.push_back(row.Take());
    return out;
  }
  for (const Trajectory& t : group.trajectories) {
    RowText row;
    row.Turns("prompt", prompt.text, prompt.messages);
    const std::string answer = AnswerText(t, end_tokens, row);
    if (prompt.messages.empty()) {
      row.Text("completion", answer);
    } else {
      row.Messages("completion", {{"assistant", answer}});
    }
    row.Json("reward", ScoreOf(t, row));
    if (!t.rewards.empty() && t.finish != FinishReason::kAborted) {
      nlohmann::json parts = nlohmann::json::object();
      for (const RewardPart& part : t.rewards) {
        if (part.scope == RewardScope::kTrajectory) parts[part.name] = part.value;
      }
      row.Json("rewards", parts.dump());
    }
    if (!prompt.ground_truth.empty()) row.Text("ground_truth", prompt.ground_truth);
    row.Json("policy_version", std::to_string(group.policy.version));
    row.Json("lease", std::to_string(group.lease.lease_id));
    row.Json("sample", std::to_string(t.sample));
    row.Json("truncated", t.finish == FinishReason::kLength ? "true" : "false");
    // An environment's tokens are not the assistant's: a list cannot say which they are.
    if (tokens && t.completion_length() > 0 && t.prompt_length() > 0 && !HasEnvironment(t)) {
      const std::span<const int32_t> all = t.tokens;
      RowText lists;
      lists.Json("prompt", TokenList(all.first(static_cast<size_t>(t.prompt_length()))));
      lists.Json("completion", TokenList(all.subspan(static_cast<size_t>(t.prompt_length()))));
      row.Json("plumb_tokens", lists.TakeObject());
    } else if (t.completion_length() > 0) {
      row.Note("token_lists_left_out");
    }
    row.Extras(extras);
    out.push_back(row.Take());
  }
  return out;
}

}  // namespace plumb::replay
