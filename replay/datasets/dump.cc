#include "replay/datasets/dump.h"

#include <nlohmann/json.hpp>

#include "common/base/error.h"
#include "common/record/json_text.h"
#include "common/record/kept_tokens.h"
#include "replay/store/store.h"

namespace plumb::replay {
namespace {

using Json = nlohmann::ordered_json;

const char* Name(Purpose purpose) {
  switch (purpose) {
    case Purpose::kTrain: return "train";
    case Purpose::kEval: return "eval";
  }
  return "unknown";
}

const char* Name(FinishReason finish) {
  switch (finish) {
    case FinishReason::kStop: return "stop";
    case FinishReason::kLength: return "length";
    case FinishReason::kAborted: return "aborted";
  }
  return "unknown";
}

Json MessagesJson(const std::vector<Message>& messages) {
  std::string text;
  AppendJsonMessages(text, messages);
  Json list = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  return list.is_discarded() ? Json(text)
                             : list;  // a dump shows broken bytes, it does not stop at them
}

// As what they say; what is no JSON as the text it is.
Json ColumnsJson(const std::string& columns_json) {
  Json columns = Json::parse(columns_json, nullptr, /*allow_exceptions=*/false);
  return columns.is_discarded() ? Json(columns_json) : columns;
}

Json StoredPromptJson(const Prompt& prompt) {
  Json j = {{"dataset", prompt.dataset}, {"row", prompt.row}};
  if (!prompt.text.empty()) j["text"] = prompt.text;
  if (!prompt.messages.empty()) j["messages"] = MessagesJson(prompt.messages);
  j["ground_truth"] = prompt.ground_truth;
  if (!prompt.extra_json.empty()) j["other_columns"] = ColumnsJson(prompt.extra_json);
  return j;
}

// How many tokens the sampling filters left for each token; 0: all.
Json KeptCounts(const Trajectory& t) {
  Json out = Json::array();
  for (KeptTokensReader sets(t.kept); !sets.done();) out.push_back(CountKept(sets.Next()));
  return out;
}

Json RecordJson(const StoredGroup& stored) {
  const TrajectoryGroup& g = stored.group;
  Json j = {{"lease", g.lease.lease_id},
            {"purpose", Name(g.lease.purpose)},
            {"attempt", g.lease.attempt},
            {"actor", g.actor},
            {"policy_version", g.policy.version},
            {"policy_digest", g.policy.digest},
            {"prompt", StoredPromptJson(g.lease.prompt)}};
  if (stored.kind == GroupKind::kDropped) j["dropped"] = stored.drop_reason;
  j["answers"] = Json::array();
  for (const Trajectory& t : g.trajectories) {
    Json answer = {{"sample", t.sample},
                   {"tokens", t.tokens.size()},
                   {"completion_tokens", t.completion_length()},
                   {"finish", Name(t.finish)},
                   {"scored", t.scored}};
    if (t.scored) answer["reward"] = t.reward;
    if (!t.scored) answer["unscored_reason"] = t.unscored_reason;
    for (const RewardPart& part : t.rewards) answer["parts"][part.name] = part.value;
    double logprob = 0;
    for (const float lp : t.logprobs) logprob += lp;
    answer["logprob_sum"] = logprob;
    answer["completion"] = t.completion;
    j["answers"].push_back(std::move(answer));
  }
  return j;
}

// What the rows of a dataset that are no prompts are: all of one kind (replay/datasets/importer.h).
const char* DatasetKind(const Store& store, const std::string& name) {
  const auto first = store.ReadPreferences(name, 0, 1);
  if (first.empty()) return "preferences";
  switch (first.front().kind) {
    case PreferenceKind::kPair: return "preferences";
    case PreferenceKind::kLabelled: return "labelled_completions";
    case PreferenceKind::kDemonstration: return "demonstrations";
  }
  return "preferences";
}

Json RecordJson(const PreferenceRecord& r) {
  Json j = {{"dataset", r.dataset}, {"row", r.row}};
  j["kind"] = r.kind == PreferenceKind::kPair       ? "pair"
              : r.kind == PreferenceKind::kLabelled ? "labelled"
                                                    : "demonstration";
  j["prompt"] = r.prompt.empty() ? Json(r.prompt_text) : MessagesJson(r.prompt);
  j["chosen"] = MessagesJson(r.chosen);
  if (r.kind == PreferenceKind::kPair) j["rejected"] = MessagesJson(r.rejected);
  if (r.kind == PreferenceKind::kLabelled) j["desirable"] = r.desirable;
  if (r.has_margin) j["margin"] = r.margin;
  if (!r.chosen_tokens.empty())
    j["tokens"] = {r.prompt_tokens.size(), r.chosen_tokens.size(), r.rejected_tokens.size()};
  if (!r.extra_json.empty()) j["other_columns"] = ColumnsJson(r.extra_json);
  return j;
}

Json Describe(const Store& store, const DumpOptions& options) {
  Json j = {{"store", store.path()},
            {"format_version", kStoreFormatVersion},
            {"run_id", store.run_id()},
            {"bytes_on_disk", store.SizeBytes()},
            {"inserts_ever", store.Sequence()}};
  const auto preferences = store.PreferenceDatasets();
  j["datasets"] = Json::object();
  for (const auto& [name, rows] : store.Datasets()) j["datasets"]["prompts"][name] = rows;
  for (const auto& [name, rows] : preferences) j["datasets"][DatasetKind(store, name)][name] = rows;
  j["scores"] = Json::object();
  for (const auto& [name, about] : store.ScoreNames()) j["scores"][name] = about;
  for (const Purpose purpose : {Purpose::kTrain, Purpose::kEval}) {
    const auto ids = store.Ids(purpose);
    uint64_t open = 0;
    for (const LeaseMark& mark : store.Leases(purpose)) open += mark.record.complete ? 0 : 1;
    Json& groups = j["groups"][Name(purpose)];
    // A lease of an evaluation begins with the version that it is of.
    const bool eval = purpose == Purpose::kEval;
    groups = {{"stored", ids.size()},
              {eval ? "trimmed_before_version" : "trimmed_before",
               store.TrimmedBefore(purpose) >> (eval ? 32 : 0)},
              {"leased_unanswered", open}};
    if (!ids.empty()) groups["first_lease"] = ids.front();
    if (!ids.empty()) groups["last_lease"] = ids.back();
  }
  j["evaluations"] = Json::array();
  for (const auto& e : store.Evaluations()) {
    j["evaluations"].push_back(
        {{"version", e.version}, {"samples", e.samples}, {"prompts", e.prompts}});
  }
  j["counters"] = Json::object();
  for (const auto& [name, value] : store.Counters()) j["counters"][name] = value;
  if (options.verify) {
    const VerifyReport report = store.Verify();
    j["verified"] = {{"groups", report.groups},
                     {"prompts", report.prompts},
                     {"leases", report.leases},
                     {"problems", report.problems}};
  }
  uint64_t lease = 0;
  Purpose purpose = options.purpose;
  if (options.lease) {
    lease = *options.lease;
  } else {
    auto ids = store.Ids(purpose);
    if (ids.empty()) {
      purpose = purpose == Purpose::kTrain ? Purpose::kEval : Purpose::kTrain;
      ids = store.Ids(purpose);
    }
    if (ids.empty()) {
      const auto prompts = store.Datasets();
      if (!preferences.empty())
        j["record"] = RecordJson(store.ReadPreferences(preferences.begin()->first, 0, 1).at(0));
      else if (!prompts.empty() && prompts.begin()->second > 0)
        j["record"] = StoredPromptJson(store.ReadPrompt(prompts.begin()->first, 0));
      return j;
    }
    lease = ids.front();
  }
  const auto stored = store.Read(purpose, lease);
  if (!stored) {
    throw Error(
        ErrorCode::kNotFound,
        std::string("there is no ") + Name(purpose) + " group of lease " + std::to_string(lease),
        store.path());
  }
  j["record"] = RecordJson(*stored);
  return j;
}

// Of a text of JSON: what JSON writes as \" is no danger to a terminal.
std::string WithPlainQuotes(std::string_view text) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '\\' && i + 1 < text.size()) {
      if (text[i + 1] != '"') out.push_back('\\');
      ++i;
    }
    out.push_back(text[i]);
  }
  return out;
}

// "key: value" lines, nested by indentation; control characters escaped, long texts cut with their
// length said.
void Print(const Json& value, const std::string& indent, size_t max_text, std::string& out) {
  const auto scalar = [&](const Json& v) {
    if (!v.is_string()) return v.dump();
    std::string text = DumpJson(v);
    text = WithPlainQuotes(text.substr(1, text.size() - 2));
    if (text.size() <= max_text) return text;
    size_t cut = max_text;
    while (cut > 0 && (static_cast<uint8_t>(text[cut]) & 0xC0) == 0x80) --cut;
    const std::string size = std::to_string(text.size());
    text.resize(cut);
    return text.append(" ... (").append(size).append(" characters)");
  };
  if (value.is_array()) {
    for (const Json& item : value) {
      if (!item.is_structured()) {
        out.append(indent).append("- ").append(scalar(item)).append("\n");
        continue;
      }
      out.append(indent).append("-\n");
      Print(item, indent + "  ", max_text, out);
    }
    return;
  }
  for (const auto& [key, item] : value.items()) {
    out.append(indent).append(key).append(":");
    if (!item.is_structured()) {
      out.append(" ").append(scalar(item)).append("\n");
    } else if (item.empty()) {
      out += " none\n";
    } else {
      out += "\n";
      Print(item, indent + "  ", max_text, out);
    }
  }
}

}  // namespace

uint64_t ExportTrajectories(const std::string& path, bool tokens,
                            const std::function<void(const std::string&)>& write) {
  StoreOptions how;
  how.read_only = true;
  const auto store = Store::Open(path, how);
  uint64_t written = 0;
  for (const Purpose purpose : {Purpose::kTrain, Purpose::kEval}) {
    for (const uint64_t id : store->Ids(purpose)) {
      const auto stored = store->Read(purpose, id);
      if (!stored) continue;  // trimmed since
      Json j = RecordJson(*stored);
      for (size_t i = 0; tokens && i < stored->group.trajectories.size(); ++i) {
        const Trajectory& t = stored->group.trajectories[i];
        j["answers"][i]["token_ids"] = t.tokens;
        j["answers"][i]["loss_mask"] = t.loss_mask;
        j["answers"][i]["logprobs"] = t.logprobs;
        j["answers"][i]["policy_versions"] = t.policy_versions;
        if (!t.kept.empty()) j["answers"][i]["kept_tokens"] = KeptCounts(t);
        if (t.experts.there()) j["answers"][i]["expert_bytes"] = t.experts.bytes.size();
      }
      write(DumpJson(j) + "\n");
      ++written;
    }
  }
  return written;
}

std::string ExplainStore(const std::string& path) {
  StoreOptions how;
  how.read_only = true;
  const auto store = Store::Open(path, how);
  struct Part {
    const char *name, *key, *value;
  };
  constexpr Part kParts[] = {
      {"meta",
       "text: format, run_id, clean, sequence, trim/<purpose>, dataset/<name>, preferences/<name>, "
       "counter/<name>, "
       "import/<kind>/<name>, score/<name>",
       "text"},
      {"prompts", "dataset, a zero byte, row (8 bytes big endian)", "a Prompt"},
      {"leases", "purpose (1 byte), lease id (8 BE)", "complete, attempt, requeues, sequence"},
      {"groups", "purpose (1), lease id (8 BE)",
       "kind 2: a group's body as its actor sealed it; 0, 1: body and scores in one, of before "
       "December 2026"},
      {"eval", "version (8 BE), samples (4 BE)", "how many held-out prompts were asked for"},
      {"preferences", "dataset, a zero byte, row (8 BE)",
       "a PreferenceRecord: pair, labelled completion or demonstration"},
      {"scores", "purpose (1), lease id (8 BE), name of the score",
       "reward and parts of each answer: without a name as it was stored, else by other functions"},
      {"plans", "step (8 BE)",
       "the prompt rows and earlier groups that a train step was given, where samplers chose them"},
      {"logprobs", "digest of the weights, a zero byte, digest of the sequence",
       "float32 little endian, one a scored token"},
  };
  std::string out = path + ": a store of Plumb, format " + std::to_string(kStoreFormatVersion) +
                    ", run '" + store->run_id() + "'\n";
  out +=
      "A RocksDB folder. Every value begins with CRC32C over key and rest (4 bytes little endian), "
      "checked at each read;\n"
      "records are FlatBuffers of common/record/schema/trajectory.fbs, verified before they are "
      "read. Acknowledged means that the\n"
      "log was synced. Settings: no compression, log recovery stops at damage and tolerates only a "
      "torn last record,\n"
      "table files are read back when written, the library's own log is kept off this disk.\n";
  const auto usage = store->Usage();
  for (const Part& part : kParts) {
    out += std::string("\n") + part.name + "\n  key    " + part.key + "\n  value  " + part.value +
           "\n";
    for (const auto& u : usage) {
      if (u.name != part.name) continue;
      out += "  holds  about " + std::to_string(u.records) + " records, " +
             std::to_string(u.table_bytes) + " bytes in table files, " +
             std::to_string(u.memory_bytes) + " in memory and log\n";
    }
  }
  return out + "\n" + std::to_string(store->SizeBytes()) + " bytes on disk\n";
}

std::string DumpStore(const std::string& path, const DumpOptions& options) {
  StoreOptions how;
  how.read_only = true;
  const auto store = Store::Open(path, how);
  const Json j = Describe(*store, options);
  // Completions are bytes of a model: what is not UTF-8 becomes a replacement character.
  if (options.json) return j.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
  std::string text;
  Print(j, "", options.max_text, text);
  return text;
}

}  // namespace plumb::replay
