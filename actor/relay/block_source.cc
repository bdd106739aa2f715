#include "actor/relay/block_source.h"

#include <algorithm>
#include <cstring>
#include <thread>
#include <utility>

#include "common/base/error.h"
#include "common/base/size_text.h"
#include "common/net/weights/block_change.h"

namespace plumb::actor {
namespace {

using std::chrono::milliseconds;
using Clock = std::chrono::steady_clock;
constexpr milliseconds kLearner{60'000};  // for an answer of the learner, behind which is nobody
// An answer is handed on as a whole: it is to take about so long, that those below begin soon.
constexpr milliseconds kQuick{100};  // one that took less may be larger the next time
constexpr milliseconds kLong{400};   // one that took more has to be smaller
constexpr milliseconds kPause{10};   // behind one that had nothing
constexpr uint32_t kMostBlocks = 8;
constexpr size_t kMaxComplaints = 64;
constexpr double kMuchFaster = 4;  // then the next place is worth the change

// How fast a place answers.
struct Pace {
  double bytes = 0, seconds = 0;
  double rate() const { return bytes / std::max(1e-6, seconds); }
  std::string text() const { return SizeText(static_cast<int64_t>(rate())) + "/s"; }
};

// Of a block that is not kept: only that it has come.
const Payload& Came() {
  static const Payload came{std::string(1, '+')};
  return came;
}

Error Ended() { return Error(ErrorCode::kUnavailable, "the actor ends: no weights are fetched"); }

std::string ClientKey(const weight_wire::Place& place) { return place.endpoint + " " + place.key; }

}  // namespace

BlockSource::BlockSource(const std::string& learner, RpcClientOptions rpc,
                         BlockSourceOptions options)
    : rpc_(rpc), options_(std::move(options)), learner_(learner, std::move(rpc)) {
  for (const char* name :
       {"actor/weight_bytes", "actor/weight_bytes_saved", "actor/weights_elsewhere"})
    counters_[name] = 0;
}

BlockSource::~BlockSource() = default;

void BlockSource::SetPlaces(std::vector<weight_wire::Place> places, bool hands_on) {
  MutexLock lock(mu_);
  places_ = std::move(places);
  hands_on_ = hands_on;
}

std::vector<std::string> BlockSource::TakeComplaints() {
  MutexLock lock(mu_);
  return std::exchange(complaints_, {});
}

std::map<std::string, int64_t> BlockSource::counters() const {
  MutexLock lock(mu_);
  return counters_;
}

void BlockSource::Stop() {
  learner_.Close();
  MutexLock lock(mu_);
  stopped_ = true;
  for (const auto& [key, client] : clients_) client->Close();
}

void BlockSource::CheckStopped() const {
  MutexLock lock(mu_);
  if (stopped_) throw Ended();
}

void BlockSource::Count(const char* name, int64_t n) {
  MutexLock lock(mu_);
  counters_[name] += n;
}

std::optional<WeightOffer> BlockSource::Await(const PolicyVersion& held, Deadline deadline) {
  if (options_.shelf) options_.shelf->Close();  // what there was to fetch is here
  WeightOffer offer;
  try {
    offer = weight_wire::DecodeOffer(
        learner_.Call(weight_wire::kAwaitVerb, weight_wire::EncodeVersion(held), deadline));
  } catch (const Error& e) {
    if (e.code() != ErrorCode::kDeadline) throw;
    return std::nullopt;
  }
  std::vector<Digest> again;  // of an offer that was not taken over to its end
  if (offer_ && offer_->version == offer.version) {
    for (const OfferedSet& set : offer.sets) again.push_back(set.digest);
  } else {
    // A set that a new version has as it was is not trained, and will not be asked for.
    for (const OfferedSet& set : offer.sets) {
      const auto kept = kept_.find(set.name);
      if (kept != kept_.end() && kept->second.digest == set.digest) kept_.erase(kept);
    }
    ++versions_;
  }
  offer_ = offer;
  if (options_.shelf) {
    options_.shelf->Open(offer.version.version, again);
    if (!HandsOn()) options_.shelf->Close();
  }
  return offer;
}

bool BlockSource::HandsOn() const {
  MutexLock lock(mu_);
  return options_.shelf != nullptr && (hands_on_ || versions_ == 1);
}

std::vector<weight_wire::Place> BlockSource::Places() {
  MutexLock lock(mu_);
  const auto now = Clock::now();
  std::erase_if(left_, [&](const Left& each) { return now - each.when > options_.forgive; });
  std::vector<weight_wire::Place> places;
  for (const weight_wire::Place& place : places_) {
    const bool left = std::any_of(left_.begin(), left_.end(),
                                  [&](const Left& each) { return each.name == place.name; });
    if (!left) places.push_back(place);
  }
  std::erase_if(clients_, [&](const auto& each) {
    return std::none_of(places.begin(), places.end(),
                        [&](const auto& place) { return ClientKey(place) == each.first; });
  });
  return places;
}

void BlockSource::Leave(const weight_wire::Place& place, const std::string& why, bool complain) {
  LogWarning("weights come from elsewhere than " + place.name + ": " + why);
  MutexLock lock(mu_);
  ++counters_["actor/weights_elsewhere"];
  left_.push_back({place.name, Clock::now()});
  if (complain && complaints_.size() < kMaxComplaints) complaints_.push_back(place.name);
}

BlockSource::Answer BlockSource::Ask(const weight_wire::Place* place,
                                     const weight_wire::BlocksQuestion& question, bool compares) {
  RpcClient* client = &learner_;
  const auto asked = Clock::now();
  try {
    if (place) {
      MutexLock lock(mu_);
      if (stopped_) throw Ended();
      auto& own = clients_[ClientKey(*place)];
      if (!own) {
        RpcClientOptions rpc = rpc_;
        if (!place->key.empty()) rpc.curve.server_key = place->key;
        own = std::make_unique<RpcClient>(place->endpoint, std::move(rpc));
      }
      client = own.get();
    }
    Answer answer{
        .got = Got::kSome,
        .blocks = weight_wire::DecodeBlocks(client->CallPayload(
            weight_wire::kBlocksVerb, Payload(weight_wire::EncodeBlocksQuestion(question)),
            After(place ? options_.silence : kLearner))),
        .why = {}};
    const auto took = Clock::now() - asked;
    answer.seconds = std::chrono::duration<double>(took).count();
    if (answer.blocks.empty()) answer.got = Got::kNothingYet;
    else if (took < kQuick) most_ = std::min(2 * most_, kMostBlocks);
    else if (took > kLong) most_ = std::max(most_ / 2, 1u);
    if (answer.blocks.size() > question.most)
      return {.got = Got::kWrong, .blocks = {}, .why = "it sent more blocks than were asked for"};
    return answer;
  } catch (const Error& e) {
    if (e.code() == ErrorCode::kNotFound) return {.got = Got::kGone, .blocks = {}, .why = e.what()};
    if (!place && !compares) throw;
    const bool silent = e.code() == ErrorCode::kDeadline || e.code() == ErrorCode::kUnavailable;
    most_ = 1;
    return {.got = silent ? Got::kSilent : Got::kWrong, .blocks = {}, .why = e.what()};
  }
}

bool BlockSource::Take(const Payload& encoded, size_t block, const Kept* base, Kept& arriving,
                       std::span<std::byte> into, bool hands_on) {
  const size_t at = block * kDigestBlockBytes;
  const std::span<std::byte> to = into.subspan(at, std::min(kDigestBlockBytes, into.size() - at));
  const std::string_view whole = WholeBlock(encoded);
  DecodeBlock(encoded,
              base && whole.empty() ? base->blocks[block].bytes() : std::span<const std::byte>(),
              to);
  if (HashBlock(to) != arriving.leaves[block]) return false;
  const bool keeps = options_.changes || hands_on;
  if (!keeps) {
    arriving.blocks[block] = Came();
    return true;
  }
  const size_t skip = encoded.size() - whole.size();
  Payload plain = whole.empty()
                      ? Payload(std::string(reinterpret_cast<const char*>(to.data()), to.size()))
                      : encoded.Part(skip, whole.size());
  arriving.blocks[block] = plain;
  if (hands_on) {
    options_.shelf->Put(arriving.digest, block, std::move(plain),
                        whole.empty() ? encoded : Payload());
  }
  return true;
}

bool BlockSource::Read(const Digest& digest, std::span<std::byte> into) {
  if (!offer_) return false;
  const auto offered = std::find_if(offer_->sets.begin(), offer_->sets.end(),
                                    [&](const OfferedSet& set) { return set.digest == digest; });
  if (offered == offer_->sets.end()) return false;
  Kept arriving{.digest = digest, .leaves = {}, .blocks = {}};
  try {
    arriving.leaves = weight_wire::DecodeLeaves(
        learner_.CallPayload(weight_wire::kLeavesVerb, Payload(digest), After(kLearner)), digest,
        into.size());
  } catch (const Error& e) {
    if (e.code() != ErrorCode::kNotFound) throw;
    return false;
  }
  const size_t blocks = arriving.leaves.size();
  arriving.blocks.resize(blocks);
  const auto found = kept_.find(offered->name);
  const Kept* base =
      options_.changes && found != kept_.end() && found->second.leaves.size() == blocks
          ? &found->second
          : nullptr;
  const bool hands_on = HandsOn();
  if (hands_on) {
    options_.shelf->Begin(offered->name, digest, into.size(), base ? base->digest : Digest());
  }
  int64_t came = 0;
  for (size_t i = 0; base && i < blocks; ++i) {
    if (base->leaves[i] != arriving.leaves[i]) continue;
    const Payload& block = base->blocks[i];
    std::memcpy(into.data() + i * kDigestBlockBytes, block.view().data(), block.size());
    arriving.blocks[i] = block;
    if (hands_on) options_.shelf->Put(digest, i, block, Payload(SameBlock()));
  }
  const auto missing = [&](size_t from) {
    while (from < blocks && arriving.blocks[from].size() > 0) ++from;
    return from;
  };
  std::vector<weight_wire::Place> places = Places();
  size_t place = 0;
  Pace pace;  // of that place
  const double compare_after = std::chrono::duration<double>(options_.compare_after).count();
  auto progress = Clock::now();
  for (size_t next = missing(0); next < blocks;) {
    size_t end = next + 1;
    while (end < blocks && end - next < most_ && arriving.blocks[end].size() == 0) ++end;
    const weight_wire::BlocksQuestion question{.who = options_.who,
                                               .version = offer_->version.version,
                                               .set = digest,
                                               .base = base ? base->digest : Digest(),
                                               .first = next,
                                               .most = static_cast<uint32_t>(end - next),
                                               .more = missing(end) < blocks};
    // One that has taken long is compared with the next one above, which is asked once.
    const bool compares = place < places.size() && pace.seconds > compare_after;
    const size_t whom = compares ? place + 1 : place;
    const weight_wire::Place* at = whom < places.size() ? &places[whom] : nullptr;
    Answer answer = Ask(at, question, compares);
    bool wrong = answer.got == Got::kWrong;
    Pace here{.bytes = 0, .seconds = answer.seconds};
    try {
      for (size_t i = 0; i < answer.blocks.size() && !wrong; ++i) {
        wrong = !Take(answer.blocks[i], next + i, base, arriving, into, hands_on);
        if (wrong) answer.why = "a block has not the bytes that the learner's hash is of";
        else here.bytes += static_cast<double>(answer.blocks[i].size());
      }
    } catch (const Error& e) {
      wrong = true;
      answer.why = e.what();
    }
    came += static_cast<int64_t>(here.bytes);
    const size_t before = std::exchange(next, missing(next));
    if (next > before) progress = Clock::now();
    const bool fine = answer.got == Got::kSome && !wrong;
    CheckStopped();  // a place that is silent because of that is not to blame
    if (compares) {
      if (fine && here.rate() > kMuchFaster * pace.rate()) {
        Leave(places[place], "it is slow: " + pace.text() + ", the next one " + here.text(), false);
        ++place;
      }
      pace = {};
      continue;
    }
    if (fine) {
      pace.bytes += here.bytes;
      pace.seconds += here.seconds;
    }
    if (!at) {
      if (wrong) LogWarning("the learner's weights are asked for again: " + answer.why);
      // It has all of what it offers: there is a newer version, or it has gone back to an older.
      if (wrong || answer.got != Got::kSome) return false;
      continue;
    }
    if (answer.got == Got::kNothingYet) {
      std::this_thread::sleep_for(kPause);
      if (Clock::now() - progress < options_.patience) continue;
      answer.why = "it had nothing for " + std::to_string(options_.patience.count()) + " ms";
    } else if (fine) {
      continue;
    }
    // One that let the set go, or never had it, may have the next version.
    if (answer.got != Got::kGone) Leave(*at, answer.why, wrong || answer.got == Got::kSilent);
    ++place;
    pace = {};
    progress = Clock::now();
  }
  const auto bytes = static_cast<int64_t>(into.size());
  Count("actor/weight_bytes", came);
  if (base) Count("actor/weight_bytes_saved", std::max<int64_t>(0, bytes - came));
  if (options_.changes) kept_[offered->name] = std::move(arriving);
  return true;
}

}  // namespace plumb::actor
