#include "common/net/weight_wire.h"

#include <algorithm>
#include <cstring>

#include "common/net/weights/block_change.h"
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

std::string EncodeBlocksQuestion(const BlocksQuestion& question) { return EncodeFields(question); }

BlocksQuestion DecodeBlocksQuestion(std::string_view bytes) {
  const char* const what = "a question for blocks of weights";
  BlocksQuestion question = DecodeFields<BlocksQuestion>(bytes, what);
  if (question.who.size() > kMaxTextBytes || question.version < 0 ||
      question.set.size() > kMaxTextBytes || question.base.size() > kMaxTextBytes ||
      question.most < 1 || question.most > kMaxBlocks) {
    throw Error(ErrorCode::kCorruption,
                std::string(what) + " of version " + std::to_string(question.version) +
                    " asks for " + std::to_string(question.most) + " blocks, or names too much");
  }
  return question;
}

std::string EncodeBlocks(std::span<const BlockOnWire> blocks) {
  std::string out;
  size_t bytes = sizeof(uint32_t);
  for (const BlockOnWire& block : blocks) bytes += block.bytes.size() + sizeof(uint32_t) + 1;
  out.reserve(bytes);
  PutField(static_cast<uint32_t>(blocks.size()), out);
  for (const BlockOnWire& block : blocks) {
    PutField(static_cast<uint32_t>(block.bytes.size() + (block.raw ? 1 : 0)), out);
    if (block.raw) out.push_back(kRawBlock);
    out.append(block.bytes.view());
  }
  return out;
}

std::vector<Payload> DecodeBlocks(const Payload& bytes) {
  constexpr size_t kHead = sizeof(uint32_t);
  const auto refuse = [] {
    throw Error(ErrorCode::kCorruption, "an answer with blocks of weights is cut or too long");
  };
  size_t at = 0;
  const auto number = [&] {
    uint32_t n = 0;
    if (bytes.size() - at < kHead) refuse();
    std::memcpy(&n, bytes.view().data() + at, kHead);
    at += kHead;
    return n;
  };
  const uint32_t count = number();
  if (count > kMaxBlocks) refuse();
  std::vector<Payload> blocks;
  for (uint32_t i = 0; i < count; ++i) {
    const uint32_t n = number();
    if (n > bytes.size() - at || n > kDigestBlockBytes + 1) refuse();
    blocks.push_back(bytes.Part(at, n));
    at += n;
  }
  if (at != bytes.size()) refuse();
  return blocks;
}

std::string EncodeLeaves(std::span<const BlockHash> leaves) {
  return std::string(reinterpret_cast<const char*>(leaves.data()), leaves.size_bytes());
}

std::vector<BlockHash> DecodeLeaves(std::string_view bytes, const Digest& set, uint64_t set_bytes) {
  const uint64_t blocks = (set_bytes + kDigestBlockBytes - 1) / kDigestBlockBytes;
  std::vector<BlockHash> leaves(bytes.size() / sizeof(BlockHash));
  if (bytes.size() % sizeof(BlockHash) == 0 && leaves.size() == blocks) {
    if (!bytes.empty()) std::memcpy(leaves.data(), bytes.data(), bytes.size());
    if (CombineBlocks(leaves, set_bytes) == set) return leaves;
  }
  throw Error(ErrorCode::kCorruption, "the hashes of a set's blocks, " +
                                          std::to_string(bytes.size()) +
                                          " bytes, have not the digest " + set);
}

}  // namespace plumb::weight_wire
