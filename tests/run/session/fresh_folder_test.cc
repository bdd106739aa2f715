// run/session/fresh_folder.h: only what was made goes again.
#include "run/session/fresh_folder.h"

#include <gtest/gtest.h>

#include "common/base/file.h"
#include "tests/testing/temp_folder.h"

namespace plumb::run {
namespace {

using plumb::testing::TempFolder;
namespace fs = std::filesystem;

void MakeIn(const std::string& path, bool keep) {
  FreshFolder folder(path);
  fs::create_directories(path);
  RealFileSystem().WriteFileAtomic(path + "/file", "x");
  if (keep) folder.Keep();
}

TEST(FreshFolderTest, WhatWasMadeGoesAgainUnlessItIsKept) {
  const TempFolder temp;
  MakeIn(temp / "a/b/c/", /*keep=*/false);
  EXPECT_FALSE(fs::exists(temp / "a"));
  EXPECT_TRUE(fs::exists(temp.path()));
  MakeIn(temp / "a/b/c", /*keep=*/true);
  EXPECT_TRUE(fs::exists(temp / "a/b/c/file"));
  MakeIn(temp / "a/b/c", /*keep=*/false);
  EXPECT_TRUE(fs::exists(temp / "a/b/c/file")) << "it was there before";
  MakeIn(temp / "a/d", /*keep=*/false);
  EXPECT_TRUE(fs::exists(temp / "a/b/c/file") && !fs::exists(temp / "a/d"));
  { const FreshFolder never_made(temp / "x/y"); }
  EXPECT_FALSE(fs::exists(temp / "x"));
}

}  // namespace
}  // namespace plumb::run
