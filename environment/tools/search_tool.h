// Search over texts of one's own: SQLite's FTS5, ranked by BM25.
//
// Purpose: environment.corpus is a file with one text a line; in a .jsonl file a line is an object
// with "text" ("contents" and "content" are read as well) and, where there is one, a "title". The
// index lives in memory. A query is its words, any of which may occur; what stands higher has more
// and rarer ones of them. A result has its title and the part of the text around the words.
// Thread safety: an index is safe for concurrent calls (one at a time goes in). Errors:
// OpenSearchIndex throws Error(kNotFound | kInvalidArgument) naming file and line, kUnsupported for
// a SQLite without FTS5.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/mutex.h"
#include "environment/tools/tool.h"

struct sqlite3;

namespace plumb::environment {

struct Found {
  std::string title, text;
};

class SearchIndex {
 public:
  explicit SearchIndex(const std::string& path);
  ~SearchIndex();
  SearchIndex(const SearchIndex&) = delete;
  SearchIndex& operator=(const SearchIndex&) = delete;

  int64_t size() const { return size_; }
  // The best `limit` texts, best first; none where no word occurs.
  std::vector<Found> Search(std::string_view query, int64_t limit);

 private:
  void Fill(const std::string& path) PLUMB_REQUIRES(mu_);
  [[noreturn]] void Fail(const std::string& what) PLUMB_REQUIRES(mu_);

  Mutex mu_;
  sqlite3* db_ PLUMB_GUARDED_BY(mu_) = nullptr;
  int64_t size_ = 0;
};

std::shared_ptr<SearchIndex> OpenSearchIndex(const std::string& path);
std::unique_ptr<Tool> MakeSearchTool(std::shared_ptr<SearchIndex> index);

}  // namespace plumb::environment
