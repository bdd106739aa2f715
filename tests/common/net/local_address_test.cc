#include "common/net/local_address.h"

#include <gtest/gtest.h>

#include "common/base/error.h"

namespace plumb {
namespace {

TEST(LocalAddress, IsThatOfTheWayThere) {
  EXPECT_EQ(LocalAddressTowards("127.0.0.1"), "127.0.0.1");
  try {
    LocalAddressTowards("no.such.host.invalid");
    ADD_FAILURE();
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kUnavailable) << e.what();
    EXPECT_EQ(e.where(), "no.such.host.invalid");
  }
}

TEST(LocalAddress, OfTheNewerKindStandsInBrackets) {
  try {
    EXPECT_EQ(LocalAddressTowards("[::1]"), "[::1]");
  } catch (const Error& e) {
    GTEST_SKIP() << "no IPv6 here: " << e.what();
  }
}

}  // namespace
}  // namespace plumb
