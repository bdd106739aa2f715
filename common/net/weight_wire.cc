#include "common/net/weight_wire.h"

#include <algorithm>

#include "common/net/wire_fields.h"

namespace plumb::weight_wire {
namespace {

constexpr size_t kMaxTextBytes = 128;  // of a digest, or of a set's name

struct Version {
  PolicyVersion policy;
  template <class Self, class Visit>
  static void Fields(Self& v, Visit visit) {
    visit(v.policy.version, v.policy.digest);
  }
};

void Check(const PolicyVersion& version, int64_t least) {
  if (version.version >= least && version.digest.size() <= kMaxTextBytes &&
      (version.version >= 0 || version.digest.empty()))
    return;
  throw Error(ErrorCode::kCorruption, "a message about weights of version " +
                                          std::to_string(version.version) + " with a digest of " +
                                          std::to_string(version.digest.size()) + " bytes");
}

}  // namespace

std::string EncodeVersion(const PolicyVersion& version) { return EncodeFields(Version{version}); }

PolicyVersion DecodeVersion(std::string_view bytes) {
  PolicyVersion version = DecodeFields<Version>(bytes, "a message about weights").policy;
  Check(version, -1);
  return version;
}

std::string EncodeOffer(const WeightOffer& offer) { return EncodeFields(offer); }

WeightOffer DecodeOffer(std::string_view bytes) {
  WeightOffer offer = DecodeFields<WeightOffer>(bytes, "an offer of weights");
  Check(offer.version, 0);
  const bool sound = std::all_of(offer.sets.begin(), offer.sets.end(), [](const OfferedSet& set) {
    return set.name.size() <= kMaxTextBytes && set.digest.size() <= kMaxTextBytes;
  });
  if (!sound || offer.sets.empty() || offer.sets.size() > kMaxSets) {
    throw Error(ErrorCode::kCorruption,
                "an offer of weights of version " + std::to_string(offer.version.version) +
                    " has " + std::to_string(offer.sets.size()) +
                    " sets, or one with a name or digest of too many bytes");
  }
  return offer;
}

}  // namespace plumb::weight_wire
