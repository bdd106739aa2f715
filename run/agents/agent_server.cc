#include "run/agents/agent_server.h"

#include <algorithm>
#include <charconv>
#include <utility>

#include "common/base/error.h"
#include "run/board/board_server.h"
#ifdef PLUMB_HTTPLIB
#include <httplib.h>

#include <functional>
#include <nlohmann/json.hpp>

#include "common/base/json/strict_json.h"
#include "common/record/json_text.h"
#include "run/agents/agent_reply.h"
#include "run/board/web_listener.h"
#include "run/serve/answer_request.h"
#include "run/serve/request_body.h"
#endif

namespace plumb::run {

#ifdef PLUMB_HTTPLIB

namespace {

using Json = nlohmann::ordered_json;

constexpr std::chrono::milliseconds kMostWait{60'000};  // of a fetch
constexpr size_t kSpareThreads = 16;

std::string BearerOf(const httplib::Request& request) {
  const std::string given = request.get_header_value("Authorization"), bearer = "Bearer ";
  return given.starts_with(bearer) ? given.substr(bearer.size()) : "";
}

uint64_t EpisodeOf(const httplib::Request& request) {
  const std::string text = request.matches[1].str();
  uint64_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || end != text.data() + text.size())
    throw ApiError{404, "there is no such episode", "", "no_episode"};
  return number;
}

Json ReadBody(const std::string& text) {
  if (text.empty()) return Json::object();
  try {
    Json body = ParseStrictJson(text, "the request's body");
    if (body.is_object()) return body;
  } catch (const Error& error) {
    throw ApiError{400, error.what(), "", "bad_json"};
  }
  throw ApiError{400, "the request's body is no JSON object", "", "bad_json"};
}

}  // namespace

struct AgentServer::Impl {
  AgentDoor& door;
  const Tokenizer& tokenizer;
  const AgentServerOptions options;
  const bool loopback;
  httplib::Server http;
  WebListener listener;

  Impl(AgentDoor& d, const Tokenizer& t, AgentServerOptions o)
      : door(d),
        tokenizer(t),
        options(std::move(o)),
        loopback(IsLoopback(options.host)),
        listener(http, {.threads = static_cast<size_t>(options.threads) + kSpareThreads,
                        .max_body = options.max_body * kMostRefused}) {}

  static void Refuse(httplib::Response& reply, const ApiError& error) {
    reply.status = error.status;
    // What is refused here is refused again.
    reply.set_header("x-should-retry", "false");
    reply.set_content(ErrorJson(error), "application/json");
  }

  template <class Do>
  void Guarded(const httplib::Request& request, httplib::Response& reply, Do answer) {
    try {
      if (!HostAllowed(request.get_header_value("Host"), loopback, {options.host}))
        throw ApiError{421, "this name is not the endpoint's", "", "wrong_host"};
      answer();
    } catch (const ApiError& error) {
      Refuse(reply, error);
    } catch (const Error& error) {
      Refuse(reply, AsApiError(error));
    } catch (const std::exception& error) {
      Refuse(reply, {500, error.what(), "", ""});
    }
  }

  using Post =
      std::function<void(const httplib::Request&, const std::string& body, httplib::Response&)>;
  void OnPost(const std::string& path, const Post& answer) {
    http.Post(path, [this, answer](const httplib::Request& request, httplib::Response& reply,
                                   const httplib::ContentReader& read) {
      Guarded(request, reply, [&] {
        const std::string body = ReadRequestBody(read, reply, options.max_body);
        answer(request, body, reply);
      });
    });
  }

  // Sent from within a provider: only there the library says whether it arrived.
  void Tell(const AnswerRequest& request, const AnsweredCall& answered, httplib::Response& reply) {
    const auto body =
        std::make_shared<std::string>(AgentReply(request, answered, tokenizer, options.model));
    const auto call = std::make_shared<AnsweredCall>(answered);
    const auto sent = std::make_shared<bool>(false);
    reply.status = 200;
    reply.set_content_provider(
        body->size(), request.stream ? "text/event-stream" : "application/json",
        [body, sent](size_t offset, size_t length, httplib::DataSink& sink) {
          if (sink.is_writable && !sink.is_writable()) return false;
          const bool ok = sink.write(body->data() + offset, length);
          *sent = ok && offset + length == body->size();
          return ok;
        },
        [this, call, sent](bool) {
          if (!*sent) door.Left(*call);
        });
  }

  void Answer(const AnswerRequest& asked, const httplib::Request& request,
              httplib::Response& reply) {
    Tell(asked, door.Ask(EpisodeOf(request), BearerOf(request), asked), reply);
  }

  void Reward(const httplib::Request& request, const std::string& text, httplib::Response& reply) {
    const Json body = ReadBody(text);
    std::optional<double> reward;
    bool done = false;
    for (const auto& [name, value] : body.items()) {
      if (name == "reward" && value.is_number()) reward = value.get<double>();
      else if (name == "done" && value.is_boolean()) done = value.get<bool>();
      else if (!value.is_null())
        throw ApiError{400, "'" + name + "' is none of reward (a number) and done (true or false)",
                       name, ""};
    }
    door.Reward(EpisodeOf(request), BearerOf(request), reward, done);
    reply.set_content("{\"ok\":true}", "application/json");
  }

  void Fetch(const httplib::Request& request, const std::string& text, httplib::Response& reply) {
    // Takes as long whatever is wrong with it, for its length.
    const std::string given = BearerOf(request);
    unsigned differs = options.key.empty() || given.size() != options.key.size() ? 1 : 0;
    for (size_t i = 0; i < given.size() && i < options.key.size(); ++i)
      differs |= static_cast<unsigned char>(given[i]) ^ static_cast<unsigned char>(options.key[i]);
    if (differs != 0) {
      throw ApiError{401,
                     "the key of this endpoint stands in the run's folder, in agents/ACTOR.json: "
                     "send \"Authorization: Bearer KEY\"",
                     "", "invalid_api_key"};
    }
    const Json body = ReadBody(text);
    double wait = 0;
    for (const auto& [name, value] : body.items()) {
      if (name != "wait" || !value.is_number() || !(value.get<double>() >= 0))
        throw ApiError{400, "takes \"wait\": seconds to wait for an episode", name, ""};
      wait = value.get<double>();
    }
    const auto most = std::chrono::milliseconds(
        static_cast<int64_t>(std::min(wait * 1000, static_cast<double>(kMostWait.count()))));
    const auto task = door.Fetch(After(most));
    if (!task && door.closed())
      throw ApiError{410, "the run is over, or this actor of it is ending", "", "run_over"};
    if (!task) {
      reply.status = 204;
      return;
    }
    const std::string host = request.get_header_value("Host");
    reply.set_content(DumpJson({{"episode", task->episode},
                                {"base_url", "http://" + host + "/episodes/" +
                                                 std::to_string(task->episode) + "/v1"},
                                {"api_key", task->key},
                                {"task", Json::parse(task->json)}}),
                      "application/json");
  }

  Json ModelJson() const {
    return {{"id", options.model}, {"object", "model"}, {"created", 0}, {"owned_by", "plumb"}};
  }

  void Set() {
    http.set_error_handler(
        httplib::Server::Handler([](const httplib::Request& request, httplib::Response& reply) {
          if (!reply.body.empty()) return;
          Refuse(reply, {reply.status,
                         reply.status == 404   ? request.path + " is nothing here"
                         : reply.status == 413 ? "the body is too large"
                                               : "the request cannot be read",
                         "", ""});
        }));
    const std::string of_episode = R"(/episodes/(\d+)/v1)";
    OnPost(of_episode + "/chat/completions",
           [this](const auto& request, const std::string& body, auto& reply) {
             Answer(ReadChatRequest(body), request, reply);
           });
    OnPost(of_episode + "/completions",
           [this](const auto& request, const std::string& body, auto& reply) {
             Answer(ReadCompletionRequest(body), request, reply);
           });
    OnPost(of_episode + "/reward", [this](const auto& request, const std::string& body,
                                          auto& reply) { Reward(request, body, reply); });
    OnPost("/episodes", [this](const auto& request, const std::string& body, auto& reply) {
      Fetch(request, body, reply);
    });
    http.Get(
        of_episode + "/models", [this](const httplib::Request& request, httplib::Response& reply) {
          Guarded(request, reply, [&] {
            // Whoever has the key is heard.
            door.Reward(EpisodeOf(request), BearerOf(request), std::nullopt, false);
            reply.set_content(DumpJson({{"object", "list"}, {"data", Json::array({ModelJson()})}}),
                              "application/json");
          });
        });
  }
};

AgentServer::AgentServer(AgentDoor& door, const Tokenizer& tokenizer, AgentServerOptions options)
    : impl_(std::make_unique<Impl>(door, tokenizer, std::move(options))) {
  Impl& s = *impl_;
  s.Set();
  s.listener.Start(s.options.host, s.options.port, /*waiting=*/1024,
                   "each actor of a machine needs its own: leave environment.listen empty");
}

AgentServer::~AgentServer() {
  impl_->door.Close();
  impl_->listener.Stop();
}

int AgentServer::port() const { return impl_->listener.port(); }
const std::string& AgentServer::key() const { return impl_->options.key; }

std::string AgentServer::url() const { return UrlOf(impl_->options.host, port()); }

#else

struct AgentServer::Impl {
  std::string none;
};

AgentServer::AgentServer(AgentDoor&, const Tokenizer&, AgentServerOptions) {
  throw Error(ErrorCode::kUnsupported,
              "this build has no web server: install libcpp-httplib-dev and build again",
              "environment.kind");
}
AgentServer::~AgentServer() = default;
int AgentServer::port() const { return 0; }
const std::string& AgentServer::key() const { return impl_->none; }
std::string AgentServer::url() const { return ""; }

#endif

}  // namespace plumb::run
