// What an engine's options come to for a model: checked, and its memory divided into pools of
// pages.
//
// Thread safety: pure functions. Ownership: none.
// Errors: kInvalidArgument with the option's key in a recipe.
#pragma once

#include <array>
#include <string>

#include "actor/engine.h"
#include "actor/group.h"
#include "actor/pages/page_pools.h"

namespace plumb::actor {

[[noreturn]] void BadEngineOption(const std::string& name, const std::string& why);
// The options, where they can be.
EngineOptions Checked(EngineOptions o, const policy_model::ModelShape& shape);
// On a GPU all rows of states are there from the start, so that there are as many slots as the
// budget has room for; on the CPU a row that is never used takes nothing, and slots stay as they
// are.
EngineOptions WithRoomForStates(EngineOptions o, const policy_model::ModelShape& shape,
                                Device device, DType dtype);
// Tokens that a running sample computes at a time where layers slide: a page's worth costs a ring
// one page more.
int32_t AppendTokens(const EngineOptions& o);
PageDemand DemandOf(const policy_model::ModelShape& shape, Device device, const EngineOptions& o);
std::array<PagePool, kPageKinds> PoolsOf(const policy_model::ModelShape& shape, Device device,
                                         DType dtype, const EngineOptions& o);
// The shape as a pool of pages sees it.
policy_model::ModelShape OfLayers(policy_model::ModelShape shape, const PagePool& pool);
// Why prompts of this model cannot share what they begin with, one clause; "": they can.
std::string WhyNotShared(const policy_model::ModelShape& shape, const EngineOptions& o,
                         const std::array<PagePool, kPageKinds>& pools);
// Whether the options leave tokens out.
bool Filters(const kernels::SamplingOptions& o);

}  // namespace plumb::actor
