// How many threads the calling thread computes with.
//
// Purpose: SetThreads (transformer.h) says it once for a process, where that begins; roles that are
// threads of one process and compute at the same time share its cores with this. Bit-identity holds
// at equal thread count. Thread safety: a thread speaks for itself; what another uses does not
// change.
#pragma once

namespace plumb::policy_model {

// REQUIRES: threads > 0.
void UseThreads(int threads);

}  // namespace plumb::policy_model
