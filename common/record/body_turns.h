// The turns of an answer as a group's body holds them (common/record/schema/trajectory.fbs,
// BodyTurn).
//
// Purpose: the part of common/record/group_body.cc that is of conversations. Thread safety: pure
// functions. Ownership: results own their values. Errors: TurnsProblem says what cannot be.
#pragma once

#include <flatbuffers/flatbuffers.h>

#include <cstdint>
#include <span>

#include "common/base/problem.h"
#include "common/record/schema/trajectory_generated.h"
#include "common/record/trajectory.h"

namespace plumb {

// Nothing where the answer has none.
flatbuffers::Offset<flatbuffers::Vector<const wire::BodyTurn*>> AddTurns(
    flatbuffers::FlatBufferBuilder& builder, const Trajectory& trajectory);
// `segments`: of the answer but for the first `before`, which are the prompt's. REQUIRES: turns.
Problem TurnsProblem(const wire::BodyAnswer& answer, std::span<const Segment> segments,
                     uint32_t before);
void ReadTurns(const wire::BodyAnswer& answer, Trajectory& trajectory);

}  // namespace plumb
