#include "run/serve/api_server.h"

#include <unistd.h>

#include <algorithm>
#include <utility>

#include "common/base/error.h"
#ifdef PLUMB_HTTPLIB
#include <httplib.h>

#include <atomic>
#include <functional>
#include <nlohmann/json.hpp>
#include <random>

#include "run/board/board_server.h"
#include "run/board/web_listener.h"
#include "run/serve/answer_reply.h"
#include "run/serve/answer_request.h"
#include "run/serve/request_body.h"
#include "run/serve/serve_metrics.h"
#include "run/serve/token_scorer.h"
#endif

namespace plumb::run {

#ifdef PLUMB_HTTPLIB

namespace {

using Json = nlohmann::ordered_json;
using SteadyClock = std::chrono::steady_clock;

// How often somebody who waits looks whether the other side is still there.
constexpr std::chrono::milliseconds kLook{200};
constexpr std::chrono::seconds kReadTimeout{30}, kWriteTimeout{30};
constexpr size_t kSpareThreads = 32;  // of what is quick: health, metrics, refusals

std::string DumpedJson(const Json& json) {
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

// Takes as long whatever is wrong with it.
bool SameKey(const std::string& given, const std::string& key) {
  unsigned differs = given.size() == key.size() ? 0 : 1;
  for (size_t i = 0; i < key.size(); ++i) {
    const char other = i < given.size() ? given[i] : '\0';
    differs |= static_cast<unsigned char>(other) ^ static_cast<unsigned char>(key[i]);
  }
  return differs == 0;
}

}  // namespace

struct ApiServer::Impl {
  const ServedModels& models;
  BatchEngine& engine;
  TokenScorer scorer;
  const ApiOptions options;
  const bool loopback;
  std::vector<std::string> names;
  const int64_t started = std::chrono::duration_cast<std::chrono::seconds>(
                              std::chrono::system_clock::now().time_since_epoch())
                              .count();
  const uint64_t first_key;
  std::atomic<uint64_t> asked{0};
  ServedReplies replies;
  httplib::Server http;
  WebListener listener;

  Impl(const ServedModels& m, BatchEngine& e, ApiOptions o)
      : models(m),
        engine(e),
        scorer(m, e.options().threads),
        options(std::move(o)),
        loopback(IsLoopback(options.host)),
        names(options.names),
        first_key(uint64_t{std::random_device()()} << 32 | std::random_device()()),
        listener(http, {.threads = static_cast<size_t>(e.options().max_requests) + kSpareThreads,
                        .max_body = options.max_body * kMostRefused,
                        .read = kReadTimeout,
                        .write = kWriteTimeout}) {
    char own[256] = {};
    if (!loopback && gethostname(own, sizeof own - 1) == 0) names.emplace_back(own);
    names.push_back(options.host);
  }

  void Refuse(const std::string& endpoint, httplib::Response& reply, const ApiError& error) {
    reply.status = error.status;
    if (error.status == 429) reply.set_header("Retry-After", "1");
    if (error.status == 401) reply.set_header("WWW-Authenticate", "Bearer");
    reply.set_content(ErrorJson(error), "application/json");
    replies.Count(endpoint, error.status);
  }

  // Who may ask, and how. `health` is for whoever watches over the server: no key.
  void Admit(const httplib::Request& request) const {
    if (!HostAllowed(request.get_header_value("Host"), loopback, names)) {
      throw ApiError{421,
                     "this name is not one of the server's: use the address it printed, or start "
                     "it with --name",
                     "", "wrong_host"};
    }
    if (options.key.empty() || request.path == "/health") return;
    const std::string given = request.get_header_value("Authorization");
    const std::string bearer = "Bearer ";
    if (!given.starts_with(bearer) || !SameKey(given.substr(bearer.size()), options.key)) {
      throw ApiError{401, "the API key is missing or wrong: send \"Authorization: Bearer KEY\"", "",
                     "invalid_api_key"};
    }
  }

  template <class Answer>
  void Guarded(const std::string& endpoint, const httplib::Request& request,
               httplib::Response& reply, Answer answer) {
    try {
      Admit(request);
      answer();
      if (reply.status <= 0) reply.status = 200;
      replies.Count(endpoint, reply.status);
    } catch (const ApiError& error) {
      Refuse(endpoint, reply, error);
    } catch (const Error& error) {
      Refuse(endpoint, reply, AsApiError(error));
    } catch (const std::exception& error) {
      Refuse(endpoint, reply, {500, error.what(), "", ""});
    }
  }

  void Get(const std::string& path, std::function<void(httplib::Response&)> answer) {
    http.Get(path, [this, path, answer](const httplib::Request& request, httplib::Response& reply) {
      Guarded(path, request, reply, [&] { answer(reply); });
    });
  }

  std::string Body(const httplib::Request& request, const httplib::ContentReader& read,
                   httplib::Response& reply) const {
    const std::string type = request.get_header_value("Content-Type");
    if (type.substr(0, type.find(';')) != "application/json") {
      reply.set_header("Connection", "close");  // the body stays unread
      throw ApiError{415, "the body has to be JSON: send \"Content-Type: application/json\"", "",
                     "wrong_type"};
    }
    return ReadRequestBody(read, reply, options.max_body, " (--max-body-mb)");
  }

  void Post(const std::string& path,
            std::function<void(const std::string& body, httplib::Response&)> answer) {
    http.Post(path, [this, path, answer](const httplib::Request& request, httplib::Response& reply,
                                         const httplib::ContentReader& read) {
      Guarded(path, request, reply, [&] {
        const std::string body = Body(request, read, reply);
        reply.status = -1;
        answer(body, reply);
      });
    });
  }

  size_t ModelOf(const std::string& name) const {
    const int found = models.Find(name);
    if (found >= 0) return static_cast<size_t>(found);
    std::string known;
    for (const ServedModel& model : models.models())
      known += (known.empty() ? "" : ", ") + model.name;
    throw ApiError{404, "there is no model \"" + name + "\" here; there is " + known, "model",
                   "model_not_found"};
  }

  std::vector<int32_t> ConversationTokens(const Prompt& conversation, bool tools) const {
    const ModelFolder& m = models.folder();
    if (!m.chat_template) {
      throw ApiError{400,
                     "this model has no chat template, so that nothing says how a conversation is "
                     "written for it: ask /v1/completions",
                     "messages", "no_chat_template"};
    }
    std::vector<int32_t> tokens = m.EncodePrompt(conversation, /*raw=*/false);
    if (tools) {
      Prompt without = conversation;
      Json columns = Json::parse(conversation.extra_json);
      columns.erase("tools");
      without.extra_json = columns.empty() ? "" : columns.dump();
      if (m.EncodePrompt(without, false) == tokens) {
        throw ApiError{400, "the model's chat template writes no tools: it would never see them",
                       "tools", "no_tools"};
      }
    }
    return tokens;
  }

  std::vector<std::vector<int32_t>> TokensOf(const AnswerRequest& request) const {
    const ModelFolder& m = models.folder();
    if (request.chat) return {ConversationTokens(request.conversation, request.tools)};
    std::vector<std::vector<int32_t>> out;
    for (const AnswerRequest::Text& text : request.texts) {
      Prompt prompt;
      prompt.text = text.text;
      std::vector<int32_t> tokens = text.tokens;
      if (tokens.empty()) tokens = m.EncodePrompt(prompt, /*raw=*/true);
      else tokens.insert(tokens.begin(), m.front.begin(), m.front.end());
      out.push_back(std::move(tokens));
    }
    return out;
  }

  // New tokens that an answer to the prompt may have.
  int32_t LimitOf(const AnswerRequest& request, const std::vector<int32_t>& tokens) const {
    const int64_t prompt = static_cast<int64_t>(tokens.size()),
                  context = models.folder().shape.max_positions,
                  most = engine.options().max_new_tokens;
    const char* field = request.chat ? "messages" : "prompt";
    if (prompt == 0) throw ApiError{400, "the prompt has no tokens", field, "empty_prompt"};
    const int64_t wanted = request.max_tokens.value_or(
        std::max<int64_t>(1, std::min(most, engine.context() - prompt)));
    if (prompt >= context || prompt + wanted > context) {
      throw ApiError{
          400,
          "the prompt has " + std::to_string(prompt) + " tokens" +
              (request.max_tokens ? " and max_tokens asks for " + std::to_string(wanted) + " more"
                                  : "") +
              "; the model's context has " + std::to_string(context),
          field, "context_length_exceeded"};
    }
    if (wanted > most) {
      throw ApiError{400,
                     "max_tokens is " + std::to_string(wanted) + "; this server gives at most " +
                         std::to_string(most) + " (--max-new-tokens)",
                     "max_tokens", "too_many_tokens"};
    }
    return static_cast<int32_t>(wanted);
  }

  kernels::SamplingOptions SamplingOf(const AnswerRequest& request) const {
    kernels::SamplingOptions out = engine.options().sampling;
    if (request.temperature) out.temperature = static_cast<float>(*request.temperature);
    if (request.top_p) out.top_p = static_cast<float>(*request.top_p);
    if (request.min_p) out.min_p = static_cast<float>(*request.min_p);
    if (request.top_k) out.top_k = static_cast<int32_t>(*request.top_k);
    return out;
  }

  void Answer(const AnswerRequest& request, httplib::Response& reply) {
    Asked ask;
    ask.model = ModelOf(request.model);
    std::vector<std::vector<int32_t>> prompts = TokensOf(request);
    for (const auto& tokens : prompts) ask.prompts.push_back({tokens, LimitOf(request, tokens)});
    const uint64_t number = asked.fetch_add(1);
    ask.n = static_cast<int32_t>(request.n);
    ask.key = request.seed.value_or(first_key + number);
    ask.sampling = SamplingOf(request);
    ask.stop = request.stop;
    char id[64];
    std::snprintf(id, sizeof id, "%s-%016llx", request.chat ? "chatcmpl" : "cmpl",
                  static_cast<unsigned long long>(first_key + number));
    const auto now = std::chrono::duration_cast<std::chrono::seconds>(
        std::chrono::system_clock::now().time_since_epoch());
    const auto text = std::make_shared<AnswerReply>(
        request, *models.folder().tokenizer,
        ReplyHead{id, now.count(), models.models()[ask.model].name}, std::move(prompts));
    std::shared_ptr<RunningAnswer> running = engine.Ask(std::move(ask));
    // The first news decide the status: until there are some, nothing is sent.
    auto news = std::make_shared<News>();
    while (news->empty()) *news = running->Wait(SteadyClock::now() + kLook);
    if (news->failure) throw ApiError(*news->failure);
    if (request.stream) Stream(running, text, news, reply);
    else Whole(running, text, news, reply);
  }

  static bool StillThere(const httplib::DataSink& sink) {
    return !sink.is_writable || sink.is_writable();
  }
  static bool Send(httplib::DataSink& sink, const std::string& text) {
    return text.empty() || sink.write(text.data(), text.size());
  }

  static void Stream(std::shared_ptr<RunningAnswer> running, std::shared_ptr<AnswerReply> text,
                     std::shared_ptr<News> first, httplib::Response& reply) {
    reply.set_header("Cache-Control", "no-cache");
    reply.set_header("X-Accel-Buffering", "no");  // of a proxy between
    auto held = std::make_shared<std::shared_ptr<RunningAnswer>>(std::move(running));
    reply.set_chunked_content_provider(
        "text/event-stream",
        [held, text, first](size_t, httplib::DataSink& sink) {
          News news = std::exchange(*first, {});
          if (news.empty()) news = (*held)->Wait(SteadyClock::now() + kLook);
          if (!Send(sink, text->Stream(news.parts))) return false;
          if (news.failure) {
            Send(sink, AnswerReply::StreamFailure(*news.failure));
          } else if (news.all_ended) {
            Send(sink, text->StreamEnd());
          } else {
            return StillThere(sink);
          }
          sink.done();
          return true;
        },
        [held](bool) { held->reset(); });
  }

  // Sent in one chunk at the end, from within the provider: only there the library says whether
  // the client is still there. A failure behind the first token breaks the reply off.
  static void Whole(std::shared_ptr<RunningAnswer> running, std::shared_ptr<AnswerReply> text,
                    std::shared_ptr<News> first, httplib::Response& reply) {
    text->Add(first->parts);
    if (first->all_ended) return reply.set_content(text->Whole(), "application/json");
    auto held = std::make_shared<std::shared_ptr<RunningAnswer>>(std::move(running));
    reply.set_chunked_content_provider(
        "application/json",
        [held, text](size_t, httplib::DataSink& sink) {
          const News news = (*held)->Wait(SteadyClock::now() + kLook);
          text->Add(news.parts);
          if (news.failure) return false;
          if (!news.all_ended) return StillThere(sink);
          if (!Send(sink, text->Whole())) return false;
          sink.done();
          return true;
        },
        [held](bool) { held->reset(); });
  }

  Json ModelJson(const ServedModel& model) const {
    return {{"id", model.name},   {"object", "model"},
            {"created", started}, {"owned_by", "plumb"},
            {"root", model.path}, {"max_model_len", models.folder().shape.max_positions}};
  }

  void Tokenize(const std::string& body, httplib::Response& reply) const {
    const TokenizeRequest request = ReadTokenizeRequest(body);
    ModelOf(request.model);
    const ModelFolder& m = models.folder();
    const std::vector<int32_t> tokens = !request.text
                                            ? ConversationTokens(request.conversation, false)
                                        : request.add_special ? m.EncodeText(*request.text)
                                                              : m.tokenizer->Encode(*request.text);
    reply.set_content(DumpedJson({{"count", tokens.size()},
                                  {"max_model_len", m.shape.max_positions},
                                  {"tokens", tokens}}),
                      "application/json");
  }

  void Health(httplib::Response& reply) const {
    if (const std::string failure = engine.Failure(); !failure.empty())
      throw ApiError{500, failure, "", "failed"};
    if (engine.closed()) throw ApiError{503, "the server is ending", "", "ending"};
    reply.set_content("{\"status\":\"ok\"}", "application/json");
  }

  void Set() {
    http.set_default_headers({{"X-Content-Type-Options", "nosniff"}});
    // What the library says by itself.
    http.set_error_handler(
        httplib::Server::Handler([this](const httplib::Request& request, httplib::Response& reply) {
          if (!reply.body.empty()) return;
          const int status = reply.status;
          std::string what = "the request cannot be read";
          if (status == 404) what = request.method + " " + request.path + " is nothing here";
          if (status == 413) what = "the request is too large";
          Refuse("other", reply, {status, what, "", ""});
        }));
    Post("/v1/completions", [this](const std::string& body, httplib::Response& reply) {
      Answer(ReadCompletionRequest(body), reply);
    });
    Post("/v1/chat/completions", [this](const std::string& body, httplib::Response& reply) {
      Answer(ReadChatRequest(body), reply);
    });
    Post("/tokenize",
         [this](const std::string& body, httplib::Response& reply) { Tokenize(body, reply); });
    Post("/token_logprobs", [this](const std::string& body, httplib::Response& reply) {
      const ScoreRequest request = ReadScoreRequest(body);
      reply.set_content(scorer.Score(request, ModelOf(request.model)), "application/json");
    });
    Get("/v1/models", [this](httplib::Response& reply) {
      Json list = {{"object", "list"}, {"data", Json::array()}};
      for (const ServedModel& model : models.models()) list["data"].push_back(ModelJson(model));
      reply.set_content(DumpedJson(list), "application/json");
    });
    http.Get("/v1/models/(.+)", [this](const httplib::Request& request, httplib::Response& reply) {
      Guarded("/v1/models", request, reply, [&] {
        const ServedModel& model = models.models()[ModelOf(request.matches[1].str())];
        reply.set_content(DumpedJson(ModelJson(model)), "application/json");
      });
    });
    Get("/health", [this](httplib::Response& reply) { Health(reply); });
    Get("/metrics", [this](httplib::Response& reply) {
      reply.set_content(ServeMetricsText(engine.counters(), replies.Now()),
                        "text/plain; version=0.0.4; charset=utf-8");
    });
  }
};

ApiServer::ApiServer(const ServedModels& models, BatchEngine& engine, ApiOptions options)
    : impl_(std::make_unique<Impl>(models, engine, std::move(options))) {
  Impl& s = *impl_;
  s.Set();
  s.listener.Start(s.options.host, s.options.port, /*waiting=*/1024);
}

bool ApiServer::Drain(std::chrono::milliseconds grace) {
  impl_->engine.Close();
  const bool ended = impl_->engine.WaitIdle(SteadyClock::now() + grace);
  if (!ended) impl_->engine.GiveUp();
  // Until whoever was cut off has been told.
  impl_->engine.WaitIdle(SteadyClock::now() + kWriteTimeout);
  return ended;
}

ApiServer::~ApiServer() {
  impl_->engine.Close();
  if (!impl_->engine.WaitIdle(SteadyClock::now())) impl_->engine.GiveUp();
  impl_->listener.Stop();
}

int ApiServer::port() const { return impl_->listener.port(); }

std::string ApiServer::url() const { return UrlOf(impl_->options.host, port()) + "/v1"; }

#else

struct ApiServer::Impl {};

ApiServer::ApiServer(const ServedModels&, BatchEngine&, ApiOptions) {
  throw Error(ErrorCode::kUnsupported,
              "this build has no web server: install libcpp-httplib-dev and build again", "serve");
}
ApiServer::~ApiServer() = default;
bool ApiServer::Drain(std::chrono::milliseconds) { return true; }
int ApiServer::port() const { return 0; }
std::string ApiServer::url() const { return ""; }

#endif

}  // namespace plumb::run
