#include "common/net/local_address.h"

#include <netdb.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <memory>

#include "common/base/error.h"

namespace plumb {
namespace {

constexpr char kAnyPort[] = "9";  // nothing is sent there

[[noreturn]] void Fail(const std::string& why, const std::string& host) {
  throw Error(ErrorCode::kUnavailable, "no way leads there: " + why, host);
}

}  // namespace

std::string LocalAddressTowards(const std::string& host) {
  const bool bracketed = host.size() > 2 && host.front() == '[' && host.back() == ']';
  const std::string name = bracketed ? host.substr(1, host.size() - 2) : host;
  addrinfo hints{};
  hints.ai_socktype = SOCK_DGRAM;
  addrinfo* found = nullptr;
  if (const int code = getaddrinfo(name.c_str(), kAnyPort, &hints, &found); code != 0)
    Fail(gai_strerror(code), host);
  const std::unique_ptr<addrinfo, void (*)(addrinfo*)> list(found, &freeaddrinfo);
  std::string why = "no address";
  for (const addrinfo* each = list.get(); each; each = each->ai_next) {
    const int fd = socket(each->ai_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0) {
      why = std::strerror(errno);
      continue;
    }
    sockaddr_storage own{};
    socklen_t size = sizeof own;
    char text[NI_MAXHOST] = "";
    const bool known = connect(fd, each->ai_addr, each->ai_addrlen) == 0 &&
                       getsockname(fd, reinterpret_cast<sockaddr*>(&own), &size) == 0 &&
                       getnameinfo(reinterpret_cast<const sockaddr*>(&own), size, text, sizeof text,
                                   nullptr, 0, NI_NUMERICHOST) == 0;
    if (!known) why = std::strerror(errno);
    close(fd);
    if (known) return each->ai_family == AF_INET6 ? "[" + std::string(text) + "]" : text;
  }
  Fail(why, host);
}

}  // namespace plumb
