// What the board's page asks for, as JSON (docs/board.md has the forms).
//
//   /api/runs                       the list
//   /api/runs/NAME                  facts and newest values of one
//   /api/runs/NAME/series           curves: keys=a,b  points=1000  x=step|tokens|time
//   /api/runs/NAME/samples          steps and prompts with answers; step=, prompt=: the answers
//   /api/runs/NAME/recipe           options, changes by resumes, the text
// and, from EventStream, what changes meanwhile.
// Thread safety: Answer: all threads; an EventStream: one. Ownership: borrows the catalog. Errors:
// as statuses: 404 for a name or path that is not there, 400 for a query that cannot be.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "run/board/run_catalog.h"

namespace plumb::run {

struct BoardReply {
  int status = 200;
  std::string json;
};

using Query = std::multimap<std::string, std::string>;  // decoded

BoardReply AnswerBoard(RunCatalog& runs, std::string_view path, const Query& query);

// Server-sent events of one reader: "run" (a line of the list is new or changed), "gone", and of
// the runs it follows "rows" (new steps with all their values), "reload" (what it has is no longer
// so) and "samples" (how many answers there are now).
class EventStream {
 public:
  static constexpr size_t kMaxFollowed = 16;

  EventStream(RunCatalog& runs, std::vector<std::string> followed);
  // What has happened since the last call, as text/event-stream; may be empty.
  std::string Next();

 private:
  struct Place {
    uint64_t revision = 0;
    int64_t step = -1;
    int64_t answers = -1;
  };
  RunCatalog& runs_;
  const std::vector<std::string> followed_;
  std::map<std::string, std::string> listed_;  // what was sent last
  std::map<std::string, Place> places_;
};

}  // namespace plumb::run
