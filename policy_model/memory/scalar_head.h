// Models with a scalar head in place of the LM head: reward models and critics that start from a
// policy.
//
// Thread safety: pure functions of their arguments. Ownership: what is made has memory of its own.
// Errors: those of the device's memory.
#pragma once

#include "policy_model/memory/weights.h"

namespace plumb::policy_model {

// A model of the same trunk with a scalar head in place of the LM head: a reward model or critic
// that starts from a policy. Trunk: the policy's bits. Head: Normal(0, 1 / sqrt(H + 1)) keyed by
// `seed`, the usual start of such a head.
Weights ScalarHeadFrom(const Weights& policy, uint64_t seed);
// A scalar head alone, for a trunk that it shares with `policy` (Transformer::HeadValues): a model
// without layers, of which only the head is used. Drawn like the head above. Its folders are of
// Plumb's own family whatever the policy's is.
Weights ValueHeadFor(const Weights& policy, uint64_t seed);

}  // namespace plumb::policy_model
