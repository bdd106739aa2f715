// Where the reward role's warnings go: of each topic (a part's name) at most five a second and
// fifty a minute, one line each; what was left out is counted in its next line.
// Thread safety: any thread. Ownership: the sink is copied.
#pragma once

#include <functional>
#include <string>

namespace plumb::reward {

void Notice(const std::string& line, const std::string& topic = "");
// For what must not be left out: the end of a run, a stall.
void UrgentNotice(const std::string& line);
// Replaces the sink (common/base/log unless set), with nothing counted against any topic yet;
// returns the former. For tests.
std::function<void(const std::string&)> SetNoticeSink(std::function<void(const std::string&)> sink);

}  // namespace plumb::reward
