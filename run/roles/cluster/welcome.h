// The words between the head of a cluster run and a process that wants to be one of its roles.
//
//   cluster.join   who it is             -> the welcome: run, recipe, what files, where the doors
//   are cluster.file   kind and name         -> the bytes of one of these files cluster.beat   who
//   it is, and with run.relay where it listens
//                                        -> whether the head knows it, and whether the run has
//                                           ended; with run.relay whom to ask for weights
//   cluster.leave  who it is             -> nothing
//
// All are JSON, files are raw. Weights do not come here: an actor asks the learner for them
// (common/net/weight_wire.h), or another actor, and checks their digest.
// Thread safety: pure functions. Errors: kCorruption for texts that are none of these; what differs
// between the two builds is said by CheckSameBuild.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "common/net/weight_wire.h"
#include "run/roles/cluster/member_kind.h"
#include "run/roles/cluster/role_files.h"
#include "run/roles/cluster/roster.h"

namespace plumb::run {

inline constexpr char kJoinVerb[] = "cluster.join", kFileVerb[] = "cluster.file",
                      kBeatVerb[] = "cluster.beat", kLeaveVerb[] = "cluster.leave";

struct JoinRequest {
  Member member;
  std::string build;   // BuildName() of its program
  std::string recipe;  // the digest of the only recipe that it works for; empty: any
};
std::string EncodeJoin(const JoinRequest& request);
JoinRequest DecodeJoin(std::string_view text);

// Ports of the head's host, by who comes in there.
struct HeadPorts {
  int leases = 0, weights = 0, groups = 0, scores = 0;
};

struct Welcome {
  std::string life;  // of the head; another one after its restart
  std::string run_id;
  std::string recipe;         // TOML, as the head resolved it
  std::string recipe_digest;  // RecipeDigest of it
  std::string model_digest;   // ModelDigest of the head's session
  RoleFiles files;
  HeadPorts ports;
  int64_t beat_ms = 1000;
};
std::string EncodeWelcome(const Welcome& welcome);
Welcome DecodeWelcome(std::string_view text);

// Whether the head has reached an actor where it says that it listens.
enum class RelayState : uint8_t { kTrying, kReached, kUnreachable };

// What an actor hears of handing weights on.
struct RelayWord {
  static constexpr size_t kMaxPlaces = 8;
  RelayState state = RelayState::kTrying;  // of the actor itself
  std::vector<weight_wire::Place> places;  // whom to ask, nearest first; behind them the head
  std::vector<std::string> keys;           // whom to let in
  int64_t below = 0;                       // actors that ask it
};
// Tells two words apart; never 0.
uint64_t SumOf(const RelayWord& word);

// What it says of it.
struct RelaySaying {
  std::string endpoint;           // where it listens; empty: it does not
  std::string key;                // its public key; empty: it has none
  std::vector<std::string> left;  // whom it had to leave, for they were silent or wrong
  uint64_t heard = 0;             // SumOf the newest word; 0: none
};

struct BeatReply {
  std::string life;
  bool known = false;              // false: join again
  bool ended = false;              // the run is finished
  std::optional<RelayWord> relay;  // where there is something new
};
std::string EncodeBeat(const BeatReply& reply);
BeatReply DecodeBeat(std::string_view text);

// Of beat and leave.
struct Who {
  std::string name;
  uint64_t epoch = 0;
  std::optional<RelaySaying> relay;  // of a beat
};
std::string EncodeWho(const Who& who);
Who DecodeWho(std::string_view text);

struct FileQuestion {
  MemberKind kind = MemberKind::kActor;
  std::string name;
};
std::string EncodeFileQuestion(const FileQuestion& question);
FileQuestion DecodeFileQuestion(std::string_view text);

// Version and commit.
std::string BuildName();

}  // namespace plumb::run
