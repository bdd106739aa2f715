#include "run/roles/socket_folder.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>

#include "common/base/error.h"
#include "common/base/file.h"
#include "tests/testing/temp_folder.h"

namespace plumb::run {
namespace {

using plumb::testing::TempFolder;

int Entries(const std::string& folder) {
  return static_cast<int>(RealFileSystem().List(folder).size());
}

TEST(SocketFolderTest, IsPrivateAndGoneWithItsOwner) {
  const TempFolder temp;
  {
    const SocketFolder sockets(temp.path());
    struct stat info {};
    ASSERT_EQ(stat(sockets.path().c_str(), &info), 0);
    EXPECT_EQ(info.st_mode & 0777, 0700u);
    EXPECT_TRUE(sockets.path().starts_with(temp.path() + "/plumb-"));
    EXPECT_EQ(RemoveAbandonedSocketFolders(temp.path()), 0) << "its owner lives";
  }
  EXPECT_EQ(Entries(temp.path()), 0);
}

TEST(SocketFolderTest, ThoseOfKilledOwnersAreRemovedByTheNext) {
  const TempFolder temp;
  const SocketFolder living(temp.path());
  int ready[2];
  ASSERT_EQ(pipe(ready), 0);
  const pid_t killed = fork();
  ASSERT_GE(killed, 0);
  if (killed == 0) {
    const SocketFolder sockets(temp.path());
    RealFileSystem().WriteFileAtomic(sockets.path() + "/replay", "");
    if (write(ready[1], "x", 1) != 1) _exit(1);
    pause();
  }
  char byte = 0;
  ASSERT_EQ(read(ready[0], &byte, 1), 1);
  EXPECT_EQ(Entries(temp.path()), 2);
  ::kill(killed, SIGKILL);
  int status = 0;
  ASSERT_EQ(waitpid(killed, &status, 0), killed);
  EXPECT_EQ(Entries(temp.path()), 2) << "nobody could tidy up";
  const SocketFolder next(temp.path());
  EXPECT_EQ(Entries(temp.path()), 2) << "the living one and the next";
  EXPECT_TRUE(RealFileSystem().Exists(living.path()));
  close(ready[0]);
  close(ready[1]);
}

TEST(SocketFolderTest, WhatOnlyLooksLikeOneStays) {
  const TempFolder temp;
  RealFileSystem().CreateDirectories(temp / "plumb-notes1");  // no owner's file
  RealFileSystem().CreateDirectories(temp / "plumb-longername");
  RealFileSystem().WriteFileAtomic(temp / "plumb-longername/owner", "");
  RealFileSystem().CreateDirectories(temp / "elsewhere");
  RealFileSystem().WriteFileAtomic(temp / "elsewhere/owner", "");
  std::filesystem::create_directory_symlink(temp / "elsewhere", temp / "plumb-abcdef");
  RealFileSystem().WriteFileAtomic(temp / "plumb-ghijkl", "a file");
  EXPECT_EQ(RemoveAbandonedSocketFolders(temp.path()), 0);
  EXPECT_EQ(Entries(temp.path()), 5);
  EXPECT_TRUE(RealFileSystem().Exists(temp / "elsewhere/owner"));
  EXPECT_EQ(RemoveAbandonedSocketFolders(temp / "nowhere"), 0);
}

}  // namespace
}  // namespace plumb::run
