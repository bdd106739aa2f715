#include "common/weight_wire.h"

#include <gtest/gtest.h>

#include <string>

#include "common/error.h"

namespace plumb::weight_wire {
namespace {

const PolicyVersion kVersion{12, "abc123"};

TEST(WeightWire, RoundTrips) {
  for (const PolicyVersion& version :
       {kVersion, PolicyVersion{}, PolicyVersion{int64_t{1} << 40, ""}}) {
    EXPECT_EQ(DecodeVersion(EncodeVersion(version)), version);
  }
}

TEST(WeightWire, EveryTruncationIsRefused) {
  const std::string bytes = EncodeVersion(kVersion);
  for (size_t n = 0; n < bytes.size(); ++n)
    EXPECT_THROW(DecodeVersion(std::string_view(bytes).substr(0, n)), Error) << n;
  EXPECT_THROW(DecodeVersion(bytes + "x"), Error);
}

TEST(WeightWire, LyingHeadersAreRefused) {
  std::string bytes = EncodeVersion(kVersion);
  bytes[8] = 100;  // more of a digest than there is
  EXPECT_THROW(DecodeVersion(bytes), Error);
  bytes[11] = static_cast<char>(0xff);  // four gigabytes of it
  EXPECT_THROW(DecodeVersion(bytes), Error);
  EXPECT_THROW(DecodeVersion(EncodeVersion({-5, "x"})), Error);
  EXPECT_THROW(DecodeVersion(EncodeVersion({-2, ""})), Error);
  EXPECT_THROW(DecodeVersion(EncodeVersion({-1, "x"})), Error);
  EXPECT_THROW(DecodeVersion(EncodeVersion({1, std::string(129, 'a')})), Error);
}

}  // namespace
}  // namespace plumb::weight_wire
