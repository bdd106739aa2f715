// Names of other systems that say more, or something else, than ours: what the options become.
//
// Purpose: TRL's epsilon bounds both sides, verl counts minibatches in prompts and switches its KL
// by two flags, and values of both bring usual values of other options along; once all options are
// read, these take their meaning. Each origin says what the
// value was made of. Thread safety: pure functions. Errors: none; what is wrong becomes a problem.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "configs/config.h"
#include "configs/foreign/foreign_paths.h"

namespace plumb::configs {

// The name that the last mention of an option used, by the option.
using GivenNames = std::map<std::string, std::string>;

void ResolveForeignNames(const GivenNames& given, const ForeignMentions& mentions, Origins& origins,
                         std::vector<std::string>& problems, Config& config);

}  // namespace plumb::configs
