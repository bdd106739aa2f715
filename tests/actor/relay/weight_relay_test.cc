#include "actor/relay/weight_relay.h"

#include <gtest/gtest.h>

#include "common/base/error.h"
#include "common/net/weight_wire.h"
#include "tests/testing/temp_folder.h"

namespace plumb::actor {
namespace {

using std::chrono::milliseconds;

// Whether the holder of these keys is answered at the door.
bool Answered(const WeightRelay& relay, const CurveKeys& door, const CurveKeys& own) {
  RpcClient client(relay.endpoint(), {.curve = {.server_key = door.public_key, .own = own}});
  try {
    client.Call(weight_wire::kHereVerb, "", After(milliseconds(1500)));
    return true;
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kDeadline) << e.what();
    return false;
  }
}

TEST(WeightRelayTest, LetsInTheHeadAndWhoWasNamed) {
  const testing::TempFolder folder;
  const CurveKeys head = GenerateCurveKeys(), own = GenerateCurveKeys(),
                  other = GenerateCurveKeys();
  WeightRelay relay({.endpoint = "tcp://127.0.0.1:*",
                     .keys = {.server_key = head.public_key, .own = own},
                     .folder = folder.path()});
  EXPECT_TRUE(Answered(relay, own, head));
  EXPECT_FALSE(Answered(relay, own, other)) << "denied until it is named";
  EXPECT_GE(relay.counters().at("actor/relay_keys_refused"), 1);
  relay.LetIn({other.public_key});
  EXPECT_TRUE(Answered(relay, own, other));
  EXPECT_FALSE(Answered(relay, head, other)) << "who expects another key finds nobody";
  relay.LetIn({});
  EXPECT_FALSE(Answered(relay, own, other));
}

TEST(WeightRelayTest, AnswersForWeightsOnly) {
  const testing::TempFolder folder;
  WeightRelay relay({.endpoint = "tcp://127.0.0.1:*", .keys = {}, .folder = folder.path()});
  RpcClient client(relay.endpoint());
  EXPECT_THROW(client.Call("lease", "", After(milliseconds(5000))), Error);
  EXPECT_THROW(client.Call(weight_wire::kBlocksVerb, "x", After(milliseconds(5000))), Error);
  const weight_wire::BlocksQuestion question{.who = "a", .version = 1, .set = "s"};
  EXPECT_TRUE(weight_wire::DecodeBlocks(
                  client.CallPayload(weight_wire::kBlocksVerb,
                                     Payload(weight_wire::EncodeBlocksQuestion(question)),
                                     After(milliseconds(5000))))
                  .empty())
      << "not yet";
}

}  // namespace
}  // namespace plumb::actor
