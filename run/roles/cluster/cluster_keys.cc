#include "run/roles/cluster/cluster_keys.h"

#include <charconv>

#include "common/base/error.h"
#include "common/base/file.h"
#include "common/net/endpoint.h"

namespace plumb::run {
namespace {

constexpr int kMaxPort = 65535;

std::string In(const std::string& folder, const std::string& file) { return folder + "/" + file; }

bool Loopback(const std::string& endpoint) {
  const TcpAddress address = ReadTcpAddress(endpoint, endpoint);
  try {
    CheckEndpoint("tcp://" + address.host + ":1", /*bind=*/false);
    return true;
  } catch (const Error&) {
    return false;
  }
}

// Without keys only the loopback, or what a person answers for.
bool Open(const std::string& endpoint, bool insecure, const char* option) {
  if (Loopback(endpoint)) return false;
  if (insecure) return true;
  throw Error(ErrorCode::kUnsupported,
              std::string("whoever reaches this address could join the run: make keys with `plumb "
                          "keys generate keys/` and name their folder (") +
                  option +
                  "); on a network where everybody is trusted --insecure goes without, unencrypted",
              endpoint);
}

}  // namespace

std::string TcpAddress::At(int offset) const {
  if (port == "*") return "tcp://" + host + ":*";
  return "tcp://" + host + ":" + std::to_string(std::stoi(port) + offset);
}

TcpAddress ReadTcpAddress(const std::string& endpoint, const std::string& where) {
  constexpr std::string_view kTcp = "tcp://";
  const size_t colon = endpoint.rfind(':');
  TcpAddress address;
  int number = 0;
  bool fine = endpoint.starts_with(kTcp) && colon > kTcp.size();
  if (fine) {
    address = {.host = endpoint.substr(kTcp.size(), colon - kTcp.size()),
               .port = endpoint.substr(colon + 1)};
    const std::string& port = address.port;
    const auto end = std::from_chars(port.data(), port.data() + port.size(), number);
    fine = port == "*" || (end.ec == std::errc() && end.ptr == port.data() + port.size() &&
                           number >= 1 && number <= kMaxPort - 4);
  }
  if (fine) return address;
  throw Error(ErrorCode::kInvalidArgument,
              "'" + endpoint + "' is not tcp://host:port with a port from 1 to 65531", where);
}

void WriteClusterKeys(const std::string& folder) {
  MakePrivateFolder(folder);
  for (const char* name : {"head", "actor", "reward"}) {
    if (RealFileSystem().Exists(In(folder, std::string(name) + ".key")))
      throw Error(ErrorCode::kConflict,
                  "is there already; a key in use is not overwritten: choose another folder",
                  In(folder, std::string(name) + ".key"));
  }
  WriteCurveKeys(In(folder, "head"), GenerateCurveKeys());
  for (const MemberKind kind : kMemberKinds) {
    const CurveKeys keys = GenerateCurveKeys();
    WriteCurveKeys(In(folder, NameOf(kind)), keys);
    RealFileSystem().WriteFileAtomic(In(folder, NameOf(kind) + ".allowed"),
                                     "# public keys that may join as " + NameOf(kind) +
                                         ", one a line\n" + keys.public_key + "\n");
  }
}

HeadDoors ReadHeadDoors(const std::string& keys, const std::string& listen, bool insecure) {
  HeadDoors doors;
  if (keys.empty()) {
    doors.all.open = doors.actors.open = doors.rewards.open = Open(listen, insecure, "run.keys");
    return doors;
  }
  const CurveKeys own = ReadCurveKeys(In(keys, "head.key"));
  const std::string actors = In(keys, "actor.allowed"), rewards = In(keys, "reward.allowed");
  doors.all = {.own = own, .allowed_file = actors, .also_allowed_file = rewards};
  doors.actors = {.own = own, .allowed_file = actors};
  doors.rewards = {.own = own, .allowed_file = rewards};
  return doors;
}

CurveClient ReadMemberKeys(const std::string& keys, MemberKind kind, const std::string& join,
                           bool insecure) {
  CurveClient client;
  if (keys.empty()) {
    client.open = Open(join, insecure, "--keys");
    return client;
  }
  client.server_key = ReadPublicKey(In(keys, "head.pub"));
  client.own = ReadCurveKeys(In(keys, NameOf(kind) + ".key"));
  return client;
}

}  // namespace plumb::run
