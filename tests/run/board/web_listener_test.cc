// run/board/web_listener.h: what a server is called; that it has a port of its own.
#include "run/board/web_listener.h"

#include <gtest/gtest.h>

#include "common/base/error.h"
#include "run/board/board_server.h"
#include "run/board/run_catalog.h"
#include "tests/testing/temp_folder.h"

namespace plumb::run {
namespace {

TEST(WebListener, AnAddressIsWrittenAsAClientOnThisMachineCallsIt) {
  EXPECT_EQ(UrlOf("127.0.0.1", 80), "http://127.0.0.1:80");
  EXPECT_EQ(UrlOf("0.0.0.0", 8642), "http://localhost:8642");
  EXPECT_EQ(UrlOf("::", 8642), "http://localhost:8642");
  EXPECT_EQ(UrlOf("::1", 8642), "http://[::1]:8642");
  EXPECT_EQ(UrlOf("box.example", 1), "http://box.example:1");
}

TEST(WebListener, TwoServersNeverShareAPort) {
  const plumb::testing::TempFolder temp;
  RunCatalog runs({temp.path()});
  const BoardServer first(runs, {});
  ASSERT_GT(first.port(), 0);
  try {
    const BoardServer second(runs, {.port = first.port()});
    FAIL() << "both listen on " << first.port();
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kConflict);
    EXPECT_EQ(e.where(), "127.0.0.1:" + std::to_string(first.port()));
  }
}

}  // namespace
}  // namespace plumb::run
