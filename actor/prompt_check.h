// What a prompt's tokens say of it: its task, where a policy has several, and whether they are any.
//
// Purpose: a request of the engine learns its task from its first tokens; these stay where the
// policy has learned them. Thread safety: a pure function of its arguments. Errors: what is wrong
// with the prompt, as a sentence.
#pragma once

#include <cstdint>

#include "actor/sequence.h"
#include "common/base/problem.h"

namespace plumb::actor {

// Sets request.task. `tasks`: how many the policy has; 0: none. `task_tokens`: learned ones of
// each.
Problem TakeTask(GenerateRequest& request, int32_t tasks, int32_t task_tokens);
// A token that the vocabulary does not have.
Problem ForeignToken(const GenerateRequest& request, int64_t vocab);

}  // namespace plumb::actor
