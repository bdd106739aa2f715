#include "common/weight_wire.h"

#include <gtest/gtest.h>

#include <string>

#include "common/error.h"

namespace plumb::weight_wire {
namespace {

const PolicyVersion kVersion{12, "abc123"};

TEST(WeightWire, RoundTrips) {
  for (const FetchRequest& request : {FetchRequest{kVersion, 2500}, FetchRequest{{}, 0}}) {
    EXPECT_EQ(DecodeFetchRequest(EncodeFetchRequest(request)), request);
  }
  const Offer offer{kVersion, uint64_t{5} << 32};
  EXPECT_EQ(DecodeOffer(EncodeOffer(offer)), offer);
  EXPECT_EQ(DecodeOffer(EncodeOffer({})), Offer{});
  const PartRequest part{kVersion, uint64_t{3} << 33, kPartBytes};
  EXPECT_EQ(DecodePartRequest(EncodePartRequest(part)), part);
}

TEST(WeightWire, EveryTruncationIsRefused) {
  const std::string fetch = EncodeFetchRequest({kVersion, 2}), offer = EncodeOffer({kVersion, 7}), part = EncodePartRequest({kVersion, 1, 2});
  for (size_t n = 0; n < fetch.size(); ++n) EXPECT_THROW(DecodeFetchRequest(std::string_view(fetch).substr(0, n)), Error) << n;
  for (size_t n = 0; n < offer.size(); ++n) EXPECT_THROW(DecodeOffer(std::string_view(offer).substr(0, n)), Error) << n;
  for (size_t n = 0; n < part.size(); ++n) EXPECT_THROW(DecodePartRequest(std::string_view(part).substr(0, n)), Error) << n;
  EXPECT_THROW(DecodeFetchRequest(fetch + "x"), Error);
  EXPECT_THROW(DecodeOffer(offer + "x"), Error);
  EXPECT_THROW(DecodePartRequest(part + "x"), Error);
}

TEST(WeightWire, LyingHeadersAreRefused) {
  std::string bytes = EncodeOffer({kVersion, 7});
  bytes[8] = 100;  // more of a digest than there is
  EXPECT_THROW(DecodeOffer(bytes), Error);
  bytes[11] = static_cast<char>(0xff);  // four gigabytes of it
  EXPECT_THROW(DecodeOffer(bytes), Error);
  EXPECT_THROW(DecodeOffer(EncodeOffer({{-5, "x"}, 1})), Error);
  EXPECT_THROW(DecodeOffer(EncodeOffer({{-1, "x"}, 0})), Error);
  EXPECT_THROW(DecodeOffer(EncodeOffer({{}, 1})), Error);
  EXPECT_THROW(EncodeOffer({{1, std::string(kMaxDigestBytes + 1, 'a')}, 0}), Error);
  EXPECT_THROW(DecodeFetchRequest(EncodeFetchRequest({{-2, ""}, 0})), Error);
  EXPECT_THROW(DecodeFetchRequest(EncodeFetchRequest({kVersion, -1})), Error);
}

}  // namespace
}  // namespace plumb::weight_wire
