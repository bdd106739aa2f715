// Conversations of several turns against the same tokens in one turn, in tokens a second.
//
//   turns_bench [--conversations 64] [--turns 4] [--reply 16] [--turn 32] [--delay_ms 2]
//               [--rounds 5] [--threads 2]
//
// A random model of 4 layers and hidden size 256 on the CPU in float32. A turn ends by an end token
// (so many of the vocabulary are one that a turn has --turn tokens in the mean); each is answered
// after --delay_ms with --reply tokens, and behind the last turn the answer ends. Then the same
// number of tokens of each answer is drawn in one turn. Rounds of both take turns; printed is a
// JSON object with the medians, and the share (--turns against one), of wall and of processor time.
// On a machine that others use, processor time and what is counted say more than wall time: rows
// that went through the model, steps, and the time in which every conversation waited for its reply
// and there was nothing to compute ("idle_s", in so many waits), which is the delay of the replies
// and not a cost of the engine's.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <string_view>
#include <thread>
#include <vector>

#include "actor/engine.h"
#include "bench/bench_program.h"
#include "common/base/rng.h"
#include "policy_model/transformer.h"

namespace plumb::actor {
namespace {

using bench::Median;
using bench::ProcessorSeconds;

using Clock = std::chrono::steady_clock;

struct Arguments {
  int64_t conversations = 64, turns = 4, reply = 16, turn = 32, delay_ms = 2, rounds = 5,
          threads = 2;
};

constexpr char kProgram[] = "turns_bench";

[[noreturn]] void Fail(const std::string& why) { bench::Fail(kProgram, why); }

Arguments Parse(int argc, char** argv) {
  Arguments a;
  bench::ReadOptions(kProgram, argc, argv, 1,
                     {{"--conversations", &a.conversations},
                      {"--turns", &a.turns},
                      {"--reply", &a.reply},
                      {"--turn", &a.turn},
                      {"--delay_ms", &a.delay_ms, 0},
                      {"--rounds", &a.rounds},
                      {"--threads", &a.threads}});
  return a;
}

struct Measured {
  double tokens = 0, wall = 0, processor = 0, steps = 0, rows = 0;
  double idle = 0, waits = 0;    // seconds in which there was nothing to compute
  std::vector<int32_t> lengths;  // of each answer
};

constexpr int32_t kVocab = 512, kPrompt = 24, kLimit = 640;

policy_model::ModelShape Shape() {
  policy_model::ModelShape s;
  s.layers = 4, s.hidden = 256, s.heads = 4, s.kv_heads = 4, s.head_dim = 64, s.ffn = 1024;
  s.vocab = kVocab, s.max_positions = kPrompt + kLimit;
  return s;
}

// `lengths`: of the answers, each in one turn; empty: conversations.
Measured Generate(const Arguments& a, const policy_model::Weights& weights,
                  const std::vector<int32_t>& lengths) {
  EngineOptions options;
  options.max_batch = static_cast<int32_t>(a.conversations);
  options.max_new_tokens = kLimit;
  options.kv_budget_mb = 4096;
  options.longest = kPrompt + kLimit;
  options.turns = lengths.empty();
  if (options.turns) {
    for (int32_t id = 0; id < std::max<int32_t>(1, kVocab / static_cast<int32_t>(a.turn)); ++id)
      options.eos.push_back(id);
  }
  Engine engine(weights.shape(), Device::kCpu, weights.dtype(), options);
  RandomStream random(7, 7);
  for (int64_t i = 0; i < a.conversations; ++i) {
    GenerateRequest r;
    r.id = r.prompt_key = static_cast<uint64_t>(i);
    for (int32_t k = 0; k < kPrompt; ++k)
      r.tokens.push_back(static_cast<int32_t>(random.NextBelow(kVocab)));
    r.turns = options.turns;
    if (!options.turns) r.limit = lengths[static_cast<size_t>(i)];
    engine.Submit(std::move(r));
  }
  const std::vector<int32_t> reply(static_cast<size_t>(a.reply), kVocab - 1);
  std::deque<std::pair<Clock::time_point, EndedTurn>> due;
  Measured out;
  out.processor = -ProcessorSeconds();
  const auto begin = Clock::now();
  while (!engine.idle()) {
    if (!engine.Step(weights, 0) && !due.empty()) {
      const auto before = Clock::now();
      std::this_thread::sleep_until(due.front().first);
      out.idle += std::chrono::duration<double>(Clock::now() - before).count();
      ++out.waits;
    }
    for (EndedTurn& t : engine.TakeTurns())
      due.emplace_back(Clock::now() + std::chrono::milliseconds(a.delay_ms), std::move(t));
    for (; !due.empty() && due.front().first <= Clock::now(); due.pop_front()) {
      const EndedTurn& t = due.front().second;
      if (t.turn + 1 >= a.turns || std::ssize(reply) >= t.room) engine.End(t.id, t.sample);
      else {
        engine.Continue(t.id, t.sample, reply);
        out.rows += static_cast<double>(a.reply);
      }
    }
  }
  out.wall = std::chrono::duration<double>(Clock::now() - begin).count();
  out.processor += ProcessorSeconds();
  out.steps = static_cast<double>(engine.counters().steps);
  out.rows += static_cast<double>(engine.counters().generated_tokens);
  out.lengths.resize(static_cast<size_t>(a.conversations));
  for (const GenerateResult& r : engine.TakeFinished()) {
    out.lengths[r.id] = static_cast<int32_t>(r.samples[0].tokens.size());
    out.tokens += out.lengths[r.id];
  }
  return out;
}

void Run(const Arguments& a) {
  policy_model::SetThreads(static_cast<int>(a.threads));
  policy_model::Weights weights(Shape(), Device::kCpu, DType::kFloat32);
  weights.Initialise(3, 0.02);
  const std::vector<int32_t> lengths = Generate(a, weights, {}).lengths;  // warm, and what to draw
  Generate(a, weights, lengths);
  std::vector<double> several, one, share, share_processor, share_busy, idle;
  double tokens = 0;
  Measured counted, counted_one;
  for (int64_t i = 0; i < a.rounds; ++i) {
    // Whoever comes first changes with the round.
    Measured turns, whole;
    if (i % 2 == 0) turns = Generate(a, weights, {});
    whole = Generate(a, weights, lengths);
    if (i % 2 != 0) turns = Generate(a, weights, {});
    if (turns.tokens != whole.tokens) Fail("the two did not generate the same number of tokens");
    tokens = turns.tokens, counted = turns, counted_one = whole;
    several.push_back(turns.tokens / turns.wall);
    one.push_back(whole.tokens / whole.wall);
    share.push_back(several.back() / one.back());
    share_processor.push_back(whole.processor / turns.processor);
    share_busy.push_back(whole.wall / (turns.wall - turns.idle));
    idle.push_back(turns.idle);
  }
  std::printf(
      "{\"tokens\":%.0f,\"rows\":%.0f,\"rows_one_turn\":%.0f,\"steps\":%.0f,\"steps_one_turn\":%."
      "0f,"
      "\"waits\":%.0f,\"idle_s\":%.4f,\"tokens_per_s\":%.0f,\"tokens_per_s_one_turn\":%.0f,"
      "\"share\":%.3f,\"share_without_idle\":%.3f,\"share_processor\":%.3f}\n",
      tokens, counted.rows, counted_one.rows, counted.steps, counted_one.steps, counted.waits,
      Median(idle), Median(several), Median(one), Median(share), Median(share_busy),
      Median(share_processor));
}

}  // namespace
}  // namespace plumb::actor

int main(int argc, char** argv) { plumb::actor::Run(plumb::actor::Parse(argc, argv)); }
