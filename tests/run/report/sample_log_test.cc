#include "run/report/sample_log.h"

#include <gtest/gtest.h>

#include "common/base/error.h"
#include "tests/testing/faulty_file_system.h"
#include "tests/testing/temp_folder.h"

namespace plumb::run {
namespace {

using plumb::testing::FaultyFileSystem;
using plumb::testing::TempFolder;

std::string Read(const std::string& path) { return RealFileSystem().ReadFile(path, 1 << 20); }

TEST(SampleLogTest, WhatWasAppendedIsInTheFileAtOnce) {
  const TempFolder temp;
  SampleLog log(RealFileSystem(), temp / "samples.jsonl", 0);
  log.Append("{\"step\":0}\n");
  EXPECT_EQ(Read(temp / "samples.jsonl"), "{\"step\":0}\n");
  log.Append("{\"step\":1}\n");
  EXPECT_EQ(Read(temp / "samples.jsonl"), "{\"step\":0}\n{\"step\":1}\n");
  EXPECT_EQ(log.TakeNew(), "{\"step\":0}\n{\"step\":1}\n");
  log.Append("{\"step\":2}\n");
  EXPECT_EQ(log.TakeNew(), "{\"step\":2}\n");
  EXPECT_EQ(log.TakeNew(), "");
}

TEST(SampleLogTest, StepsThatAreDoneAgainAndATornLineGo) {
  const TempFolder temp;
  RealFileSystem().WriteFileAtomic(temp / "samples.jsonl",
                                   "{\"step\":0}\n{\"step\":4}\n{\"step\":5}\n{\"step\":");
  SampleLog log(RealFileSystem(), temp / "samples.jsonl", 5);
  log.Append("{\"step\":5,\"again\":true}\n");
  EXPECT_EQ(Read(temp / "samples.jsonl"),
            "{\"step\":0}\n{\"step\":4}\n{\"step\":5,\"again\":true}\n");
}

TEST(SampleLogTest, ALineThatIsNoneIsNamed) {
  for (const char* line : {"[1]", "{\"step\":\"two\"}", "{\"sample\":1}", "{\"step\":"}) {
    const TempFolder temp;
    RealFileSystem().WriteFileAtomic(temp / "samples.jsonl",
                                     std::string("{\"step\":0}\n") + line + "\n{\"step\":1}\n");
    try {
      SampleLog log(RealFileSystem(), temp / "samples.jsonl", 1);
      ADD_FAILURE() << line << " was passed over";
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), ErrorCode::kCorruption) << line;
      EXPECT_EQ(e.where(), temp / "samples.jsonl:2") << line;
    }
  }
}

// A full disk and a broken one are different news, and both are said at the write that met them.
TEST(SampleLogTest, AFullAndABrokenDiskAreSaidAndToldApart) {
  for (const auto& [fault, code] :
       {std::pair{FaultyFileSystem::Fault::kNoSpace, ErrorCode::kNoSpace},
        std::pair{FaultyFileSystem::Fault::kIo, ErrorCode::kIo}}) {
    const TempFolder temp;
    FaultyFileSystem files;
    SampleLog log(files, temp / "samples.jsonl", 0);
    log.Append("{\"step\":0}\n");
    files.FailAt(1, fault);
    try {
      log.Append("{\"step\":1}\n");
      ADD_FAILURE() << "nothing was said";
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), code);
      EXPECT_EQ(e.where(), temp / "samples.jsonl");
    }
  }
}

}  // namespace
}  // namespace plumb::run
