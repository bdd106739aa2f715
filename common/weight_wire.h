// The words in which weights travel from learner to actors: verbs `weights.await` and
// `weights.bytes`.
//
//   await request  the version held   -> another one, as soon as there is one; else no answer
//   bytes request  the version wanted -> the bytes of its flat buffer, raw; kNotFound: no longer
//                                        the newest, await again
//
// Common/rpc moves a reply of any size in pieces. Version -1 (with no digest): none.
// Non-goals: compression, partial updates.
// Thread safety: pure functions. Errors: kCorruption for bytes that do not say what their header promises.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "common/trajectory.h"

namespace plumb::weight_wire {

inline constexpr char kAwaitVerb[] = "weights.await";
inline constexpr char kBytesVerb[] = "weights.bytes";

std::string EncodeVersion(const PolicyVersion& version);
PolicyVersion DecodeVersion(std::string_view bytes);

}  // namespace plumb::weight_wire
