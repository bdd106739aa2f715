// run/serve/request_body.h: a body as long as it may be, and how others are refused.
#include "run/serve/request_body.h"

#include <gtest/gtest.h>

#ifdef PLUMB_HTTPLIB
#include <httplib.h>

#include <algorithm>

#include "run/serve/api_error.h"

namespace plumb::run {
namespace {

// What a client sends, in pieces of seven bytes; `cut`: its connection ends before the body does.
std::string Read(const std::string& sent, size_t most, httplib::Response& reply, bool cut = false,
                 size_t* taken = nullptr) {
  const httplib::ContentReader reader(
      [&](httplib::ContentReceiver take) {
        for (size_t at = 0; at < sent.size(); at += 7) {
          const size_t n = std::min<size_t>(7, sent.size() - at);
          if (taken != nullptr) *taken += n;
          if (!take(sent.data() + at, n)) return false;
        }
        return !cut;
      },
      nullptr);
  return ReadRequestBody(reader, reply, most, " (--option)");
}

ApiError Refused(const std::string& sent, size_t most, httplib::Response& reply, bool cut = false,
                 size_t* taken = nullptr) {
  try {
    Read(sent, most, reply, cut, taken);
  } catch (const ApiError& error) {
    EXPECT_EQ(reply.get_header_value("Connection"), "close");
    return error;
  }
  ADD_FAILURE() << "nothing was refused";
  return {};
}

TEST(RequestBody, IsTakenUpToItsBound) {
  httplib::Response reply;
  EXPECT_EQ(Read(std::string(100, 'x'), 100, reply), std::string(100, 'x'));
  EXPECT_EQ(Read("", 100, reply), "");
  EXPECT_FALSE(reply.has_header("Connection"));
}

TEST(RequestBody, ALongerOneIsReadToBeRefusedButNotForEver) {
  httplib::Response reply;
  size_t taken = 0;
  const ApiError longer = Refused(std::string(101, 'x'), 100, reply, false, &taken);
  EXPECT_EQ(longer.status, 413);
  EXPECT_EQ(longer.message, "the body has more than 100 bytes (--option)");
  EXPECT_EQ(taken, 101u) << "the client has written all of it, and reads why";
  taken = 0;
  EXPECT_EQ(Refused(std::string(100'000, 'x'), 100, reply, false, &taken).status, 413);
  EXPECT_LT(taken, 100 * kMostRefused + 10);
}

TEST(RequestBody, OneThatIsCutIsNotTaken) {
  httplib::Response reply;
  EXPECT_EQ(Refused("x", 100, reply, /*cut=*/true).status, 400);
  reply.status = 413;  // the library has said so by itself
  EXPECT_EQ(Refused("x", 100, reply, /*cut=*/true).status, 413);
}

}  // namespace
}  // namespace plumb::run

#else

TEST(RequestBody, NeedsAWebServer) { GTEST_SKIP() << "NOT TESTED: this build has no cpp-httplib"; }

#endif
