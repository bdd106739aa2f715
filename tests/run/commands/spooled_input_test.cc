#include "run/commands/spooled_input.h"

#include <gtest/gtest.h>

#include <sys/stat.h>

#include <fstream>
#include <thread>

#include "common/base/file.h"
#include "tests/testing/standard_input.h"
#include "tests/testing/temp_folder.h"

namespace plumb::run {
namespace {

using plumb::testing::StandardInput;
using plumb::testing::TempFolder;

TEST(SpooledInputTest, AFileStaysWhereItIs) {
  const TempFolder temp;
  RealFileSystem().WriteFileAtomic(temp / "rows", "a");
  const SpooledInput input(temp / "rows");
  EXPECT_EQ(input.file(), temp / "rows");
  EXPECT_EQ(input.Named(temp / "rows:3"), temp / "rows:3");
  EXPECT_EQ(SpooledInput(temp / "missing").file(), temp / "missing") << "its reader says so";
}

TEST(SpooledInputTest, APipeCanBeReadTwiceAndKeepsItsName) {
  const TempFolder temp;
  const std::string pipe = temp / "pipe", text(3 << 20, 'x');
  ASSERT_EQ(::mkfifo(pipe.c_str(), 0600), 0);
  std::thread writer([&] { std::ofstream(pipe) << text; });
  const SpooledInput input(pipe);
  writer.join();
  for (int i = 0; i < 2; ++i) {
    std::ifstream in(input.file());
    EXPECT_EQ(std::string(std::istreambuf_iterator<char>(in), {}), text);
  }
  EXPECT_EQ(input.Named("in " + input.file() + ":7 and " + input.file()),
            "in " + pipe + ":7 and " + pipe);
}

TEST(SpooledInputTest, StandardInput) {
  const StandardInput given("one\ntwo\n");
  const SpooledInput input("-");
  std::ifstream in(input.file());
  EXPECT_EQ(std::string(std::istreambuf_iterator<char>(in), {}), "one\ntwo\n");
  EXPECT_EQ(input.Named(input.file() + ":2"), "standard input:2");
  try {
    input.Read([](const std::string& file) {
      throw Error(ErrorCode::kCorruption, "no row in " + file, file + ":1");
    });
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kCorruption);
    EXPECT_EQ(e.message(), "no row in standard input");
    EXPECT_EQ(e.where(), "standard input:1");
  }
}

TEST(SpooledInputTest, ATextEndsBeforeItsLineEnd) {
  const std::pair<const char*, const char*> texts[] = {{"12+34=\n", "12+34="},
                                                       {"12+34=\r\n", "12+34="},
                                                       {"12+34=", "12+34="},
                                                       {"two\nlines\n\n", "two\nlines\n"},
                                                       {"", ""}};
  for (const auto& [piped, meant] : texts) {
    const StandardInput given(piped);
    EXPECT_EQ(TextOfStandardInput(), meant);
  }
}

}  // namespace
}  // namespace plumb::run
