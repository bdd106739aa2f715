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
// Common/rpc moves a reply of any size in pieces; a set that did not change is not fetched again.
// Version -1 (with no digest): none. Non-goal: compression.
// Thread safety: pure functions. Errors: kCorruption for bytes that do not say what their header
// promises.
#pragma once

#include <string>
#include <string_view>

#include "common/record/ports.h"

namespace plumb::weight_wire {

inline constexpr char kAwaitVerb[] = "weights.await";
inline constexpr char kBytesVerb[] = "weights.bytes";
inline constexpr char kLendVerb[] = "weights.lend";
inline constexpr char kReturnVerb[] = "weights.return";
inline constexpr size_t kMaxSets = 64;

std::string EncodeVersion(const PolicyVersion& version);
PolicyVersion DecodeVersion(std::string_view bytes);
std::string EncodeOffer(const WeightOffer& offer);
// Of a version, not of none.
WeightOffer DecodeOffer(std::string_view bytes);

}  // namespace plumb::weight_wire
