// What a slot knows of its conversation: whose tokens are whose, and what is still to be computed
// before the policy speaks again.
//
// Purpose: a turn that has ended leaves its last token without keys and values, as every draw does;
// it and what is appended behind it, but for the last, are fed as a prompt's tokens are, and the
// last appended one is the first row of the next turn. Thread safety: none; the engine's thread
// owns it. Ownership: of plain values. Errors: none.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "common/record/trajectory.h"

namespace plumb::actor {

struct SlotTurns {
  std::vector<Segment> segments;  // of the answer's tokens, without the turn that is being drawn
  int32_t turn_begin = 0;         // of that one, in tokens of the answer
  int32_t turns = 0;              // that have ended
  std::vector<int32_t> feed;      // to be computed before the next draw
  int32_t position = 0;           // of feed[0] in the sequence
  int32_t next = -1;              // what the next turn's first row computes, once `feed` is
  bool waits = false;             // for Continue or End
  bool ends = false;              // once `feed` is computed: as `finish` and `why` say
  FinishReason finish = FinishReason::kStop;
  std::string why;

  // `n`: tokens of the answer so far, the turn's included.
  void EndTurn(int32_t n) {
    segments.push_back({Origin::kPolicy, turn_begin, n});
    turn_begin = n;
    ++turns;
  }
  // `tokens` stand behind the first n of the answer, whose last is `last`, at `at` in the sequence.
  // REQUIRES: some tokens.
  void Append(std::span<const int32_t> tokens, int32_t n, int32_t last, int32_t at) {
    const int32_t end = n + static_cast<int32_t>(tokens.size());
    segments.push_back({Origin::kEnvironment, n, end});
    turn_begin = end;
    feed.assign(1, last);
    feed.insert(feed.end(), tokens.begin(), tokens.end() - 1);
    position = at;
    next = tokens.back();
  }
};

}  // namespace plumb::actor
