// What ranks that share out experts (run.parallel, ep) and experts that are updated less often
// (experts.sync_every) do not do together with other options.
//
// Thread safety: pure functions. Errors: kUnsupported naming both options and what to do instead.
#pragma once

#include "configs/config.h"
#include "configs/parallel.h"

namespace plumb::configs {

void CheckExpertRanks(const Config& config, const Parallel& parallel);
// Of experts.sync_every above 1.
void CheckExpertSync(const Config& config);

}  // namespace plumb::configs
