#include "run/board/line_tail.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>

#include "common/base/file.h"
#include "tests/testing/temp_folder.h"

namespace plumb::run {
namespace {

using plumb::testing::TempFolder;

// What a tail has told so far.
struct Reader {
  explicit Reader(const std::string& path) : tail(path) {}
  bool Read() {
    return tail.Read(
        [this] {
          text.clear();
          ++begun;
        },
        [this](std::string_view lines, uint64_t at) {
          EXPECT_EQ(lines.back(), '\n');
          places.push_back(at);
          text += lines;
        });
  }
  LineTail tail;
  std::string text;
  std::vector<uint64_t> places;
  int begun = 0;
};

void Append(const std::string& path, const std::string& text) {
  RealFileSystem().OpenAppend(path)->Append(text);
}

TEST(LineTailTest, ReadsEachLineOnceAndWaitsForItsEnd) {
  const TempFolder folder;
  const std::string path = folder / "f";
  Reader reader(path);
  EXPECT_FALSE(reader.Read()) << "there is no file yet";
  Append(path, "one\ntw");
  EXPECT_TRUE(reader.Read());
  EXPECT_EQ(reader.text, "one\n");
  EXPECT_FALSE(reader.Read());
  Append(path, "o");
  EXPECT_FALSE(reader.Read()) << "the line has no end yet";
  Append(path, "\nthree\n");
  EXPECT_TRUE(reader.Read());
  EXPECT_EQ(reader.text, "one\ntwo\nthree\n");
  EXPECT_EQ(reader.places, (std::vector<uint64_t>{0, 4}));
  EXPECT_EQ(reader.begun, 0);
}

TEST(LineTailTest, NoticesAFileThatWasReplaced) {
  const TempFolder folder;
  const std::string path = folder / "f";
  Append(path, "1\n2\n3\n");
  Reader reader(path);
  reader.Read();
  // As a resume does: the lines that count, as a new file; then it goes on.
  RealFileSystem().WriteFileAtomic(path, "1\n2\n");
  Append(path, "drei\nvier\n");
  EXPECT_TRUE(reader.Read());
  EXPECT_EQ(reader.begun, 1);
  EXPECT_EQ(reader.text, "1\n2\ndrei\nvier\n");
  RealFileSystem().Remove(path);
  EXPECT_TRUE(reader.Read());
  EXPECT_EQ(reader.text, "") << "it is gone";
  Append(path, "new\n");
  EXPECT_TRUE(reader.Read());
  EXPECT_EQ(reader.text, "new\n");
}

TEST(LineTailTest, NoticesAFileThatWasCutAndHasGrownAgain) {
  const TempFolder folder;
  const std::string path = folder / "f";
  Append(path, "aaaa\nbbbb\n");
  Reader reader(path);
  reader.Read();
  ASSERT_EQ(truncate(path.c_str(), 5), 0);
  EXPECT_TRUE(reader.Read());
  EXPECT_EQ(reader.text, "aaaa\n");
  // Between two looks: shorter, then longer than before.
  ASSERT_EQ(truncate(path.c_str(), 0), 0);
  Append(path, "cccc\ndddd\neeee\n");
  EXPECT_TRUE(reader.Read());
  EXPECT_EQ(reader.text, "cccc\ndddd\neeee\n");
  EXPECT_EQ(reader.begun, 2);
}

TEST(LineTailTest, ALongLineIsReadWholeAndAnEndlessOnePassedOver) {
  const TempFolder folder;
  const std::string path = folder / "f";
  const std::string longer(size_t{9} << 20, 'x');  // of several reads
  Append(path, "a\n" + longer + "\nb\n");
  Reader reader(path);
  reader.Read();
  EXPECT_EQ(reader.text.size(), longer.size() + 5);
  {
    const auto file = RealFileSystem().OpenAppend(path);
    for (int i = 0; i < 18; ++i) file->Append(std::string(size_t{4} << 20, 'y'));
  }
  Append(path, "\nc\n");
  reader.text.clear();
  reader.Read();
  EXPECT_EQ(reader.text, "c\n");
  EXPECT_EQ(reader.tail.passed_over(), 1u);
}

TEST(LineTailTest, IsNotHeldUpByWhatIsNoFile) {
  const TempFolder folder;
  const std::string path = folder / "f";
  ASSERT_EQ(mkfifo(path.c_str(), 0600), 0);
  Reader reader(path);
  EXPECT_FALSE(reader.Read()) << "a pipe without a writer would never open";
  Reader of_folder(folder.path());
  EXPECT_FALSE(of_folder.Read());
}

TEST(LineTailTest, AHundredThousandLines) {
  const TempFolder folder;
  const std::string path = folder / "f";
  std::string all;
  for (int i = 0; i < 100'000; ++i)
    all += "{\"step\":" + std::to_string(i) + ",\"reward/mean\":0.5}\n";
  Append(path, all);
  Reader reader(path);
  reader.Read();
  EXPECT_TRUE(reader.text == all);
  EXPECT_EQ(reader.tail.offset(), all.size());
  Append(path, "{\"step\":100000}\n");
  reader.text.clear();
  reader.Read();
  EXPECT_EQ(reader.text, "{\"step\":100000}\n") << "what was read is not read again";
}

}  // namespace
}  // namespace plumb::run
