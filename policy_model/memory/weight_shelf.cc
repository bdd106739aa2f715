#include "policy_model/memory/weight_shelf.h"

#include <cstring>

#include "common/base/error.h"
#include "common/base/log.h"

namespace plumb::policy_model {

void WeightShelf::Put(std::span<const WeightSet> sets) {
  MutexLock lock(mu_);
  const Deadline until = After(patience_);
  for (const WeightSet& set : sets) {
    Place& place = places_[set.name];
    if (set.bytes.empty()) {
      PLUMB_CHECK(place.digest == set.digest,
                  "a set without bytes that the version before does not have: " + set.name);
      continue;
    }
    if (!returned_.wait_until(lock, until,
                              [&]() PLUMB_REQUIRES(mu_) { return place.readers == 0; })) {
      LogWarning("the weights of '" + set.name +
                 "' are replaced while an actor seems to read them: it takes the next version");
      place.readers = 0;
    }
    place.digest.clear();
    if (!place.memory || place.memory->bytes() != set.bytes.size() ||
        place.memory->device() != set.device)
      place.memory = std::make_unique<kernels::LentMemory>(set.device, set.bytes.size());
    if (set.device.is_cpu()) {
      std::memcpy(place.memory->data(), set.bytes.data(), set.bytes.size());
    } else {
      const auto stream = streams_.try_emplace(set.device.ordinal, set.device).first;
      kernels::CopyAndWait(stream->second, place.memory->data(), set.bytes.data(),
                           set.bytes.size());
    }
    place.digest = set.digest;
  }
}

WeightShelf::Place* WeightShelf::Find(const Digest& set) {
  for (auto& [name, place] : places_) {
    if (place.digest == set) return &place;
  }
  return nullptr;
}

std::optional<uint64_t> WeightShelf::Size(const Digest& set) {
  MutexLock lock(mu_);
  const Place* place = Find(set);
  return place ? std::optional<uint64_t>(place->memory->bytes()) : std::nullopt;
}

std::optional<std::string> WeightShelf::Lend(const Digest& set) {
  MutexLock lock(mu_);
  Place* place = Find(set);
  if (place == nullptr) return std::nullopt;
  ++place->readers;
  return place->memory->handle();
}

void WeightShelf::Return(const Digest& set) {
  {
    MutexLock lock(mu_);
    Place* place = Find(set);
    if (place != nullptr && place->readers > 0) --place->readers;
  }
  returned_.notify_all();
}

bool WeightShelf::Read(const Digest& set, std::span<std::byte> into) {
  MutexLock lock(mu_);
  const Place* place = Find(set);
  if (place == nullptr) return false;
  PLUMB_CHECK(into.size() == place->memory->bytes());
  if (place->memory->device().is_cpu()) {
    std::memcpy(into.data(), place->memory->data(), into.size());
  } else {
    kernels::CopyAndWait(streams_.at(place->memory->device().ordinal), into.data(),
                         place->memory->data(), into.size());
  }
  return true;
}

}  // namespace plumb::policy_model
