// The words in which weights travel from learner to actors: verbs `weights.await`,
// `weights.bytes`, `weights.lend` and `weights.return`.
//
//   await request  the version held         -> an offer of another one, as soon as there is one;
//                                           else
//                                              no answer
//   offer          a version and its sets: name, digest and bytes of each
//   bytes request  the digest of a set      -> the bytes of its flat buffer, raw; kNotFound: of no
//                                           set
//                                              of the newest version, await again
//   lend request   the digest of a set      -> a handle (kernels/device/lent_memory.h) to copy it
//   by
//                                           on this machine; kNotFound: as above, or it has to be
//                                           asked for as bytes
//   return request the digest of that set   -> nothing: it has been copied
//
// With run.relay or run.weight_deltas sets travel in the blocks of their digest
// (common/base/hash/digest.h), from the learner and from actors that have them
// (common/net/weights/block_shelf.h):
//
//   leaves request the digest of a set      -> the hashes of its blocks, raw; kNotFound: as above
//   blocks request BlocksQuestion           -> some of these blocks, at least one, each as
//                                              common/net/weights/block_change.h has it; none: not
//                                              here yet, ask again; kNotFound: nor will they be
//   here request   nothing                  -> nothing: it can be reached
//
// Common/rpc moves a reply of any size in pieces; a set that did not change is not fetched again.
// Version -1 (with no digest): none.
// Thread safety: pure functions. Errors: kCorruption for bytes that do not say what their header
// promises.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/hash/digest.h"
#include "common/record/payload.h"
#include "common/record/ports.h"

namespace plumb::weight_wire {

inline constexpr char kAwaitVerb[] = "weights.await";
inline constexpr char kBytesVerb[] = "weights.bytes";
inline constexpr char kLendVerb[] = "weights.lend";
inline constexpr char kReturnVerb[] = "weights.return";
inline constexpr char kLeavesVerb[] = "weights.leaves";
inline constexpr char kBlocksVerb[] = "weights.blocks";
inline constexpr char kHereVerb[] = "weights.here";
inline constexpr size_t kMaxSets = 64;
inline constexpr uint32_t kMaxBlocks = 1024;  // of one answer

std::string EncodeVersion(const PolicyVersion& version);
PolicyVersion DecodeVersion(std::string_view bytes);
std::string EncodeOffer(const WeightOffer& offer);
// Of a version, not of none.
WeightOffer DecodeOffer(std::string_view bytes);

// An actor that hands weights on.
struct Place {
  std::string name, endpoint;
  std::string key;  // its public key; empty: it has none
  bool operator==(const Place&) const = default;
};

struct BlocksQuestion {
  std::string who;  // the actor, for whom the set is kept until it has it
  int64_t version = -1;
  Digest set;
  Digest
      base;  // what `who` has of that set: blocks may come as what has changed since; empty: none
  uint64_t first = 0;  // block
  uint32_t most = 1;   // blocks
  uint8_t more = 0;    // 1: it will want others behind these
  template <class Self, class Visit>
  static void Fields(Self& q, Visit visit) {
    visit(q.who, q.version, q.set, q.base, q.first, q.most, q.more);
  }
};
std::string EncodeBlocksQuestion(const BlocksQuestion& question);
BlocksQuestion DecodeBlocksQuestion(std::string_view bytes);
struct BlockOnWire {
  Payload bytes;
  bool raw = false;  // a block as it lies in memory; else as block_change.h has it
};
std::string EncodeBlocks(std::span<const BlockOnWire> blocks);
// As block_change.h has them, all of them.
std::vector<Payload> DecodeBlocks(const Payload& bytes);
std::string EncodeLeaves(std::span<const BlockHash> leaves);
// Those of a set of so many bytes and of that digest.
std::vector<BlockHash> DecodeLeaves(std::string_view bytes, const Digest& set, uint64_t set_bytes);

}  // namespace plumb::weight_wire
