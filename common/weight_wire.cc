#include "common/weight_wire.h"

#include "common/wire_fields.h"

namespace plumb::weight_wire {
namespace {

constexpr size_t kMaxDigestBytes = 128;

struct Version {
  PolicyVersion policy;
  template <class Self, class Visit>
  static void Fields(Self& v, Visit visit) {
    visit(v.policy.version, v.policy.digest);
  }
};

}  // namespace

std::string EncodeVersion(const PolicyVersion& version) { return EncodeFields(Version{version}); }

PolicyVersion DecodeVersion(std::string_view bytes) {
  PolicyVersion version = DecodeFields<Version>(bytes, "a message about weights").policy;
  if (version.version < -1 || version.digest.size() > kMaxDigestBytes ||
      (version.version == -1 && !version.digest.empty())) {
    throw Error(ErrorCode::kCorruption, "a message about weights of version " +
                                            std::to_string(version.version) + " with a digest of " +
                                            std::to_string(version.digest.size()) + " bytes");
  }
  return version;
}

}  // namespace plumb::weight_wire
