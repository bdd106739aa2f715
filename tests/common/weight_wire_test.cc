#include "common/weight_wire.h"

#include <gtest/gtest.h>

#include <cstring>
#include <vector>

#include "common/error.h"

namespace plumb::weight_wire {
namespace {

TEST(WeightWire, RoundTrips) {
  const FetchRequest request{41, 2500};
  EXPECT_EQ(EncodeFetchRequest(request).size(), 16u);
  EXPECT_EQ(DecodeFetchRequest(EncodeFetchRequest(request)), request);

  std::vector<std::byte> flat(1000);
  for (size_t i = 0; i < flat.size(); ++i) flat[i] = static_cast<std::byte>(i * 7);
  const std::string bytes = EncodeReply({12, "abc123"}, flat);
  const Reply reply = DecodeReply(bytes);
  EXPECT_EQ(reply.version, (PolicyVersion{12, "abc123"}));
  ASSERT_EQ(reply.flat.size(), flat.size());
  EXPECT_EQ(std::memcmp(reply.flat.data(), flat.data(), flat.size()), 0);
  EXPECT_EQ(static_cast<const void*>(reply.flat.data()), bytes.data() + bytes.size() - flat.size()) << "a copy was made";
}

TEST(WeightWire, NothingYet) {
  const std::string bytes = EncodeReply({}, {});
  EXPECT_EQ(bytes.size(), 12u);
  EXPECT_EQ(DecodeReply(bytes).version.version, -1);
}

TEST(WeightWire, EveryTruncationOfTheHeaderIsRefused) {
  const std::string bytes = EncodeReply({12, "abc123"}, {});
  for (size_t n = 0; n < bytes.size(); ++n) EXPECT_THROW(DecodeReply(std::string_view(bytes).substr(0, n)), Error) << n;
  const std::string request = EncodeFetchRequest({1, 2});
  for (size_t n = 0; n < request.size(); ++n) EXPECT_THROW(DecodeFetchRequest(std::string_view(request).substr(0, n)), Error);
  EXPECT_THROW(DecodeFetchRequest(request + "x"), Error);
}

TEST(WeightWire, LyingHeadersAreRefused) {
  std::string bytes = EncodeReply({12, "abc123"}, {});
  bytes[8] = 7;  // one byte more than there is
  EXPECT_THROW(DecodeReply(bytes), Error);
  bytes[11] = static_cast<char>(0xff);  // four gigabytes of digest
  EXPECT_THROW(DecodeReply(bytes), Error);
  EXPECT_THROW(DecodeReply(EncodeReply({-5, "x"}, {})), Error);
  EXPECT_THROW(DecodeReply(EncodeReply({-1, "x"}, {})), Error);
  EXPECT_THROW(EncodeReply({1, std::string(kMaxDigestBytes + 1, 'a')}, {}), Error);
  EXPECT_THROW(DecodeFetchRequest(EncodeFetchRequest({-2, 0})), Error);
  EXPECT_THROW(DecodeFetchRequest(EncodeFetchRequest({0, -1})), Error);
}

}  // namespace
}  // namespace plumb::weight_wire
