#include "common/net/endpoint.h"

#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <filesystem>
#include <string_view>

#include "common/base/error.h"
#include "common/base/file.h"

namespace plumb {
namespace {

constexpr size_t kMaxIpcPath = sizeof(sockaddr_un{}.sun_path) - 1;  // 107
constexpr mode_t kOthers = S_IRWXG | S_IRWXO;

void CheckPrivate(const std::string& folder, const std::string& where) {
  struct stat info {};
  if (::lstat(folder.c_str(), &info) != 0)
    ThrowFileError(errno, "cannot look at the folder of the socket", folder);
  if (!S_ISDIR(info.st_mode))
    throw Error(ErrorCode::kInvalidArgument, "'" + folder + "' is not a folder", where);
  if (info.st_uid != ::geteuid() || (info.st_mode & kOthers) != 0) {
    throw Error(ErrorCode::kUnsupported,
                "others can reach the folder '" + folder +
                    "': it has to belong to this user with mode 0700 (chmod 700)",
                where);
  }
}

void CheckIpc(const std::string& path, const std::string& endpoint) {
  if (path.empty() || path[0] != '/') {
    throw Error(ErrorCode::kInvalidArgument, "an ipc endpoint is ipc:// and an absolute path",
                endpoint);
  }
  if (path.size() > kMaxIpcPath) {
    throw Error(ErrorCode::kInvalidArgument,
                "the path of the socket has " + std::to_string(path.size()) +
                    " bytes, the system allows " + std::to_string(kMaxIpcPath) +
                    ": choose a shorter folder",
                endpoint);
  }
  const std::filesystem::path full(path);
  if (!full.has_filename())
    throw Error(ErrorCode::kInvalidArgument, "the path of the socket names a folder", endpoint);
  CheckPrivate(full.parent_path().string(), endpoint);
}

bool IsLoopback(std::string_view host) {
  if (host == "[::1]") return true;
  // 127.a.b.c in numbers: a name could resolve to anything.
  if (host.substr(0, 4) != "127.") return false;
  int dots = 0;
  for (const char c : host) {
    if (c == '.') ++dots;
    else if (c < '0' || c > '9') return false;
  }
  return dots == 3 && host.back() != '.';
}

void CheckTcp(std::string_view address, bool bind, bool keyed, const std::string& endpoint) {
  const size_t colon = address.rfind(':');
  if (colon == std::string_view::npos || colon == 0) {
    throw Error(ErrorCode::kInvalidArgument, "a tcp endpoint is tcp://127.0.0.1:PORT", endpoint);
  }
  const std::string_view host = address.substr(0, colon), port = address.substr(colon + 1);
  if (!keyed && !IsLoopback(host)) {
    throw Error(ErrorCode::kUnsupported,
                "'" + std::string(host) +
                    "' is not a loopback address in numbers (127.0.0.1 or [::1]): this socket is "
                    "not guarded by keys, so others must not reach it",
                endpoint);
  }
  if (bind && port == "*") return;
  int number = 0;
  const auto end = std::from_chars(port.data(), port.data() + port.size(), number);
  if (end.ec != std::errc() || end.ptr != port.data() + port.size() || number < 1 ||
      number > 65535) {
    throw Error(ErrorCode::kInvalidArgument, "'" + std::string(port) + "' is not a port number",
                endpoint);
  }
}

}  // namespace

void CheckEndpoint(const std::string& endpoint, bool bind, bool keyed) {
  constexpr std::string_view kIpc = "ipc://", kTcp = "tcp://";
  if (endpoint.find('\0') != std::string::npos || endpoint.find(';') != std::string::npos) {
    throw Error(ErrorCode::kInvalidArgument, "an endpoint is one plain address", endpoint);
  }
  if (endpoint.rfind(kIpc, 0) == 0) return CheckIpc(endpoint.substr(kIpc.size()), endpoint);
  if (endpoint.rfind(kTcp, 0) == 0)
    return CheckTcp(std::string_view(endpoint).substr(kTcp.size()), bind, keyed, endpoint);
  throw Error(ErrorCode::kInvalidArgument, "an endpoint begins with ipc:// or tcp://", endpoint);
}

void MakePrivateFolder(const std::string& folder) {
  const std::string parent = std::filesystem::path(folder).parent_path().string();
  if (!parent.empty()) RealFileSystem().CreateDirectories(parent);
  if (::mkdir(folder.c_str(), 0700) != 0 && errno != EEXIST)
    ThrowFileError(errno, "cannot create the folder", folder);
  CheckPrivate(folder, folder);
}

}  // namespace plumb
