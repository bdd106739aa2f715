// Bytes between a socket file and a port of the loopback, in both directions and to the end.
#include "common/sandbox/socket_relay.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>
#include <thread>

#include "common/base/error.h"
#include "tests/testing/temp_folder.h"

namespace plumb {
namespace {

// Listens on a free port of the loopback and answers each connection with what it got, twice.
class Echo {
 public:
  Echo() : listener_(socket(AF_INET, SOCK_STREAM, 0)) {
    sockaddr_in address = {};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    EXPECT_EQ(bind(listener_, reinterpret_cast<sockaddr*>(&address), size), 0);
    EXPECT_EQ(listen(listener_, 16), 0);
    getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &size);
    port = ntohs(address.sin_port);
    thread_ = std::thread([this] {
      for (int fd; (fd = accept(listener_, nullptr, nullptr)) >= 0; close(fd)) {
        std::string all;
        char buffer[4096];
        for (ssize_t n; (n = read(fd, buffer, sizeof buffer)) > 0;)
          all.append(buffer, static_cast<size_t>(n));
        all += all;
        for (size_t at = 0; at < all.size();) {
          const ssize_t n = send(fd, all.data() + at, all.size() - at, MSG_NOSIGNAL);
          if (n <= 0) break;
          at += static_cast<size_t>(n);
        }
      }
    });
  }
  ~Echo() {
    shutdown(listener_, SHUT_RDWR);
    thread_.join();
    close(listener_);
  }
  int port = 0;

 private:
  int listener_;
  std::thread thread_;
};

// What comes back for `text`.
std::string Ask(int fd, const std::string& text) {
  std::thread writer([&] {
    for (size_t at = 0; at < text.size();) {
      const ssize_t n = send(fd, text.data() + at, text.size() - at, MSG_NOSIGNAL);
      if (n <= 0) break;
      at += static_cast<size_t>(n);
    }
    shutdown(fd, SHUT_WR);
  });
  std::string all;
  char buffer[4096];
  for (ssize_t n; (n = read(fd, buffer, sizeof buffer)) > 0;)
    all.append(buffer, static_cast<size_t>(n));
  writer.join();
  close(fd);
  return all;
}

int ConnectFile(const std::string& path) {
  const int fd = socket(AF_UNIX, SOCK_STREAM, 0);
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  std::strncpy(address.sun_path, path.c_str(), sizeof address.sun_path - 1);
  EXPECT_EQ(connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
  return fd;
}

TEST(SocketRelay, CarriesBothWaysToTheEnd) {
  const testing::TempFolder temp;
  const std::string path = temp.path() + "/socket";
  Echo echo;
  {
    SocketRelay relay(path, echo.port);
    struct stat info {};
    ASSERT_EQ(stat(path.c_str(), &info), 0);
    EXPECT_EQ(info.st_mode & 0777, 0600u);
    EXPECT_EQ(Ask(ConnectFile(path), "hello"), "hellohello");
    const std::string much(3'000'000, 'x');  // more than any buffer between
    EXPECT_EQ(Ask(ConnectFile(path), much).size(), 2 * much.size());
    for (int i = 0; i < 20; ++i)
      EXPECT_EQ(Ask(ConnectFile(path), std::to_string(i)).size() % 2, 0u);
  }
  EXPECT_NE(access(path.c_str(), F_OK), 0) << "the file goes with it";
}

TEST(SocketRelay, TheOtherSideIsAProcessOfItsOwn) {
  const testing::TempFolder temp;
  const std::string path = temp.path() + "/socket";
  Echo echo;
  SocketRelay relay(path, echo.port);
  int free_port = 0;
  {
    Echo other;
    free_port = other.port;
  }
  // It ends with the process that it was started from.
  const pid_t host = fork();
  if (host == 0) {
    if (StartLoopbackRelay(free_port, path)) _exit(1);
    pause();
    _exit(0);
  }
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(free_port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  const auto connected = [&] {
    const int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0) return fd;
    close(fd);
    return -1;
  };
  int fd = -1;
  for (int i = 0; i < 200 && (fd = connected()) < 0; ++i) usleep(10'000);
  ASSERT_GE(fd, 0);
  EXPECT_EQ(Ask(fd, "through both"), "through boththrough both");
  kill(host, SIGKILL);
  waitpid(host, nullptr, 0);
  bool gone = false;
  for (int i = 0; i < 200 && !gone; ++i) {
    fd = connected();
    gone = fd < 0;
    if (!gone) close(fd), usleep(10'000);
  }
  EXPECT_TRUE(gone);
}

TEST(SocketRelay, WhatCannotBeIsSaid) {
  const testing::TempFolder temp;
  EXPECT_THROW(SocketRelay(temp.path() + "/" + std::string(120, 'x'), 1), Error);
  Echo taken;
  EXPECT_TRUE(StartLoopbackRelay(taken.port, temp.path() + "/socket"));
}

}  // namespace
}  // namespace plumb
