#include "policy_model/memory/out_of_memory.h"

#include <gtest/gtest.h>

#include <new>
#include <stdexcept>

#include "policy_model/memory/flat_buffer.h"

namespace plumb::policy_model {
namespace {

// What comes of `thrown`: the error's words, or those of what was thrown on.
template <class T>
std::string Through(const T& thrown, ErrorCode* code) {
  try {
    try {
      throw thrown;
    } catch (...) {
      RethrowOutOfMemory(Device::Cuda(1), 3'500'000'000);
    }
  } catch (const Error& e) {
    *code = e.code();
    return e.what();
  } catch (const std::exception& e) {
    return std::string("as it was: ") + e.what();
  }
}

TEST(OutOfMemoryTest, ABufferThatIsTooLargeIsOneSentence) {
  try {
    const FlatBuffer buffer(Device::kCpu, DType::kFloat32, int64_t{1} << 58);
    FAIL();
  } catch (const OutOfMemory& e) {
    EXPECT_EQ(e.code(), ErrorCode::kIo);
    EXPECT_EQ(e.message(),
              "the memory of this machine is used up: there were no 1152921505 GB more");
  }
}

TEST(OutOfMemoryTest, OtherErrorsStayWhatTheyAre) {
  ErrorCode code{};
  EXPECT_EQ(Through(std::bad_alloc(), &code),
            "the memory of this machine is used up: there were no 3.5 GB more");
  EXPECT_EQ(code, ErrorCode::kIo);
  EXPECT_EQ(Through(std::runtime_error("something"), &code), "as it was: something");
  EXPECT_EQ(Through(Error(ErrorCode::kConflict, "taken"), &code), "taken");
  EXPECT_EQ(code, ErrorCode::kConflict);
}

TEST(OutOfMemoryTest, AGpusMemoryIsCalledByItsName) {
  EXPECT_EQ(OutOfMemory(Device::Cuda(1), 0).message(), "the memory of cuda:1 is used up");
}

}  // namespace
}  // namespace plumb::policy_model
