// Reliability row 14: generated datasets of every form and container, good rows and planted bad
// ones in any mixture. Each row ends in the store or under the reason that it was planted for, and
// the same file again changes nothing. PLUMB_RELIABILITY=ci: 100 datasets; else 20.
#include <zlib.h>

#include <cstdlib>
#include <functional>

#include <nlohmann/json.hpp>

#include "replay/datasets/importer.h"
#include "replay/datasets/rows/parquet_source.h"
#include "replay/datasets/rows/row_form.h"
#include "tests/replay/fixtures.h"

#if PLUMB_PARQUET
#include <arrow/io/file.h>
#include <arrow/io/memory.h>
#include <arrow/json/api.h>
#include <arrow/memory_pool.h>
#include <arrow/table.h>
#include <parquet/arrow/writer.h>
#endif

namespace plumb::replay {
namespace {

constexpr size_t kMaxRow = 4000;
constexpr int kRows = 120;

int Datasets() {
  const char* size = std::getenv("PLUMB_RELIABILITY");
  return size != nullptr && std::string(size) == "ci" ? 100 : 20;
}

// SplitMix64: the same datasets everywhere.
class Draws {
 public:
  explicit Draws(uint64_t seed) : state_(seed) {}
  size_t Below(size_t n) {
    uint64_t z = state_ += 0x9E3779B97F4A7C15u;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return static_cast<size_t>((z ^ (z >> 31)) % n);
  }

 private:
  uint64_t state_;
};

// A row that cannot be used. `cut`: not even one element of a JSON array.
struct Planted {
  std::string reason, row;
  bool cut = false;
};

std::string Q(const std::string& text) { return "\"" + text + "\""; }
std::string Turn(const std::string& role, const std::string& content) {
  return R"({"role": ")" + role + R"(", "content": ")" + content + "\"}";
}
std::string Turns(const std::string& user, const std::string& assistant) {
  return "[" + Turn("user", user) + (assistant.empty() ? "" : ", " + Turn("assistant", assistant)) +
         "]";
}
std::string Human(const std::string& user, const std::string& assistant) {
  return "\\n\\nHuman: " + user + "\\n\\nAssistant: " + assistant;
}

// How a form's rows look, good and bad.
struct Form {
  RowForm form;
  std::function<std::string(const std::string& id)> good;  // holds the id where ReadBack finds it
  std::vector<Planted> bad;
};

std::vector<Form> Forms() {
  const Planted nothing{"missing_column", R"({"other": 1})"};
  const std::vector<Planted> prompts = {
      nothing,
      {"empty_prompt", R"({"prompt": " \n"})"},
      {"wrong_type", R"({"prompt": 5})"},
      {"bad_messages", R"({"prompt": []})"},
      {"bad_messages", R"({"prompt": [{"role": "wizard", "content": "x"}]})"},
      {"bad_messages", R"({"prompt": [{"role": "user"}]})"},
      {"bad_messages", R"({"prompt": ["text"]})"},
      {"wrong_type", R"({"prompt": {"a": 1}})"}};
  std::vector<Planted> worked = prompts;
  worked.insert(worked.end(), {{"missing_column", R"({"question": "q", "answer": "no mark"})"},
                               {"missing_column", R"({"question": "q", "answer": "42 ####  "})"}});
  const std::vector<Planted> pairs = {
      {"missing_column", R"({"prompt": null, "chosen": "a", "rejected": "b"})"},
      nothing,
      {"one_sided", R"({"prompt": "p", "chosen": "a"})"},
      {"one_sided", R"({"prompt": "p", "chosen": "a", "rejected": " "})"},
      {"one_sided", R"({"prompt": "p", "chosen": [], "rejected": "b"})"},
      {"empty_completion", R"({"prompt": "p", "chosen": "", "rejected": ""})"},
      {"equal_pair", R"({"prompt": "p", "chosen": "a", "rejected": "a"})"},
      {"empty_prompt", R"({"prompt": " ", "chosen": "a", "rejected": "b"})"},
      {"wrong_type", R"({"prompt": 5, "chosen": "a", "rejected": "b"})"},
      {"wrong_type", R"({"prompt": "p", "chosen": "a", "rejected": 7})"},
      {"number_as_text", R"({"prompt": "p", "chosen": "a", "rejected": "b", "margin": "0.5"})"},
      {"wrong_type", R"({"prompt": "p", "chosen": "a", "rejected": "b", "margin": "much"})"},
      {"bad_json", R"({"prompt": "p", "chosen": "a", "rejected": "b", "margin": NaN})"},
      {"bad_messages",
       R"({"prompt": [{"role": "wizard", "content": "x"}], "chosen": "a", "rejected": "b"})"}};
  const auto pair = [](const std::string& chosen, const std::string& rejected) {
    return R"({"chosen": )" + chosen + R"(, "rejected": )" + rejected + "}";
  };
  return {
      {RowForm::kGsm8k,
       [](const auto& id) { return R"({"question": ")" + id + R"(", "answer": "6*7 #### 42"})"; },
       worked},
      {RowForm::kVerl,
       [](const auto& id) {
         return R"({"data_source": "m", "prompt": )" + Turns(id, "") +
                R"(, "reward_model": {"ground_truth": "7"}})";
       },
       prompts},
      {RowForm::kSkyRl,
       [](const auto& id) {
         return R"({"prompt": ")" + id +
                R"(", "env_class": "e", "reward_spec": {"ground_truth": "g"}})";
       },
       prompts},
      {RowForm::kOpenRlhf,
       [](const auto& id) { return R"({"input": ")" + id + R"(", "label": "l"})"; }, prompts},
      {RowForm::kSlime,
       [](const auto& id) { return R"({"prompt": ")" + id + R"(", "label": "l"})"; }, prompts},
      {RowForm::kPromptAnswer,
       [](const auto& id) { return R"({"prompt": ")" + id + R"(", "answer": 12})"; }, prompts},
      {RowForm::kTrl, [](const auto& id) { return R"({"prompt": ")" + id + R"(", "level": 3})"; },
       prompts},
      {RowForm::kPreference,
       [](const auto& id) {
         return R"({"prompt": ")" + id +
                R"(", "chosen": "good", "rejected": "bad", "margin": 0.5})";
       },
       pairs},
      {RowForm::kImplicit,
       [pair](const auto& id) { return pair(Turns(id, "a"), Turns(id, "b")); },
       {nothing,
        {"one_sided", R"({"chosen": "x a"})"},
        {"equal_pair", pair(Turns("u", "a"), Turns("u", "a"))},
        {"no_shared_prompt", pair(Turns("u", "a"), Turns("v", "b"))},
        {"no_shared_prompt", pair(Q("one"), Q("two"))},
        {"one_sided", pair(Turns("u", "a"), Turns("u", ""))},
        {"wrong_type", pair(Q("x"), Turns("u", "a"))},
        {"bad_messages", pair(R"([{"role": "user"}])", Turns("u", "a"))},
        {"empty_completion", pair(Turns("u", " "), Turns("u", "b"))}}},
      {RowForm::kHhRlhf,
       [pair](const auto& id) { return pair(Q(Human(id, "a")), Q(Human(id, "b"))); },
       {nothing,
        {"one_sided", R"({"rejected": "\n\nHuman: u\n\nAssistant: a"})"},
        {"equal_pair", pair(Q(Human("u", "a")), Q(Human("u", "a")))},
        {"no_shared_prompt", pair(Q(Human("u", "a")), Q(Human("v", "b")))},
        {"bad_messages", pair(Q(Human("u", "a")), Q("no dialogue"))},
        {"wrong_type", pair(Q(Human("u", "a")), "5")},
        {"one_sided", pair(Q(Human("u", "a")), Q(Human("u", "")))}}},
      {RowForm::kUltraFeedback,
       [](const auto& id) {
         return R"({"prompt": ")" + id + R"(", "chosen": )" + Turns(id, "a") + R"(, "rejected": )" +
                Turns(id, "b") + R"(, "score_chosen": 8.5, "score_rejected": 3})";
       },
       pairs},
      {RowForm::kNemo,
       [](const auto& id) {
         return R"({"context": )" + Turns(id, "") +
                R"(, "completions": [{"rank": 1, "completion": "b"}, {"rank": 0, "completion": "a"}]})";
       },
       {nothing,
        {"one_sided", R"({"context": "c", "completions": [{"rank": 0, "completion": "a"}]})"},
        {"wrong_type", R"({"context": "c", "completions": "a"})"},
        {"missing_column", R"({"context": "c", "completions": [{"rank": 0}]})"},
        {"missing_column", R"({"context": "c"})"},
        {"one_sided",
         R"({"context": "c", "completions": [{"rank": 0, "completion": "a"}, {"rank": 0, "completion": "b"}]})"},
        {"wrong_type",
         R"({"context": "c", "completions": [{"rank": 0, "completion": "a"}, {"rank": 0, "completion": "b"}, {"rank": 1, "completion": "c"}]})"},
        {"number_as_text",
         R"({"context": "c", "completions": [{"rank": "0", "completion": "a"}, {"rank": 1, "completion": "b"}]})"},
        {"equal_pair",
         R"({"context": "c", "completions": [{"rank": 0, "completion": "a"}, {"rank": 1, "completion": "a"}]})"},
        {"empty_prompt",
         R"({"context": "", "completions": [{"rank": 0, "completion": "a"}, {"rank": 1, "completion": "b"}]})"},
        {"empty_completion",
         R"({"context": "c", "completions": [{"rank": 0, "completion": ""}, {"rank": 1, "completion": "b"}]})"}}},
      {RowForm::kKto,
       [](const auto& id) {
         return R"({"prompt": ")" + id + R"(", "completion": "c", "label": true})";
       },
       {nothing,
        {"number_as_text", R"({"prompt": "p", "completion": "c", "label": "true"})"},
        {"wrong_type", R"({"prompt": "p", "completion": "c", "label": "perhaps"})"},
        {"number_as_text", R"({"prompt": "p", "completion": "c", "label": 1})"},
        {"wrong_type", R"({"prompt": "p", "completion": "c", "label": [true]})"},
        {"empty_completion", R"({"prompt": "p", "completion": " ", "label": true})"},
        {"empty_prompt", R"({"prompt": "", "completion": "c", "label": true})"},
        {"bad_messages",
         R"({"prompt": "p", "completion": [{"role": "user", "content": "x"}], "label": true})"},
        {"missing_column", R"({"completion": "c", "label": true})"}}},
      {RowForm::kPromptCompletion,
       [](const auto& id) { return R"({"prompt": ")" + id + R"(", "completion": "c"})"; },
       {nothing,
        {"empty_completion", R"({"prompt": "p", "completion": ""})"},
        {"empty_prompt", R"({"prompt": " ", "completion": "c"})"},
        {"wrong_type", R"({"prompt": "p", "completion": 3})"},
        {"bad_messages", R"({"prompt": [], "completion": "c"})"},
        {"missing_column", R"({"completion": "c"})"}}},
      {RowForm::kMessages,
       [](const auto& id) { return R"({"messages": )" + Turns(id, "a") + "}"; },
       {nothing,
        {"empty_completion", R"({"messages": )" + Turns("u", "") + "}"},
        {"bad_messages", R"({"messages": []})"},
        {"wrong_type", R"({"messages": "u"})"},
        {"bad_messages", R"({"messages": [{"role": "assistant", "content": "first"}]})"},
        {"bad_messages", R"({"messages": [{"role": "user", "content": 5}]})"}}},
      {RowForm::kText,
       [](const auto& id) { return R"({"text": ")" + id + "\"}"; },
       {nothing, {"empty_completion", R"({"text": " "})"}, {"wrong_type", R"({"text": 5})"}}},
      {RowForm::kAlpaca,
       [](const auto& id) {
         return R"({"instruction": ")" + id + R"(", "input": "i", "output": "o"})";
       },
       {nothing,
        {"empty_prompt", R"({"instruction": " ", "output": "o"})"},
        {"empty_completion", R"({"instruction": "x", "output": ""})"},
        {"wrong_type", R"({"instruction": 5, "output": "o"})"},
        {"wrong_type", R"({"instruction": "x", "input": 5, "output": "o"})"}}},
      {RowForm::kWinner,
       [](const auto& id) {
         return R"({"prompt": ")" + id +
                R"(", "response_a": "x", "response_b": "y", "winner": "b"})";
       },
       {nothing,
        {"tied", R"({"prompt": "p", "response_a": "x", "response_b": "y", "winner": "tie"})"},
        {"wrong_type", R"({"prompt": "p", "response_a": "x", "response_b": "y", "winner": "c"})"},
        {"equal_pair", R"({"prompt": "p", "response_a": "x", "response_b": "x", "winner": "a"})"},
        {"empty_completion",
         R"({"prompt": "p", "response_a": "x", "response_b": " ", "winner": "a"})"},
        {"empty_prompt",
         R"({"prompt": "", "response_a": "x", "response_b": "y", "winner": "a"})"}}},
  };
}

// Bad whatever the form.
std::vector<Planted> Common(RowKind kind) {
  std::vector<Planted> out = {
      {"bad_json", R"({"prompt": "cut)", true},
      {"bad_json", "nonsense", true},
      {"bad_json", R"({"prompt": "a"} trailing)", true},
      {"bad_json", R"({"prompt": "a", "prompt": "twice"})"},
      {"bad_json", R"({"text": "a", "x": [{"k": 1, "k": 2}]})"},
      {"bad_json",
       "{\"prompt\": \"a\", \"x\": " + std::string(200, '[') + std::string(200, ']') + "}"},
      {"bad_json", R"({"prompt": "\ud800 alone"})"},
      {"bad_json", R"({"prompt": 01})"},
      {"bad_utf8", "{\"prompt\": \"\xC3\x28\"}"},
      {"bad_utf8", "{\"prompt\": \"\xED\xA0\x80\"}"},
      {"not_an_object", "[1, 2]"},
      {"not_an_object", "\"text\""},
      {"not_an_object", "7"},
      {"line_too_long", "{\"prompt\": \"" + std::string(kMaxRow + 500, 'x') + "\"}"},
  };
  if (kind == RowKind::kDemonstrations) {
    out.push_back({"mixed_format", R"({"prompt": "p", "chosen": "a", "rejected": "b"})"});
  } else {
    out.push_back(
        {"mixed_format",
         R"({"messages": [{"role": "user", "content": "u"}, {"role": "assistant", "content": "a"}]})"});
  }
  return out;
}

enum class Container { kLines, kArray, kGzip, kParquet };

std::string Gzipped(const std::string& path, const std::string& text) {
  gzFile file = gzopen(path.c_str(), "wb");
  EXPECT_EQ(gzwrite(file, text.data(), static_cast<unsigned>(text.size())),
            static_cast<int>(text.size()));
  gzclose(file);
  return path;
}

#if PLUMB_PARQUET
std::string ParquetOf(const std::string& path, const std::string& lines) {
  auto read = arrow::json::ReadOptions::Defaults();
  read.use_threads = false;
  const auto input = std::make_shared<arrow::io::BufferReader>(arrow::Buffer::FromString(lines));
  const auto table = arrow::json::TableReader::Make(arrow::system_memory_pool(), input, read,
                                                    arrow::json::ParseOptions::Defaults())
                         .ValueOrDie()
                         ->Read()
                         .ValueOrDie();
  const auto file = arrow::io::FileOutputStream::Open(path).ValueOrDie();
  EXPECT_TRUE(parquet::arrow::WriteTable(*table, arrow::system_memory_pool(), file, 50).ok());
  EXPECT_TRUE(file->Close().ok());
  return path;
}
#endif

// Columns of a Parquet file have one type: rows whose values are texts or absent.
bool FitsATable(const Planted& planted) {
  const auto row = nlohmann::json::parse(planted.row, nullptr, false);
  if (!row.is_object() || row.contains("other") || planted.reason == "bad_json" ||
      planted.reason == "line_too_long")
    return false;
  for (const auto& [key, value] : row.items()) {
    if (!value.is_string() || key == "margin") return false;
  }
  return true;
}

struct Rejected {
  int64_t line;
  std::string reason;
  bool operator==(const Rejected&) const = default;
};

struct Dataset {
  std::string path, container;
  std::vector<std::string> ids;    // of the good rows, in order
  std::vector<Rejected> rejected;  // in order
};

Dataset Generate(const TempFolder& folder, const Form& form, Container container, Draws& draws) {
  std::vector<Planted> bad = form.bad;
  for (const Planted& planted : Common(KindOf(form.form))) bad.push_back(planted);
  if (container == Container::kArray) std::erase_if(bad, [](const Planted& p) { return p.cut; });
  if (container == Container::kParquet)
    std::erase_if(bad, [](const Planted& p) { return !FitsATable(p); });
  const size_t share = draws.Below(9);  // of ten rows so many are bad
  Dataset out;
  std::vector<std::string> rows;
  int64_t line = 0;
  for (int i = 0; i < kRows; ++i) {
    ++line;
    if (container == Container::kLines || container == Container::kGzip) {
      // blank lines are no rows
      while (draws.Below(12) == 0) rows.push_back(draws.Below(2) == 0 ? "" : " \t"), ++line;
    }
    const bool first = i == 0;  // it decides the form
    if (!first && draws.Below(10) < share && !bad.empty()) {
      const Planted& planted = bad[draws.Below(bad.size())];
      rows.push_back(planted.row);
      out.rejected.push_back({line, planted.reason});
    } else if (!first && draws.Below(12) == 0) {
      std::string again = form.good(out.ids[draws.Below(out.ids.size())]);
      // blanks do not make it another row
      if (container != Container::kParquet) again.insert(1, std::string(draws.Below(3), ' '));
      rows.push_back(again);
      out.rejected.push_back({line, "duplicate"});
    } else {
      out.ids.push_back("row " + std::to_string(i));
      rows.push_back(form.good(out.ids.back()));
    }
  }
  std::string text;
  for (size_t i = 0; i < rows.size(); ++i) {
    if (container == Container::kArray) {
      text += (i == 0 ? "[\n" : ",") + std::string(draws.Below(3), ' ') + rows[i];
    } else {
      text += rows[i] + (container != Container::kParquet && draws.Below(3) == 0 ? "\r\n" : "\n");
    }
  }
  switch (container) {
    case Container::kLines:
      out.path = WriteFile(folder / "data.jsonl", text), out.container = "jsonl";
      break;
    case Container::kArray:
      out.path = WriteFile(folder / "data.json", text + "\n]\n"), out.container = "json array";
      break;
    case Container::kGzip:
      out.path = Gzipped(folder / "data.jsonl.gz", text), out.container = "jsonl";
      break;
    case Container::kParquet:
#if PLUMB_PARQUET
      out.path = ParquetOf(folder / "data.parquet", text), out.container = "parquet";
#endif
      break;
  }
  return out;
}

std::string IdOf(const std::string& text, const std::vector<Message>& messages) {
  const std::string& held = messages.empty() ? text : messages.front().content;
  return held.substr(0, held.find('\n'));
}

std::vector<std::string> StoredIds(Store& store, RowKind kind) {
  std::vector<std::string> ids;
  if (kind == RowKind::kPrompts) {
    for (uint64_t i = 0; i < store.PromptCount("d"); ++i) {
      const Prompt prompt = store.ReadPrompt("d", i);
      ids.push_back(IdOf(prompt.text, prompt.messages));
    }
    return ids;
  }
  for (const PreferenceRecord& r : store.ReadPreferences("d", 0, UINT64_MAX)) {
    const bool text_alone = r.prompt.empty() && r.prompt_text.empty();
    ids.push_back(text_alone ? r.chosen.front().content : IdOf(r.prompt_text, r.prompt));
  }
  return ids;
}

std::vector<Rejected> ReadRejects(const std::string& path) {
  std::vector<Rejected> out;
  std::ifstream in(path);
  for (std::string line; std::getline(in, line);) {
    const auto j = nlohmann::json::parse(line);
    out.push_back({j.at("line").get<int64_t>(), j.at("reason").get<std::string>()});
  }
  return out;
}

TEST(RowLedger, EveryGeneratedRowIsStoredOrRejectedForItsReason) {
  const std::vector<Form> forms = Forms();
  ASSERT_EQ(forms.size(), static_cast<size_t>(kRowForms));
  std::map<std::string, int64_t> reasons, containers;
  int64_t read = 0, used = 0;
  for (int d = 0; d < Datasets(); ++d) {
    Draws draws(static_cast<uint64_t>(d) * 7919 + 14);
    const Form& form = forms[static_cast<size_t>(d) % forms.size()];
    auto container = static_cast<Container>(
        (static_cast<size_t>(d) + static_cast<size_t>(d) / forms.size()) % 4);
    const bool table =
        HasParquet() && (form.form == RowForm::kGsm8k || form.form == RowForm::kSlime ||
                         form.form == RowForm::kHhRlhf || form.form == RowForm::kPromptCompletion ||
                         form.form == RowForm::kText);
    if (container == Container::kParquet && !table) container = Container::kGzip;
    TempFolder folder;
    const Dataset data = Generate(folder, form, container, draws);
    SCOPED_TRACE("dataset " + std::to_string(d) + ", " + FormName(form.form) + " in " + data.path);
    std::map<std::string, int64_t> expected;
    for (const Rejected& r : data.rejected) ++expected[r.reason];

    auto store = OpenStore(folder / "store");
    ImportRequest request = ImportOf(data.path, "d");
    request.max_row_bytes = kMaxRow;
    request.rejects = folder / "rejects.jsonl";
    const ImportReport report = ImportFiles(*store, request);
    const FileLedger& ledger = report.files.at(0);
    EXPECT_EQ(ledger.read, kRows);
    EXPECT_EQ(ledger.used, static_cast<int64_t>(data.ids.size()));
    EXPECT_EQ(ledger.rejected, expected) << ledger.Describe();
    EXPECT_EQ(ledger.read, ledger.used + ledger.TotalRejected());
    EXPECT_EQ(ledger.format, FormName(form.form));
    EXPECT_EQ(ledger.container, data.container);
    EXPECT_EQ(ReadRejects(request.rejects), data.rejected);
    EXPECT_EQ(StoredIds(*store, KindOf(form.form)), data.ids);

    const ImportReport again = ImportFiles(*store, request);
    EXPECT_TRUE(again.unchanged);
    EXPECT_EQ(again.rows, report.rows);
    EXPECT_EQ(again.files.at(0).Describe(), ledger.Describe());
    EXPECT_EQ(StoredIds(*store, KindOf(form.form)), data.ids);
    if (::testing::Test::HasFailure()) return;  // one dataset says enough
    read += ledger.read;
    used += ledger.used;
    ++containers[container == Container::kGzip ? "gzip" : data.container];
    for (const auto& [reason, n] : expected) reasons[reason] += n;
  }
  std::string text = "read " + std::to_string(read) + " = used " + std::to_string(used);
  for (const auto& [reason, n] : reasons) text += " + " + std::to_string(n) + " " + reason;
  for (const auto& [name, n] : containers) text += ", " + std::to_string(n) + " " + name;
  std::printf("[          ] %d datasets: %s\n", Datasets(), text.c_str());
}

}  // namespace
}  // namespace plumb::replay
