#include "reward/doors/plugin_host.h"

#include <dlfcn.h>

#include <cerrno>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <exception>
#include <limits>
#include <new>
#include <string>
#include <vector>

#include "common/base/problem.h"
#include "common/sandbox/host_call.h"
#include "reward/doors/plugin_wire.h"
#include "reward/doors/reward_abi.h"
#include "reward/part/reward.h"

namespace plumb::reward {
namespace {

struct Object {
  decltype(&plumb_reward_abi_version) version = nullptr;
  decltype(&plumb_reward_open) open = nullptr;
  decltype(&plumb_reward_score) score = nullptr;
  decltype(&plumb_reward_close) close = nullptr;
  void* state = nullptr;
};

// Why the object cannot serve.
Problem Load(const HostCall& arguments, Object* object) {
  void* handle = dlopen(arguments.object.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (handle == nullptr) return std::string("cannot be loaded: ") + dlerror();
  object->version =
      reinterpret_cast<decltype(object->version)>(dlsym(handle, "plumb_reward_abi_version"));
  object->open = reinterpret_cast<decltype(object->open)>(dlsym(handle, "plumb_reward_open"));
  object->score = reinterpret_cast<decltype(object->score)>(dlsym(handle, "plumb_reward_score"));
  object->close = reinterpret_cast<decltype(object->close)>(dlsym(handle, "plumb_reward_close"));
  for (const auto& [symbol, name] :
       {std::pair{reinterpret_cast<void*>(object->version), "plumb_reward_abi_version"},
        std::pair{reinterpret_cast<void*>(object->score), "plumb_reward_score"}}) {
    if (symbol == nullptr) {
      return std::string("has no function ") + name +
             ": compile it against reward/doors/reward_abi.h, with extern \"C\" in C++";
    }
  }
  const uint32_t version = object->version();
  if (version != PLUMB_REWARD_ABI_VERSION) {
    return "was built for version " + std::to_string(version) +
           " of reward/doors/reward_abi.h, this is version " +
           std::to_string(PLUMB_REWARD_ABI_VERSION) + ": compile it again";
  }
  if (object->open != nullptr) {
    const int32_t refused = object->open(static_cast<int32_t>(arguments.rest.size()),
                                         arguments.rest.data(), &object->state);
    if (refused != 0)
      return "plumb_reward_open refused to start with code " + std::to_string(refused);
  }
  return std::nullopt;
}

std::string FailedFrame(uint64_t id, Failure failure, const std::string& message) {
  std::string body;
  Put(&body, id);
  Put<uint8_t>(&body, static_cast<uint8_t>(failure));
  PutString(&body, std::string_view(message).substr(0, kMaxMessage));
  return Frame(FrameType::kFailed, body);
}

std::string ScoreFrame(const Object& object, std::string_view body) {
  Cursor in(body);
  const uint64_t id = in.Get<uint64_t>(), count = in.Get<uint64_t>();
  // Each answer takes at least four string sizes and its number.
  if (!in.ok() || count > body.size() / 40)
    return FailedFrame(id, Failure::kBadReply, "malformed request");
  std::vector<std::string> strings;  // closed by '\0', as the interface promises
  strings.reserve(count * 4);
  std::vector<plumb_reward_item> items(count);
  for (plumb_reward_item& item : items) {
    for (plumb_reward_string* s :
         {&item.prompt, &item.completion, &item.ground_truth, &item.extra_json}) {
      strings.emplace_back(in.String());
      *s = {strings.back().c_str(), strings.back().size()};
    }
    item.sample = in.Get<uint64_t>();
  }
  if (!in.at_end()) return FailedFrame(id, Failure::kBadReply, "malformed request");
  const plumb_reward_batch batch = {sizeof(plumb_reward_batch), sizeof(plumb_reward_item), count,
                                    items.data()};
  const plumb_reward_result unset = {std::numeric_limits<double>::quiet_NaN(), PLUMB_REWARD_OK, 0,
                                     nullptr};
  std::vector<plumb_reward_result> results(count, unset);
  const int64_t returned = object.score(object.state, &batch, results.data());
  std::string out;
  Put(&out, id);
  Put(&out, returned);
  Put(&out, count);
  for (const plumb_reward_result& result : results) {
    Put(&out, result.value);
    Put(&out, result.status);
    const bool words = result.status == PLUMB_REWARD_FAILED && result.message != nullptr;
    PutString(&out,
              words ? std::string_view(result.message, strnlen(result.message, kMaxMessage)) : "");
  }
  return Frame(FrameType::kScores, out);
}

int Serve(const HostCall& arguments) {
  const auto [in, out] = TakeHostPipes();
  if (in < 0) return 2;
  Problem problem = GuardObject(arguments.sandbox);
  Object object;
  try {
    if (!problem) problem = Load(arguments, &object);
  } catch (const std::exception& e) {
    problem = std::string("threw while it was opened: ") + e.what();
  }
  std::string hello;
  Put<uint8_t>(&hello, !problem);
  PutString(&hello, problem.value_or(""));
  if (!WriteAll(out, Frame(FrameType::kHello, hello)) || problem) return 3;
  std::string header, body;
  while (ReadAll(in, kFrameHeader, &header)) {
    FrameType type;
    uint64_t size = 0;
    if (!ReadHeader(header, kMaxFrame, &type, &size) || type != FrameType::kScore ||
        !ReadAll(in, size, &body))
      return 4;
    uint64_t id = 0;
    if (size >= sizeof id) std::memcpy(&id, body.data(), sizeof id);
    std::string reply;
    try {
      reply = ScoreFrame(object, body);
    } catch (const std::bad_alloc&) {
      reply = FailedFrame(id, Failure::kMemory, "ran out of memory");
    } catch (const std::exception& e) {
      reply = FailedFrame(id, Failure::kReported, std::string("threw: ") + e.what());
    } catch (...) {
      reply = FailedFrame(id, Failure::kReported, "threw something that is no std::exception");
    }
    if (!WriteAll(out, reply)) return 5;
  }
  if (object.close != nullptr) object.close(object.state);
  return 0;
}

}  // namespace

int RewardHostMain(int argc, char** argv) { return RunHost(argc, argv, "reward-host", Serve); }

}  // namespace plumb::reward
