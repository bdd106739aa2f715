#include "run/serve/serve_metrics.h"

#include <cstdio>

namespace plumb::run {
namespace {

std::string Number(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%.10g", value);
  return text;
}

void Head(std::string& out, const char* name, const char* type, const char* help) {
  out += std::string("# HELP plumb_serve_") + name + " " + help + "\n# TYPE plumb_serve_" + name +
         " " + type + "\n";
}

void One(std::string& out, const char* name, const char* type, const char* help, double value) {
  Head(out, name, type, help);
  out += std::string("plumb_serve_") + name + " " + Number(value) + "\n";
}

}  // namespace

void ServedReplies::Count(const std::string& endpoint, int status) {
  MutexLock lock(mu_);
  ++replies_[{endpoint, status}];
}

std::map<std::pair<std::string, int>, uint64_t> ServedReplies::Now() const {
  MutexLock lock(mu_);
  return replies_;
}

std::string ServeMetricsText(const BatchCounters& c,
                             const std::map<std::pair<std::string, int>, uint64_t>& replies) {
  std::string out;
  const auto whole = [](auto n) { return static_cast<double>(n); };
  Head(out, "replies_total", "counter", "Replies by endpoint and HTTP status.");
  for (const auto& [key, count] : replies) {
    out += "plumb_serve_replies_total{endpoint=\"" + key.first + "\",status=\"" +
           std::to_string(key.second) + "\"} " + std::to_string(count) + "\n";
  }
  Head(out, "answers_total", "counter", "Answers that ended, by why.");
  for (const auto& [why, count] : {std::pair{"stop", c.answers_stopped},
                                   {"length", c.answers_length},
                                   {"failed", c.answers_failed}})
    out += std::string("plumb_serve_answers_total{finish=\"") + why + "\"} " +
           std::to_string(count) + "\n";
  One(out, "requests_left_total", "counter", "Requests whose client went before the end.",
      whole(c.requests_left));
  One(out, "prompt_tokens_total", "counter",
      "Tokens of prompts that were computed ahead; each answer computes the last one itself.",
      whole(c.prompt_tokens));
  One(out, "prompt_tokens_reused_total", "counter",
      "Tokens of prompts whose keys and values earlier requests had left.", whole(c.reused_tokens));
  One(out, "generated_tokens_total", "counter", "Tokens drawn.", whole(c.generated_tokens));
  One(out, "step_seconds_total", "counter", "Time of the engine's steps.", c.step_seconds);
  One(out, "requests", "gauge", "Requests being answered or waiting.", whole(c.requests));
  One(out, "answers_running", "gauge", "Answers in the batch.", whole(c.running));
  One(out, "answers_waiting", "gauge", "Answers that wait for a place in it.", whole(c.waiting));
  One(out, "kv_pages", "gauge", "Pages of keys and values.", whole(c.pages));
  One(out, "kv_pages_held", "gauge", "Of them, those in use.", whole(c.held_pages));
  Head(out, "first_token_seconds", "histogram", "From a request to its first token.");
  uint64_t sum = 0;
  for (size_t i = 0; i < std::size(BatchCounters::kFirstTokenBounds); ++i) {
    sum += c.first_tokens[i];
    out += "plumb_serve_first_token_seconds_bucket{le=\"" +
           Number(BatchCounters::kFirstTokenBounds[i]) + "\"} " + std::to_string(sum) + "\n";
  }
  sum += c.first_tokens[std::size(BatchCounters::kFirstTokenBounds)];
  out += "plumb_serve_first_token_seconds_bucket{le=\"+Inf\"} " + std::to_string(sum) + "\n";
  out += "plumb_serve_first_token_seconds_sum " + Number(c.first_token_seconds) + "\n";
  out += "plumb_serve_first_token_seconds_count " + std::to_string(sum) + "\n";
  return out;
}

}  // namespace plumb::run
