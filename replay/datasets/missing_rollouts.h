// Why a store holds no groups of rollouts that could be mined or exported, and what to do.
//
// Purpose: `data mine` and `data export` say the same. Thread safety: pure function of the store,
// which may be open for reading only. Errors: those of Store.
#pragma once

#include <string>

#include "replay/store/store.h"

namespace plumb::replay {

// REQUIRES: no group of this purpose was found in `store`.
std::string WhyNoRollouts(const Store& store, Purpose purpose);

}  // namespace plumb::replay
