#include "run/serve/token_scorer.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "policy_model/memory/threads.h"
#include "policy_model/transformer.h"

namespace plumb::run {
namespace {

using Json = nlohmann::json;

constexpr int64_t kTokensAPass = 4096;

[[noreturn]] void Refuse(const std::string& field, const std::string& why) {
  throw ApiError{400, "'" + field + "' " + why, field, "invalid_value"};
}

double Temperature(const Json& json, const char* field, double otherwise) {
  const auto at = json.find(field);
  if (at == json.end() || at->is_null()) return otherwise;
  if (!at->is_number() || !(at->get<double>() > 0)) Refuse(field, "has to be a number above 0");
  return at->get<double>();
}

}  // namespace

ScoreRequest ReadScoreRequest(std::string_view body) {
  const Json json = Json::parse(body, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object()) throw ApiError{400, "the body is no JSON object", "", "bad_body"};
  for (const auto& [field, value] : json.items()) {
    if (field != "model" && field != "tokens" && field != "top" && field != "temperature" &&
        field != "top_temperature")
      Refuse(field, "is not known here: model, tokens, top, temperature, top_temperature");
  }
  ScoreRequest out;
  if (const auto model = json.find("model"); model != json.end() && !model->is_null()) {
    if (!model->is_string()) Refuse("model", "has to be a text");
    out.model = model->get<std::string>();
  }
  const auto tokens = json.find("tokens");
  if (tokens == json.end() || !tokens->is_array() || tokens->empty())
    Refuse("tokens", "has to be a list of lists of token ids");
  int64_t all = 0;
  for (const Json& sequence : *tokens) {
    if (!sequence.is_array() || sequence.empty())
      Refuse("tokens", "has to be a list of lists of token ids, none of them empty");
    std::vector<int32_t>& of = out.tokens.emplace_back();
    for (const Json& id : sequence) {
      if (!id.is_number_integer() || id.get<int64_t>() < 0 || id.get<int64_t>() > INT32_MAX)
        Refuse("tokens", "holds something that is no token id");
      of.push_back(id.get<int32_t>());
    }
    all += static_cast<int64_t>(of.size());
  }
  if (all > ScoreRequest::kMostTokens)
    Refuse("tokens", "has " + std::to_string(all) + " tokens; at most " +
                         std::to_string(ScoreRequest::kMostTokens) + " a request");
  if (const auto top = json.find("top"); top != json.end() && !top->is_null()) {
    if (!top->is_number_integer() || top->get<int64_t>() < 0 ||
        top->get<int64_t>() > ScoreRequest::kMostTop)
      Refuse("top", "has to be a number from 0 to " + std::to_string(ScoreRequest::kMostTop));
    out.top = top->get<int64_t>();
  }
  out.temperature = Temperature(json, "temperature", 1);
  out.top_temperature = Temperature(json, "top_temperature", out.temperature);
  return out;
}

struct TokenScorer::Pass {
  explicit Pass(const ModelFolder& folder, const policy_model::Weights& weights)
      : transformer(folder.shape, weights.stream(), weights.dtype()),
        train(transformer, kTokensAPass) {}
  policy_model::Transformer transformer;
  learner::TrainStep train;
};

TokenScorer::TokenScorer(const ServedModels& models, int64_t threads)
    : models_(models), threads_(threads) {}
TokenScorer::~TokenScorer() = default;

std::string TokenScorer::Score(const ScoreRequest& request, size_t model) {
  const ModelFolder& folder = models_.folder();
  const policy_model::ModelShape& shape = folder.shape;
  std::vector<std::vector<uint8_t>> masks;
  std::vector<learner::SequenceView> views;
  for (const std::vector<int32_t>& tokens : request.tokens) {
    if (static_cast<int64_t>(tokens.size()) > shape.max_positions)
      Refuse("tokens", "has a sequence of " + std::to_string(tokens.size()) +
                           " tokens; the model's context has " +
                           std::to_string(shape.max_positions));
    for (const int32_t token : tokens) {
      if (token >= shape.vocab ||
          std::binary_search(shape.unused_tokens.begin(), shape.unused_tokens.end(), token))
        Refuse("tokens", "holds " + std::to_string(token) + ", which is no token of the model");
    }
    masks.emplace_back(tokens.size(), uint8_t{1}).front() = 0;
  }
  for (size_t i = 0; i < masks.size(); ++i)
    views.push_back({.tokens = request.tokens[i], .mask = masks[i]});
  const learner::TeacherQuestion question{
      .temperature = static_cast<float>(request.temperature),
      .picks = std::max<int64_t>(1, request.top),
      .pick_temperature = static_cast<float>(request.top_temperature)};
  std::vector<learner::TeacherRows> said;
  {
    MutexLock lock(mu_);
    if (threads_ > 0) policy_model::UseThreads(static_cast<int>(threads_));
    const policy_model::Weights& weights = *models_.models()[model].weights;
    if (!pass_) pass_ = std::make_unique<Pass>(folder, weights);
    said = learner::AskModel(pass_->train, weights, views, question, shape.hidden, 0);
  }
  Json out = {{"sequences", Json::array()}};
  for (const learner::TeacherRows& rows : said) {
    Json one = {
        {"logprobs", rows.logprob}, {"top", Json::array()}, {"top_logprobs", Json::array()}};
    const size_t picks = rows.picks();
    for (size_t r = 0; r < rows.logprob.size(); ++r) {
      std::vector<int32_t> ids;
      std::vector<float> logprobs;
      for (size_t k = 0; request.top > 0 && k < picks && rows.ids[r * picks + k] >= 0; ++k) {
        ids.push_back(rows.ids[r * picks + k]);
        logprobs.push_back(rows.logprobs[r * picks + k]);
      }
      one["top"].push_back(std::move(ids));
      one["top_logprobs"].push_back(std::move(logprobs));
    }
    out["sequences"].push_back(std::move(one));
  }
  return out.dump();
}

}  // namespace plumb::run
