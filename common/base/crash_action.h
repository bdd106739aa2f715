// What a test has happen at a crash point (crash_point.h) in the place of the process's death: a
// folder that goes away in the middle of a write, say.
//
// Thread safety: safe; the action runs on the thread that comes to the point. Ownership: the action
// is kept until it ran. Errors: what it throws comes out of the point. For tests alone.
#pragma once

#include <functional>
#include <string>

namespace plumb {

// As ArmCrashPointForTest, which it takes the place of.
void ActAtCrashPointForTest(const std::string& name, std::function<void()> action, int nth = 1);

}  // namespace plumb
