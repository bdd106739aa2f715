#include "run/board/board_server.h"

#include <gtest/gtest.h>

#include <chrono>
#include <filesystem>
#include <memory>
#include <set>

#include "common/base/error.h"
#include "run/board/board_page.h"
#include "tests/run/board/made_runs.h"
#include "tests/testing/http_get.h"
#include "tests/testing/temp_folder.h"

namespace plumb::run {
namespace {

using plumb::testing::HttpGet;
using plumb::testing::MadeRun;
using plumb::testing::RunMaker;
using plumb::testing::TempFolder;

TEST(HostAllowedTest, OnlyNamesThatAreTheServersOwn) {
  for (const char* host : {"localhost", "LOCALHOST:8642", "127.0.0.1", "127.0.0.1:1",
                           "127.1.2.3:80", "[::1]", "[::1]:8642"})
    EXPECT_TRUE(HostAllowed(host, /*loopback=*/true, {})) << host;
  for (const char* host : {"", "evil.example", "evil.example:8642", "localhost.evil.example",
                           "10.0.0.5", "127.0.0.1.evil.example", "localhost:80x", "[::1", "[::1]x",
                           "[evil]", "localhost@evil.example", "0.0.0.0", "2130706433"})
    EXPECT_FALSE(HostAllowed(host, true, {})) << host;
  // A server that others reach may be asked by any address, but by no name that it was not given: a
  // page elsewhere could have its own name point here.
  EXPECT_TRUE(HostAllowed("10.0.0.5:8642", false, {}));
  EXPECT_FALSE(HostAllowed("evil.example:8642", false, {}));
  EXPECT_TRUE(HostAllowed("Trainer.Lab:8642", false, {"trainer.lab"}));
  EXPECT_TRUE(IsLoopback("127.9.9.9"));
  EXPECT_FALSE(IsLoopback("128.0.0.1"));
}

TEST(BoardPageFilesTest, LoadsNothingFromOutside) {
  std::set<std::string_view> paths;
  for (const PageFile& file : BoardPage()) {
    paths.insert(file.path);
    std::string text(file.text);
    const std::string name_of_svg = "http://www.w3.org/2000/svg";  // is not fetched
    for (size_t at; (at = text.find(name_of_svg)) != std::string::npos;)
      text.erase(at, name_of_svg.size());
    for (const char* outside :
         {"http:", "https:", "//cdn", "@import", "url(//", "innerHTML", "eval("})
      EXPECT_EQ(text.find(outside), std::string::npos) << file.path << " has " << outside;
    // the policy refuses what stands in the page itself
    if (file.path == "/") {
      EXPECT_EQ(text.find("<style"), std::string::npos);
      EXPECT_EQ(text.find(" style="), std::string::npos);
      EXPECT_EQ(text.find(" onclick="), std::string::npos);
    }
    EXPECT_NE(file.type.find("charset=utf-8"), std::string_view::npos);
  }
  for (const char* path : {"/", "/board.css", "/board.js"})
    EXPECT_TRUE(paths.contains(path)) << path;
}

class BoardServerTest : public ::testing::Test {
 protected:
  void SetUp() override {
    try {
      MakeServer();
    } catch (const Error& e) {
      if (e.code() == ErrorCode::kUnsupported) GTEST_SKIP() << e.what();
      throw;
    }
  }
  void MakeServer() {
    MadeRun made;
    made.steps = 30;
    RunMaker(temp_ / "runs/a", made).WriteAll();
    RunMaker(temp_ / "runs/sweep/b c", made).WriteAll();
    RunMaker(temp_ / "secret", made).WriteAll();
    catalog_ = std::make_unique<RunCatalog>(std::vector<std::string>{temp_ / "runs"});
    server_ = std::make_unique<BoardServer>(*catalog_, BoardOptions{});
  }
  std::string Ask(const std::string& path, const std::string& method = "GET",
                  const std::string& host = "127.0.0.1", const std::string& more = "") {
    return HttpGet(server_->port(), method + " " + path + " HTTP/1.1\r\nHost: " + host + "\r\n" +
                                        more + "Connection: close\r\n\r\n");
  }
  static std::string StatusOf(const std::string& reply) { return reply.substr(0, 12); }
  static bool Has(const std::string& reply, const std::string& text) {
    return reply.find(text) != std::string::npos;
  }

  TempFolder temp_;
  std::unique_ptr<RunCatalog> catalog_;
  std::unique_ptr<BoardServer> server_;
};

TEST_F(BoardServerTest, ServesThePageAndTheApi) {
  EXPECT_EQ(server_->url(), "http://127.0.0.1:" + std::to_string(server_->port()) + "/");
  for (const PageFile& file : BoardPage()) {
    const std::string reply = Ask(std::string(file.path));
    EXPECT_EQ(StatusOf(reply), "HTTP/1.1 200") << file.path;
    EXPECT_TRUE(Has(reply, "Content-Security-Policy: default-src 'self'; ")) << file.path;
    EXPECT_TRUE(Has(reply, "X-Content-Type-Options: nosniff"));
    EXPECT_TRUE(reply.ends_with(file.text)) << file.path;
  }
  std::string reply = Ask("/api/runs");
  EXPECT_EQ(StatusOf(reply), "HTTP/1.1 200");
  EXPECT_TRUE(Has(reply, "application/json"));
  EXPECT_TRUE(Has(reply, "\"sweep/b c\""));
  EXPECT_TRUE(
      Has(Ask("/api/runs/sweep%2Fb%20c/series?keys=reward%2Fmean&points=5"), "\"last_step\":29"));
  EXPECT_EQ(StatusOf(Ask("/", "HEAD")), "HTTP/1.1 200");
}

TEST_F(BoardServerTest, OnlyShows) {
  for (const char* method : {"POST", "PUT", "DELETE", "PATCH", "OPTIONS"}) {
    for (const char* path : {"/", "/api/runs", "/api/events"}) {
      const std::string reply = Ask(path, method, "localhost", "Content-Length: 0\r\n");
      EXPECT_EQ(StatusOf(reply), "HTTP/1.1 405") << method << " " << path;
      EXPECT_TRUE(Has(reply, "Allow: GET, HEAD"));
    }
  }
}

TEST_F(BoardServerTest, ANameIsNoPath) {
  for (const char* path :
       {"/api/runs/none", "/api/runs/..%2F..%2Fsecret", "/api/runs/../../secret",
        "/api/runs/a%2F..%2F..%2F..%2Fsecret", "/api/runs/%2Fetc%2Fpasswd", "/api/runs/a%00b",
        "/../../etc/passwd", "/board.css/..", "/secret", "/api/runs/a/metrics.jsonl", "/boardXcss"})
    EXPECT_EQ(StatusOf(Ask(path)), "HTTP/1.1 404") << path;
}

TEST_F(BoardServerTest, AnswersNobodyWhoCallsItByAnotherName) {
  for (const char* path : {"/", "/api/runs", "/api/events"}) {
    const std::string reply = Ask(path, "GET", "evil.example:" + std::to_string(server_->port()));
    EXPECT_EQ(StatusOf(reply), "HTTP/1.1 421") << path;
    EXPECT_FALSE(Has(reply, "sweep"));
  }
  EXPECT_EQ(StatusOf(HttpGet(server_->port(), "GET / HTTP/1.1\r\nConnection: close\r\n\r\n")),
            "HTTP/1.1 421")
      << "no name at all";
  EXPECT_EQ(StatusOf(Ask("/api/runs", "GET", "localhost:" + std::to_string(server_->port()))),
            "HTTP/1.1 200");
}

TEST_F(BoardServerTest, TellsEventsAndEndsWithItsReaders) {
  const int fd = ::socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address.sin_port = htons(static_cast<uint16_t>(server_->port()));
  ASSERT_EQ(::connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
  const std::string request = "GET /api/events?run=a HTTP/1.1\r\nHost: localhost\r\n\r\n";
  ASSERT_EQ(::send(fd, request.data(), request.size(), MSG_NOSIGNAL),
            static_cast<ssize_t>(request.size()));
  std::string reply;
  const auto read_until = [&](const std::string& text) {
    char chunk[4096];
    while (!Has(reply, text)) {
      const ssize_t n = ::recv(fd, chunk, sizeof chunk, 0);
      if (n <= 0) return false;
      reply.append(chunk, static_cast<size_t>(n));
    }
    return true;
  };
  ASSERT_TRUE(read_until("\"sweep/b c\"")) << reply;
  EXPECT_TRUE(Has(reply, "text/event-stream"));
  MadeRun made;
  made.steps = 30;
  RunMaker maker(temp_ / "runs/a", made);
  maker.AppendTo("metrics.jsonl", maker.MetricsLine(30));
  ASSERT_TRUE(read_until("event: rows")) << reply;
  ASSERT_TRUE(read_until("\"step\":30")) << reply;
  // The server ends although somebody still reads.
  const auto begin = std::chrono::steady_clock::now();
  server_.reset();
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(3));
  EXPECT_FALSE(read_until("there is no such text")) << "the connection ends too";
  ::close(fd);
}

// More pages than there is room for: the ones too many are told so at once, and everybody's other
// questions are answered meanwhile.
TEST_F(BoardServerTest, TwoHundredReadersTakeNeitherThreadsNorDescriptors) {
  const auto entries = [](const char* folder) {
    return std::distance(std::filesystem::directory_iterator(folder),
                         std::filesystem::directory_iterator());
  };
  const auto fds_before = entries("/proc/self/fd");
  Ask("/api/runs");
  const auto threads_before = entries("/proc/self/task");
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address.sin_port = htons(static_cast<uint16_t>(server_->port()));
  std::vector<int> readers;
  const std::string request = "GET /api/events?run=a HTTP/1.1\r\nHost: localhost\r\n\r\n";
  const auto connect = [&] {
    const int fd = ::socket(AF_INET, SOCK_STREAM, 0);
    const timeval timeout{.tv_sec = 20, .tv_usec = 0};
    ::setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof timeout);
    EXPECT_EQ(::connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
    EXPECT_EQ(::send(fd, request.data(), request.size(), MSG_NOSIGNAL),
              static_cast<ssize_t>(request.size()));
    return fd;
  };
  const auto begins = [](int fd) {
    std::string text(2048, '\0');
    text.resize(static_cast<size_t>(std::max<ssize_t>(0, ::recv(fd, text.data(), 2048, 0))));
    return text;
  };
  const auto began = std::chrono::steady_clock::now();
  for (int i = 0; i < 200; ++i) readers.push_back(connect());
  int served = 0, refused = 0;
  for (const int fd : readers) {
    const std::string reply = begins(fd);
    if (StatusOf(reply) == "HTTP/1.1 200") {
      ++served;
    } else if (StatusOf(reply) == "HTTP/1.1 503") {
      ++refused;
      EXPECT_TRUE(Has(reply, "Retry-After: ")) << reply;
      EXPECT_TRUE(Has(reply, "Connection: close")) << reply;
    } else {
      ADD_FAILURE() << "neither served nor refused: " << reply;
    }
  }
  EXPECT_LT(std::chrono::steady_clock::now() - began, std::chrono::seconds(10))
      << "none of them keeps a thread, though they do not close";
  EXPECT_EQ(served, BoardOptions{}.max_readers);
  EXPECT_EQ(refused, 200 - BoardOptions{}.max_readers);
  EXPECT_LE(entries("/proc/self/task"), threads_before);
  for (int i = 0; i < 40; ++i) {
    const auto begin = std::chrono::steady_clock::now();
    EXPECT_EQ(StatusOf(Ask("/api/runs/a")), "HTTP/1.1 200");
    EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(2)) << i;
  }
  for (const int fd : readers) ::close(fd);
  // There is room again once the board has noticed that they left.
  std::string reply;
  for (int i = 0; i < 100 && StatusOf(reply) != "HTTP/1.1 200"; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
    const int fd = connect();
    reply = begins(fd);
    ::close(fd);
  }
  EXPECT_EQ(StatusOf(reply), "HTTP/1.1 200");
  for (int i = 0; i < 100 && entries("/proc/self/fd") > fds_before + 4; ++i)
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
  EXPECT_LE(entries("/proc/self/fd"), fds_before + 4);
}

TEST_F(BoardServerTest, APortInUseIsSaid) {
  BoardOptions options;
  options.port = server_->port();
  try {
    const BoardServer second(*catalog_, options);
    FAIL() << "the port was taken twice";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kConflict);
    EXPECT_EQ(e.where(), "127.0.0.1:" + std::to_string(options.port));
  }
}

}  // namespace
}  // namespace plumb::run
