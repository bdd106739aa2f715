#include "environment/tools/search_tool.h"

#include <sqlite3.h>

#include <algorithm>
#include <fstream>
#include <nlohmann/json.hpp>

#include "common/base/error.h"
#include "common/record/json_text.h"

namespace plumb::environment {
namespace {

using Json = nlohmann::json;
constexpr int64_t kResults = 3, kMostResults = 10;
constexpr size_t kMostWords = 64;

// A statement that ends with its scope.
class Statement {
 public:
  Statement(sqlite3* db, const char* sql) {
    ok_ = sqlite3_prepare_v2(db, sql, -1, &statement_, nullptr) == SQLITE_OK;
  }
  ~Statement() { sqlite3_finalize(statement_); }
  Statement(const Statement&) = delete;
  Statement& operator=(const Statement&) = delete;
  bool ok() const { return ok_; }
  void Bind(int at, std::string_view text) {
    ok_ &= sqlite3_bind_text64(statement_, at, text.data(), text.size(), SQLITE_TRANSIENT,
                               SQLITE_UTF8) == SQLITE_OK;
  }
  void Bind(int at, int64_t number) {
    ok_ &= sqlite3_bind_int64(statement_, at, number) == SQLITE_OK;
  }
  // SQLITE_ROW, SQLITE_DONE or an error.
  int Step() { return ok_ ? sqlite3_step(statement_) : SQLITE_ERROR; }
  void Reset() { sqlite3_reset(statement_); }
  std::string Text(int column) const {
    const auto* text = reinterpret_cast<const char*>(sqlite3_column_text(statement_, column));
    return text == nullptr ? "" : text;
  }

 private:
  sqlite3_stmt* statement_ = nullptr;
  bool ok_ = false;
};

// The words of a query as FTS5 reads them: each in quotes, so that nothing in them is an operator.
std::string Match(std::string_view query) {
  std::string out, word;
  size_t words = 0;
  const auto end = [&] {
    if (!word.empty() && words < kMostWords) {
      out += (words++ > 0 ? " OR \"" : "\"") + word + "\"";
    }
    word.clear();
  };
  for (const char c : query) {
    const bool letter = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') ||
                        (c >= 'A' && c <= 'Z') || static_cast<unsigned char>(c) >= 0x80;
    if (letter) word += c;
    else end();
  }
  end();
  return out;
}

class SearchSession : public ToolSession {
 public:
  explicit SearchSession(SearchIndex* index) : index_(index) {}
  ToolResult Call(const Json& arguments, Deadline) override {
    const int64_t limit = std::clamp<int64_t>(
        arguments.contains("limit") && arguments["limit"].is_number()
            ? static_cast<int64_t>(std::clamp(arguments["limit"].get<double>(), 1.0, 100.0))
            : kResults,
        1, kMostResults);
    const std::vector<Found> found = index_->Search(arguments.value("query", ""), limit);
    if (found.empty()) return {.text = "nothing was found"};
    std::string text;
    for (size_t i = 0; i < found.size(); ++i) {
      text += (i > 0 ? "\n" : "") + std::to_string(i + 1) + ". " +
              (found[i].title.empty() ? "" : found[i].title + ": ") + found[i].text;
    }
    return {.text = text};
  }

 private:
  SearchIndex* index_;
};

class SearchTool : public Tool {
 public:
  explicit SearchTool(std::shared_ptr<SearchIndex> index) : index_(std::move(index)) {}
  std::string name() const override { return "search"; }
  std::string schema() const override {
    return R"({"name":"search","description":"Searches a collection of texts and gives the best )"
           R"(passages.","parameters":{"type":"object","properties":{"query":{"type":"string",)"
           R"("description":"words to look for"},"limit":{"type":"integer","description":)"
           R"("how many passages, 3 unless said","minimum":1,"maximum":10}},"required":["query"]}})";
  }
  std::unique_ptr<ToolSession> Begin(const Prompt&, Problem*) override {
    return std::make_unique<SearchSession>(index_.get());
  }

 private:
  const std::shared_ptr<SearchIndex> index_;
};

}  // namespace

void SearchIndex::Fail(const std::string& what) {
  throw Error(ErrorCode::kIo, what + ": " + sqlite3_errmsg(db_), "environment.corpus");
}

SearchIndex::SearchIndex(const std::string& path) {
  MutexLock lock(mu_);
  try {
    if (sqlite3_open_v2(":memory:", &db_, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, nullptr) !=
        SQLITE_OK) {
      Fail("SQLite does not open");
    }
    if (sqlite3_exec(db_,
                     "CREATE VIRTUAL TABLE corpus USING fts5(title, text, tokenize = "
                     "\"unicode61 remove_diacritics 2\")",
                     nullptr, nullptr, nullptr) != SQLITE_OK) {
      throw Error(ErrorCode::kUnsupported,
                  std::string("the SQLite of this machine has no FTS5: ") + sqlite3_errmsg(db_),
                  "environment.corpus");
    }
    Fill(path);
  } catch (...) {
    sqlite3_close(db_);
    throw;
  }
}

SearchIndex::~SearchIndex() {
  MutexLock lock(mu_);
  sqlite3_close(db_);
}

void SearchIndex::Fill(const std::string& path) {
  std::ifstream in(path);
  if (!in) throw Error(ErrorCode::kNotFound, "no such file: '" + path + "'", "environment.corpus");
  const bool json = path.ends_with(".jsonl") || path.ends_with(".json");
  sqlite3_exec(db_, "BEGIN", nullptr, nullptr, nullptr);
  {
    Statement insert(db_, "INSERT INTO corpus(title, text) VALUES (?1, ?2)");
    int64_t number = 0;
    for (std::string line; std::getline(in, line);) {
      ++number;
      if (line.find_first_not_of(" \t\r") == std::string::npos) continue;
      std::string title, text = line;
      if (json) {
        const auto refuse = [&](const std::string& what) {
          throw Error(ErrorCode::kInvalidArgument, what, path + ":" + std::to_string(number));
        };
        const Json row =
            TooDeep(line, 64) ? Json() : Json::parse(line, nullptr, /*allow_exceptions=*/false);
        if (!row.is_object()) refuse("the line is no JSON object: " + Shown(line, 80));
        text.clear();
        for (const char* key : {"text", "contents", "content"}) {
          if (text.empty() && row.contains(key) && row[key].is_string())
            text = row[key].get<std::string>();
        }
        if (text.empty()) refuse("the line has no text in \"text\", \"contents\" or \"content\"");
        if (row.contains("title") && row["title"].is_string())
          title = row["title"].get<std::string>();
      }
      insert.Bind(1, title);
      insert.Bind(2, text);
      if (insert.Step() != SQLITE_DONE) Fail("a text does not go into the index");
      insert.Reset();
      ++size_;
    }
  }
  sqlite3_exec(db_, "COMMIT", nullptr, nullptr, nullptr);
  if (size_ == 0) throw Error(ErrorCode::kInvalidArgument, "holds no text", path);
}

std::vector<Found> SearchIndex::Search(std::string_view query, int64_t limit) {
  const std::string match = Match(query);
  if (match.empty()) return {};
  MutexLock lock(mu_);
  // 60 words around what was found.
  Statement statement(db_,
                      "SELECT title, snippet(corpus, 1, '', '', '...', 60) FROM corpus WHERE "
                      "corpus MATCH ?1 ORDER BY bm25(corpus), rowid LIMIT ?2");
  statement.Bind(1, match);
  statement.Bind(2, limit);
  std::vector<Found> found;
  int state;
  while ((state = statement.Step()) == SQLITE_ROW)
    found.push_back({statement.Text(0), statement.Text(1)});
  if (state != SQLITE_DONE) Fail("the search for " + Shown(match, 80) + " failed");
  return found;
}

std::shared_ptr<SearchIndex> OpenSearchIndex(const std::string& path) {
  return std::make_shared<SearchIndex>(path);
}

std::unique_ptr<Tool> MakeSearchTool(std::shared_ptr<SearchIndex> index) {
  return std::make_unique<SearchTool>(std::move(index));
}

}  // namespace plumb::environment
