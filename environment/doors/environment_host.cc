#include "environment/doors/environment_host.h"

#include <dlfcn.h>

#include <cerrno>
#include <cmath>
#include <cstdio>
#include <exception>
#include <limits>
#include <nlohmann/json.hpp>
#include <string>

#include "common/base/problem.h"
#include "common/record/json_text.h"
#include "common/sandbox/host_call.h"
#include "environment/doors/environment_abi.h"

namespace plumb::environment {
namespace {

using Json = nlohmann::ordered_json;

struct Object {
  decltype(&plumb_environment_abi_version) version = nullptr;
  decltype(&plumb_environment_open) open = nullptr;
  decltype(&plumb_environment_tools) tools = nullptr;
  decltype(&plumb_environment_begin) begin = nullptr;
  decltype(&plumb_environment_act) act = nullptr;
  decltype(&plumb_environment_end) end = nullptr;
  decltype(&plumb_environment_close) close = nullptr;
  void* state = nullptr;
};

Problem Load(const HostCall& call, Object* object) {
  void* handle = dlopen(call.object.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (handle == nullptr) return std::string("cannot be loaded: ") + dlerror();
  const auto find = [&](auto& function, const char* name) {
    function = reinterpret_cast<std::decay_t<decltype(function)>>(dlsym(handle, name));
    return function != nullptr;
  };
  for (const auto& [there, name] :
       {std::pair{find(object->version, "plumb_environment_abi_version"),
                  "plumb_environment_abi_version"},
        std::pair{find(object->begin, "plumb_environment_begin"), "plumb_environment_begin"},
        std::pair{find(object->act, "plumb_environment_act"), "plumb_environment_act"}}) {
    if (!there) {
      return std::string("has no function ") + name +
             ": compile it against environment/doors/environment_abi.h, with extern \"C\" in C++";
    }
  }
  const uint32_t version = object->version();
  if (version != PLUMB_ENVIRONMENT_ABI_VERSION) {
    return "was built for version " + std::to_string(version) +
           " of environment/doors/environment_abi.h, this is version " +
           std::to_string(PLUMB_ENVIRONMENT_ABI_VERSION) + ": compile it again";
  }
  find(object->open, "plumb_environment_open");
  find(object->tools, "plumb_environment_tools");
  find(object->end, "plumb_environment_end");
  find(object->close, "plumb_environment_close");
  if (object->open == nullptr) return std::nullopt;
  const int32_t refused =
      object->open(static_cast<int32_t>(call.rest.size()), call.rest.data(), &object->state);
  if (refused != 0)
    return "plumb_environment_open refused to start with code " + std::to_string(refused);
  return std::nullopt;
}

// One reply of the object as what the protocol says.
Json ReplyOf(const plumb_environment_reply& reply) {
  Json out = Json::object();
  if (reply.error != nullptr) {
    out["error"] = std::string(reply.error);
    return out;
  }
  if (reply.observation != nullptr) out["observation"] = std::string(reply.observation);
  if (reply.results_json != nullptr) {
    const std::string text = reply.results_json;
    out["results"] =
        TooDeep(text, 16) ? Json() : Json::parse(text, nullptr, /*allow_exceptions=*/false);
    if (!out["results"].is_array()) return {{"error", "results_json is no JSON array of texts"}};
  }
  if (std::isinf(reply.reward)) return {{"error", "the reward is infinite"}};
  if (!std::isnan(reply.reward)) out["reward"] = reply.reward;
  out["done"] = reply.done != 0;
  out["failed"] = reply.failed != 0;
  return out;
}

Json Answer(const Object& object, const Json& request) {
  const std::string ask = request.value("call", "");
  const uint64_t episode = request.value("episode", uint64_t{0});
  if (ask == "end") {
    if (object.end != nullptr) object.end(object.state, episode);
    return Json::object();
  }
  const auto text_of = [&](const char* key) {
    if (!request.contains(key)) return std::string();
    return request[key].is_string() ? request[key].get<std::string>() : DumpJson(request[key]);
  };
  const std::string prompt = text_of("prompt"), truth = text_of("ground_truth"),
                    extra = text_of("extra"), text = text_of("text"), calls = text_of("calls");
  const auto view = [](const std::string& s) {
    return plumb_environment_string{s.c_str(), s.size()};
  };
  plumb_environment_turn turn = {};
  turn.struct_size = sizeof turn;
  turn.episode = episode;
  turn.prompt = view(prompt);
  turn.ground_truth = view(truth);
  turn.extra_json = view(extra);
  turn.sample = request.value("sample", uint64_t{0});
  turn.text = view(text);
  turn.calls_json = view(calls);
  turn.last = request.value("last", false) ? 1 : 0;
  plumb_environment_reply reply = {};
  reply.struct_size = sizeof reply;
  reply.reward = std::numeric_limits<double>::quiet_NaN();
  (ask == "begin" ? object.begin : object.act)(object.state, &turn, &reply);
  return ReplyOf(reply);
}

int Serve(const HostCall& call) {
  const auto [in, out] = TakeHostPipes();
  if (in < 0) return 2;
  Problem problem = GuardObject(call.sandbox);
  Object object;
  Json hello = {{"ready", true}};
  try {
    if (!problem) problem = Load(call, &object);
    const char* tools = !problem && object.tools != nullptr ? object.tools(object.state) : nullptr;
    if (tools != nullptr) {
      hello["tools"] = TooDeep(tools, 64) ? Json() : Json::parse(tools, nullptr, false);
      if (!hello["tools"].is_array()) problem = "plumb_environment_tools gave no JSON array";
    }
  } catch (const std::exception& e) {
    problem = std::string("threw while it was opened: ") + e.what();
  }
  if (problem) hello = {{"error", *problem}};
  if (!WriteAll(out, DumpJson(hello) + "\n") || problem) return 3;
  FILE* lines = fdopen(in, "r");
  if (lines == nullptr) return 2;
  char* line = nullptr;
  size_t room = 0;
  for (ssize_t n; (n = getline(&line, &room, lines)) > 0;) {
    const Json request = Json::parse(line, line + n, nullptr, /*allow_exceptions=*/false);
    if (!request.is_object() || !request.contains("id")) return 4;
    Json reply = {{"id", request["id"]}};
    try {
      reply.update(Answer(object, request));
    } catch (const std::exception& e) {
      reply["error"] = std::string("threw: ") + e.what();
    } catch (...) {
      reply["error"] = "threw something that is no std::exception";
    }
    if (!WriteAll(out, DumpJson(reply) + "\n")) return 5;
  }
  if (object.close != nullptr) object.close(object.state);
  return 0;
}

}  // namespace

int EnvironmentHostMain(int argc, char** argv) {
  return RunHost(argc, argv, "environment-host", Serve);
}

}  // namespace plumb::environment
