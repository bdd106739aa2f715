#include "learner/distill/remote_teacher.h"

#include <algorithm>
#include <chrono>
#include <limits>
#include <nlohmann/json.hpp>
#include <utility>

#include "common/base/error.h"

namespace plumb::learner {
namespace {

using Json = nlohmann::json;

constexpr int64_t kTokensARequest = 4096;
constexpr size_t kMostReplyBytes = size_t{256} << 20;

// Texts that tokenizers split differently.
constexpr const char* kProbes[] = {"12+34=46", "The quick  brown fox\n\tjumps; it's 1,234.5!",
                                   "def f(x):\n    return x ** 2", "a b c d e f 0 1 2"};

}  // namespace

std::string TokenQuestion(std::span<const SequenceView> sequences,
                          const TeacherQuestion& question) {
  Json body = {{"tokens", Json::array()},
               {"top", question.picks},
               {"temperature", question.temperature},
               {"top_temperature", question.pick_temperature}};
  for (const SequenceView& sequence : sequences)
    body["tokens"].push_back(std::vector<int32_t>(sequence.tokens.begin(), sequence.tokens.end()));
  return body.dump();
}

std::vector<TeacherRows> ReadTokenAnswer(const std::string& reply,
                                         std::span<const SequenceView> sequences,
                                         const TeacherQuestion& question, int64_t vocab,
                                         const std::string& server) {
  const auto refuse = [&](const std::string& why) {
    throw Error(ErrorCode::kConflict,
                "the teacher's server replied " + why +
                    ": is it `plumb serve` of this version or a newer one?",
                server);
  };
  const Json json = Json::parse(reply, nullptr, /*allow_exceptions=*/false);
  const auto answers = json.is_object() ? json.find("sequences") : json.end();
  if (!json.is_object() || answers == json.end() || answers->size() != sequences.size())
    refuse("without \"sequences\", one of each that it was asked about");
  std::vector<TeacherRows> out(sequences.size());
  try {
    for (size_t s = 0; s < sequences.size(); ++s) {
      const auto logprobs = (*answers)[s].at("logprobs").get<std::vector<float>>();
      const auto ids = (*answers)[s].at("top").get<std::vector<std::vector<int32_t>>>();
      const auto tops = (*answers)[s].at("top_logprobs").get<std::vector<std::vector<float>>>();
      const size_t n = sequences[s].tokens.size();
      if (logprobs.size() + 1 != n || ids.size() + 1 != n || tops.size() + 1 != n)
        refuse("with another number of tokens than it was asked about");
      const auto picks = static_cast<size_t>(question.picks);
      for (size_t i = 1; i < n; ++i) {
        if (!sequences[s].mask[i]) continue;
        if (ids[i - 1].size() != tops[i - 1].size())
          refuse("with ids and log-probs of two lengths");
        out[s].logprob.push_back(std::min(0.0f, logprobs[i - 1]));
        size_t kept = 0;
        for (size_t k = 0; k < ids[i - 1].size() && kept < picks; ++k) {
          const int32_t id = ids[i - 1][k];
          if (id < 0 || id >= vocab) continue;
          out[s].ids.push_back(id);
          out[s].logprobs.push_back(std::min(0.0f, tops[i - 1][k]));
          ++kept;
        }
        for (; kept < picks; ++kept) {
          out[s].ids.push_back(-1);
          out[s].logprobs.push_back(-std::numeric_limits<float>::infinity());
        }
      }
    }
  } catch (const Json::exception& e) {
    refuse(std::string("what cannot be read (") + e.what() + ")");
  }
  return out;
}

RemoteTeacher::RemoteTeacher(const configs::Config& config, const std::string& address,
                             const policy_model::ModelShape& policy, Ranks* ranks)
    : address_(address.ends_with('/') ? address.substr(0, address.size() - 1) : address),
      stall_seconds_(config.run.stall_seconds),
      vocab_(policy.vocab),
      ranks_(ranks) {
  if (!ranks_ || ranks_->first()) CheckTokens(config);
}

std::string RemoteTeacher::Post(const std::string& path, const std::string& body) const {
  const Url url = ParseUrl(address_ + path);
  HttpClient client(url, {.max_reply_bytes = kMostReplyBytes});
  const HttpReply reply = client.Post(
      body, After(std::chrono::milliseconds(static_cast<int64_t>(stall_seconds_ * 1000))));
  if (reply.failure == Failure::kNone) return reply.body;
  throw Error(ErrorCode::kUnavailable,
              "the teacher's server gave no answer: " + reply.reason +
                  ". Start it with `plumb serve MODEL`, or name a folder in distill.teachers",
              url.shown);
}

void RemoteTeacher::CheckTokens(const configs::Config& config) {
  const auto tokenizer = PolicyTokenizer(config.model);
  for (const char* text : kProbes) {
    std::vector<int32_t> ours;
    try {
      ours = tokenizer->Encode(text);
    } catch (const Error&) {
      continue;  // a vocabulary without some of its characters
    }
    const std::string reply =
        Post("/tokenize", Json{{"prompt", text}, {"add_special_tokens", false}}.dump());
    const Json json = Json::parse(reply, nullptr, /*allow_exceptions=*/false);
    if (json.is_object() && json.contains("tokens") && json["tokens"] == Json(ours)) continue;
    throw Error(ErrorCode::kConflict,
                std::string("the teacher's tokenizer is not the student's: they split \"") + text +
                    "\" differently; a teacher scores the student's tokens, so serve one of its "
                    "family",
                address_);
  }
}

std::vector<TeacherRows> RemoteTeacher::Say(std::span<const SequenceView> sequences,
                                            const TeacherQuestion& question) {
  if (question.hidden)
    throw Error(ErrorCode::kUnsupported, "a server does not tell hidden states", address_);
  std::vector<TeacherRows> out;
  for (size_t begin = 0; begin < sequences.size();) {
    size_t end = begin;
    int64_t tokens = 0;
    while (end < sequences.size() && (end == begin || tokens < kTokensARequest)) {
      if (!sequences[end].kept.empty())
        throw Error(ErrorCode::kUnsupported,
                    "a teacher behind a server speaks of all tokens, and these answers were drawn "
                    "from fewer",
                    address_);
      tokens += static_cast<int64_t>(sequences[end++].tokens.size());
    }
    const auto part = sequences.subspan(begin, end - begin);
    std::string reply;
    if (!ranks_ || ranks_->first()) reply = Post("/token_logprobs", TokenQuestion(part, question));
    if (ranks_) reply = ranks_->Gather(reply).front();
    for (TeacherRows& rows : ReadTokenAnswer(reply, part, question, vocab_, address_))
      out.push_back(std::move(rows));
    begin = end;
  }
  return out;
}

}  // namespace plumb::learner
