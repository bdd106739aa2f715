// Sockets stay where nobody else reaches them. common/net/endpoint.h
#include "common/net/endpoint.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/error.h"
#include "tests/testing/temp_folder.h"

namespace plumb {
namespace {

ErrorCode CodeOf(const std::string& endpoint, bool bind = true) {
  try {
    CheckEndpoint(endpoint, bind);
  } catch (const Error& e) {
    return e.code();
  }
  return ErrorCode{};
}

TEST(Endpoint, LoopbackAndPrivateFoldersAreAllowed) {
  testing::TempFolder folder;
  EXPECT_EQ(CodeOf(folder.Ipc("socket")), ErrorCode{});
  EXPECT_EQ(CodeOf("tcp://127.0.0.1:5555"), ErrorCode{});
  EXPECT_EQ(CodeOf("tcp://127.0.0.1:*"), ErrorCode{});
  EXPECT_EQ(CodeOf("tcp://[::1]:1"), ErrorCode{});
}

TEST(Endpoint, WhatOthersReachIsRefused) {
  testing::TempFolder folder;
  for (const char* endpoint :
       {"tcp://0.0.0.0:5555", "tcp://*:5555", "tcp://10.0.0.1:5555", "tcp://localhost:5555",
        "tcp://127.0.0.1.example.com:5555", "tcp://[::]:5555", "tcp://eth0:5555"}) {
    EXPECT_EQ(CodeOf(endpoint), ErrorCode::kUnsupported) << endpoint;
  }
  for (const mode_t mode : {0755, 0710, 0702, 0777}) {
    ASSERT_EQ(::chmod(folder.path().c_str(), mode), 0);
    EXPECT_EQ(CodeOf(folder.Ipc("socket")), ErrorCode::kUnsupported) << mode;
  }
  ASSERT_EQ(::chmod(folder.path().c_str(), 0700), 0);
  ASSERT_EQ(::symlink(folder.path().c_str(), (folder / "link").c_str()), 0);
  EXPECT_NE(CodeOf("ipc://" + (folder / "link") + "/s"), ErrorCode{});
}

TEST(Endpoint, NonsenseIsRefused) {
  testing::TempFolder folder;
  for (const std::string& endpoint :
       {std::string("tcp://127.0.0.1"), std::string("tcp://127.0.0.1:0"),
        std::string("tcp://127.0.0.1:70000"), std::string("tcp://127.0.0.1:5x"),
        std::string("udp://127.0.0.1:1"), std::string("inproc://x"), std::string(""),
        std::string("ipc://relative"), std::string("ipc://@abstract"), std::string("ipc:///"),
        folder.Ipc(std::string(200, 'l'))}) {
    EXPECT_EQ(CodeOf(endpoint), ErrorCode::kInvalidArgument) << endpoint;
  }
  EXPECT_EQ(CodeOf("tcp://127.0.0.1:*", /*bind=*/false), ErrorCode::kInvalidArgument);
  EXPECT_EQ(CodeOf("ipc:///no/such/folder/s"), ErrorCode::kNotFound);
}

TEST(Endpoint, LongestIpcPath) {
  testing::TempFolder folder;
  const size_t base = folder.path().size() + 1;
  EXPECT_EQ(CodeOf(folder.Ipc(std::string(107 - base, 'l'))), ErrorCode{});
  EXPECT_EQ(CodeOf(folder.Ipc(std::string(108 - base, 'l'))), ErrorCode::kInvalidArgument);
}

TEST(Endpoint, PrivateFolderIsMadePrivate) {
  testing::TempFolder folder;
  const ::mode_t before = ::umask(0);
  MakePrivateFolder(folder / "a/sockets");
  ::umask(before);
  MakePrivateFolder(folder / "a/sockets");
  EXPECT_EQ(CodeOf("ipc://" + (folder / "a/sockets") + "/s"), ErrorCode{});
  ASSERT_EQ(::chmod((folder / "a/sockets").c_str(), 0755), 0);
  EXPECT_THROW(MakePrivateFolder(folder / "a/sockets"), Error);
}

}  // namespace
}  // namespace plumb
