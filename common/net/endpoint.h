// Where sockets may be: a private folder (ipc) or the loopback (tcp); elsewhere only behind keys.
// Thread safety: pure functions.
#pragma once

#include <string>

namespace plumb {

// Throws kInvalidArgument for an endpoint that is malformed or whose ipc path is longer than 107
// bytes, kUnsupported for one that somebody else could reach: tcp beyond the loopback, an ipc
// folder that is not ours alone (0700).
//   ipc:///absolute/path      tcp://127.0.0.1:PORT      tcp://[::1]:PORT      (bind: PORT may be *)
// With `keyed`, the socket's peers prove CURVE keys (common/net/curve_keys.h), or a person said
// that they need none: then tcp may be any address, name or, to bind, *.
void CheckEndpoint(const std::string& endpoint, bool bind, bool keyed = false);

// Creates `folder` (and what is above it) for this user alone; kUnsupported when it exists and
// others can reach it.
void MakePrivateFolder(const std::string& folder);

}  // namespace plumb
