// The conversations of answers that are being generated: between the engine and an environment.
//
// Purpose: an episode is one sample's conversation. It begins before its group is submitted, gets
// what the policy wrote at the end of every turn, and says what is appended or that the answer is
// over. What an environment says becomes tokens here: through the chat template (the difference of
// two renderings, common/text/template/transcript.h) or as text; the tokens so far stay as they
// are.
// Limits: environment.max_turns and episode_seconds end an answer as FinishReason::kLength with
// what there is of it, as does a reply that leaves no room for another turn; a reply is cut at
// environment.reply_tokens, counted. A failure of the environment gives the answer up (kAborted,
// with the reason).
// Thread safety: none, the actor's thread. Ownership: borrows environment, tokenizer and template.
// Errors: what an environment says and cannot be tokenized is a failure of its own.
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "actor/engine.h"
#include "common/record/environment.h"
#include "common/text/template/chat_template.h"
#include "common/text/template/transcript.h"
#include "common/text/tokenizer/tokenizer.h"

namespace plumb::actor {

struct EpisodeOptions {
  int32_t max_turns = 8;
  int32_t reply_tokens = 256;
  int32_t max_new_tokens = 64;  // of an answer
  std::chrono::milliseconds episode_time{300'000};
  bool renders_text = true;  // prompts of text go through the chat template as well
  std::vector<int32_t> eos;
};

struct EpisodeCounters {
  uint64_t episodes = 0;
  uint64_t turns = 0;        // said to environments
  uint64_t cut_replies = 0;  // at reply_tokens, or where the answer had no room for them
  uint64_t failures = 0;     // episodes that an environment could not go on with
  uint64_t timeouts = 0;     // ended by episode_seconds
};

// What the engine has to do with a sample.
struct EpisodeMove {
  uint64_t request = 0;
  uint32_t sample = 0;
  std::vector<int32_t> tokens;  // to append
  bool ends = false;
  FinishReason finish = FinishReason::kStop;
  std::string why;  // of kAborted
};

// What is recorded of a turn.
struct TurnNote {
  std::optional<double> reward;
  bool called = false, failed_call = false;
};

class Episodes {
 public:
  // `chat_template` may be nullptr.
  Episodes(EnvironmentPort* environment, const Tokenizer* tokenizer,
           const ChatTemplate* chat_template, EpisodeOptions options);
  ~Episodes();  // ends what is left

  void Begin(uint64_t request, const Prompt& prompt, int32_t samples);
  // All episodes of a request have begun: the request, and the tokens that each sample's answer
  // begins with (most often none). Once a request.
  std::optional<std::pair<uint64_t, std::vector<std::vector<int32_t>>>> TakeBegun();
  void Act(const EndedTurn& turn);
  // Takes in what has come; waits for it until the deadline where nothing has. What was not taken
  // by the engine (Engine::End of a sample without a slot) is said again by Retry.
  void Poll(Deadline deadline);
  std::vector<EpisodeMove> TakeMoves();
  void Retry(EpisodeMove move) { moves_.push_back(std::move(move)); }
  // The request is over: what is recorded of each sample's turns. Its episodes end.
  std::vector<std::vector<TurnNote>> Close(uint64_t request);

  // Nothing is awaited from the environment.
  bool idle() const { return awaited_ == 0; }
  // Of the next limit of time that may pass; max() without an episode.
  Deadline next_limit() const;
  const EpisodeCounters& counters() const { return counters_; }

 private:
  struct Episode;
  struct Request {
    std::vector<uint64_t> episodes;  // by sample
    int32_t beginning = 0;           // of them, that have not begun
  };

  void TakeIn(EnvironmentReply reply);
  void Begun(Episode& episode, const EnvironmentReply& reply);
  void Replied(Episode& episode, const EnvironmentReply& reply);
  void Fail(Episode& episode, const std::string& why);
  void Expire();
  void Finish(Episode& episode, FinishReason finish, std::string why,
              std::vector<int32_t> rest = {});
  // Tokens of what is said behind a turn.
  std::vector<int32_t> Tokens(Episode& episode, const EnvironmentReply& reply, bool goes_on);
  std::string Cut(const std::string& text);  // to reply_tokens
  void EndPort(Episode& episode);

  EnvironmentPort* const environment_;
  const Tokenizer* const tokenizer_;
  const ChatTemplate* const template_;
  const EpisodeOptions options_;
  const std::string tools_json_;
  std::map<uint64_t, Episode> episodes_;
  std::map<uint64_t, Request> requests_;
  std::vector<std::pair<uint64_t, std::vector<std::vector<int32_t>>>> begun_;
  std::vector<EpisodeMove> moves_;
  uint64_t next_ = 0;
  int64_t awaited_ = 0;
  EpisodeCounters counters_;
};

}  // namespace plumb::actor
