// The folder of CURVE keys of a cluster: one pair for the head, one for each kind of role.
//
//   head.key  head.pub          the head keeps the first, roles have the second
//   actor.key actor.pub         the first belongs to machines with actors, and so on
//   reward.key reward.pub
//   actor.allowed reward.allowed   public keys that the head lets in as that role, one a line; a
//                                  line taken out counts at once (common/net/curve_keys.h)
//
// A role's machine needs head.pub and its own .key. Who is in no list is not let in and counted.
// Thread safety: pure functions of their files. Errors: those of the keys; kUnsupported for an
// address beyond the loopback without keys, unless a person said so.
#pragma once

#include <string>

#include "common/net/curve_keys.h"
#include "run/roles/cluster/member_kind.h"

namespace plumb::run {

// Makes the folder (0700) and all of the above in it; kConflict where a key is there already.
void WriteClusterKeys(const std::string& folder);

// Who may come in at which of the head's doors.
struct HeadDoors {
  CurveServer all, actors, rewards;
};
// `keys`: the folder; empty: no keys. `insecure`: a person wants none beyond the loopback.
HeadDoors ReadHeadDoors(const std::string& keys, const std::string& listen, bool insecure);
CurveClient ReadMemberKeys(const std::string& keys, MemberKind kind, const std::string& join,
                           bool insecure);

// "tcp://host:port" in two; the port may be "*". kInvalidArgument for another form.
struct TcpAddress {
  std::string host, port;
  // The port `offset` behind this one ("*" stays).
  std::string At(int offset) const;
};
TcpAddress ReadTcpAddress(const std::string& endpoint, const std::string& where);

}  // namespace plumb::run
