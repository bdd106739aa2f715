// The address of this machine by which it talks to another one.
//
// Purpose: where a process that joins others may listen for those who can reach it in turn; of
// several networks it is that of the way to the other one. Nothing is sent.
// Thread safety: pure function of the system's routes. Errors: kUnavailable where the name is not
// known or no way leads there.
#pragma once

#include <string>

namespace plumb {

// "10.0.0.3", or "[fe80::3]" as endpoints have it. `host`: a name, or an address as endpoints have
// it.
std::string LocalAddressTowards(const std::string& host);

}  // namespace plumb
