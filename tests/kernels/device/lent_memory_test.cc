// kernels/device/lent_memory.h: what is lent is copied within a process and refused where it leads
// nowhere; between GPUs and processes where there are GPUs (bench/hand_over_bench.cc).
#include "kernels/device/lent_memory.h"

#include <gtest/gtest.h>

#include <cstring>
#include <optional>
#include <string>
#include <vector>

#include "common/base/error.h"

namespace plumb::kernels {
namespace {

std::optional<ErrorCode> CodeOf(const std::string& handle, Device reader,
                                std::string* why = nullptr) {
  try {
    BorrowedMemory memory(handle, reader);
  } catch (const Error& e) {
    if (why) *why = e.what();
    return e.code();
  }
  return std::nullopt;
}

TEST(LentMemoryTest, IsReadByItsHandleWhereItLies) {
  LentMemory lent(Device::kCpu, 100);
  const BorrowedMemory borrowed(lent.handle(), Device::kCpu);
  EXPECT_EQ(borrowed.bytes(), 100u);
  EXPECT_FALSE(lent.leads_out());
  std::memcpy(lent.data() + 40, "weights", 7);  // behind the borrowing: nothing was copied yet
  char text[8] = {};
  borrowed.CopyTo(Device::kCpu, text, 40, 7);
  EXPECT_STREQ(text, "weights");
}

TEST(LentMemoryTest, AHandleThatLeadsNowhereIsRefused) {
  EXPECT_EQ(CodeOf("", Device::kCpu), ErrorCode::kCorruption);
  EXPECT_EQ(CodeOf("lent1 a b 9999 1 1 -", Device::kCpu), ErrorCode::kCorruption);
  const LentMemory lent(Device::kCpu, 8);
  std::string other = lent.handle();
  other.insert(other.find(' ') + 1, "7");  // another process of this machine
  std::string why;
  EXPECT_EQ(CodeOf(other, Device::kCpu, &why), ErrorCode::kUnsupported);
  EXPECT_NE(why.find("it is the host's"), std::string::npos) << why;
  other.insert(other.find(' ', other.find(' ') + 1) + 1, "f");  // and of another boot
  EXPECT_EQ(CodeOf(other, Device::kCpu, &why), ErrorCode::kUnsupported);
  EXPECT_NE(why.find("another machine"), std::string::npos) << why;
}

TEST(LentMemoryTest, BetweenGpusOfOneProcess) {
  if (CudaDevices() == 0) GTEST_SKIP() << "no GPU answers";
  const Device to = Device::Cuda(CudaDevices() > 1 ? 1 : 0);
  LentMemory lent(Device::Cuda(0), 1 << 20);
  std::vector<std::byte> bytes(1 << 20), back(1 << 20);
  for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<std::byte>(i * 7 >> 3);
  const OwnedStream first(Device::Cuda(0)), second(to);
  CopyAndWait(first, lent.data(), bytes.data(), bytes.size());
  LentMemory there(to, bytes.size());
  const BorrowedMemory borrowed(lent.handle(), to);
  borrowed.CopyTo(second, there.data(), 0, bytes.size());
  CopyAndWait(second, back.data(), there.data(), back.size());
  EXPECT_EQ(back, bytes);
}

}  // namespace
}  // namespace plumb::kernels
