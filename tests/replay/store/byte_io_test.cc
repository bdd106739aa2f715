// replay/store/byte_io.h: what is written is read, and nothing behind the end.
#include "replay/store/byte_io.h"

#include <gtest/gtest.h>

#include "common/base/error.h"

namespace plumb::replay {
namespace {

TEST(ByteIo, ReadsWhatWasWrittenAndNothingBehindIt) {
  ByteWriter writer;
  writer.U8(7).U32(0xFFFFFFFE).U64(uint64_t{1} << 63).Bytes("two words");
  const std::string bytes = writer.Take();
  ByteReader reader(bytes, "here");
  EXPECT_EQ(reader.U8(), 7);
  EXPECT_EQ(reader.U32(), 0xFFFFFFFE);
  EXPECT_EQ(reader.U64(), uint64_t{1} << 63);
  EXPECT_EQ(reader.Bytes(9), "two words");
  reader.ExpectEnd();
  EXPECT_THROW(reader.U8(), Error);
  for (size_t cut = 0; cut < bytes.size(); ++cut) {
    ByteReader shorter(std::string_view(bytes).substr(0, cut), "here");
    EXPECT_THROW(
        {
          shorter.U8();
          shorter.U32();
          shorter.U64();
          shorter.Bytes(9);
        },
        Error)
        << cut;
  }
  ByteReader limited(std::string_view(bytes).substr(13), "here");
  EXPECT_THROW(limited.Bytes(8), Error) << "longer than allowed";
}

}  // namespace
}  // namespace plumb::replay
