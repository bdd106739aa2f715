// A teacher behind `plumb serve`: a model that does not fit beside the student, or that several
// runs share.
//
// Purpose: asks the server's /token_logprobs (docs/serve.md) for the log-probs of the tokens of
// sequences and of the likeliest tokens instead of each, a few thousand tokens a request. Whether
// its tokens are the student's is asked at the start, by the server's /tokenize of texts that the
// student's tokenizer splits, too. Under ranks the first asks, and the others are told.
// Thread safety: one thread. Ownership: its connections. Errors: kUnavailable where nobody answers
// within run.stall_seconds; kConflict for a reply that is none, or of another tokenizer;
// kUnsupported for questions about hidden states or cut distributions.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "common/net/http_client.h"
#include "learner/distill/teacher.h"

namespace plumb::learner {

class RemoteTeacher : public Teacher {
 public:
  // `address`: "http://host:port".
  RemoteTeacher(const configs::Config& config, const std::string& address,
                const policy_model::ModelShape& policy, Ranks* ranks);
  std::vector<TeacherRows> Say(std::span<const SequenceView> sequences,
                               const TeacherQuestion& question) override;

 private:
  void CheckTokens(const configs::Config& config);
  std::string Post(const std::string& path, const std::string& body) const;

  const std::string address_;
  const double stall_seconds_;
  const int64_t vocab_;
  Ranks* const ranks_;
};

// The body of a question, and what a server replied to it, for the scored tokens of each sequence.
// Tokens that the student does not have (>= vocab) are left out of the likeliest. Throws kConflict
// naming what is wrong with the reply.
std::string TokenQuestion(std::span<const SequenceView> sequences, const TeacherQuestion& question);
std::vector<TeacherRows> ReadTokenAnswer(const std::string& reply,
                                         std::span<const SequenceView> sequences,
                                         const TeacherQuestion& question, int64_t vocab,
                                         const std::string& server);

}  // namespace plumb::learner
