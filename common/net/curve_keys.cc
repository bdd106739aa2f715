#include "common/net/curve_keys.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zmq.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <sstream>

#include "common/base/error.h"
#include "common/base/file.h"
#include "common/base/text.h"

namespace plumb {
namespace {

constexpr size_t kKeyText = 40;
constexpr size_t kMaxKeyFile = 4 << 20;

bool IsKey(const std::string& text) {
  if (text.size() != kKeyText) return false;
  uint8_t raw[32];
  return zmq_z85_decode(raw, text.c_str()) != nullptr;
}

std::string ReadText(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file)
    throw Error(ErrorCode::kNotFound, std::string("cannot read the keys: ") + std::strerror(errno),
                path);
  std::string text(kMaxKeyFile + 1, '\0');
  file.read(text.data(), static_cast<std::streamsize>(text.size()));
  text.resize(static_cast<size_t>(file.gcount()));
  if (text.size() > kMaxKeyFile)
    throw Error(ErrorCode::kInvalidArgument, "too large to be a file of keys", path);
  return text;
}

void WriteNew(const std::string& path, const std::string& text, mode_t mode) {
  const int fd = ::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode);
  if (fd < 0 && errno == EEXIST) {
    throw Error(ErrorCode::kConflict,
                "is there already; a key in use is not overwritten: choose another name", path);
  }
  if (fd < 0) ThrowFileError(errno, "cannot write the key", path);
  const bool ok = ::fchmod(fd, mode) == 0 &&
                  ::write(fd, text.data(), text.size()) == static_cast<ssize_t>(text.size()) &&
                  ::fsync(fd) == 0;
  const int error = errno;
  ::close(fd);
  if (!ok) {
    ::unlink(path.c_str());
    ThrowFileError(error, "cannot write the key", path);
  }
}

}  // namespace

CurveKeys GenerateCurveKeys() {
  char public_key[kKeyText + 1], secret_key[kKeyText + 1];
  if (zmq_curve_keypair(public_key, secret_key) != 0) {
    throw Error(ErrorCode::kUnsupported, "this ZeroMQ was built without CURVE (libsodium)");
  }
  return {public_key, secret_key};
}

void WriteCurveKeys(const std::string& path, const CurveKeys& keys) {
  WriteNew(path + ".key",
           "# keep this file to yourself\npublic " + keys.public_key + "\nsecret " +
               keys.secret_key + "\n",
           0600);
  try {
    WriteNew(path + ".pub", keys.public_key + "\n", 0644);
  } catch (...) {
    ::unlink((path + ".key").c_str());  // both or none
    throw;
  }
}

CurveKeys ReadCurveKeys(const std::string& key_file) {
  struct stat info {};
  if (::stat(key_file.c_str(), &info) != 0) {
    throw Error(ErrorCode::kNotFound,
                std::string("no such key file (make one with `plumb keys generate`): ") +
                    std::strerror(errno),
                key_file);
  }
  if ((info.st_mode & (S_IRWXG | S_IRWXO)) != 0) {
    throw Error(ErrorCode::kUnsupported, "others can read this secret key: chmod 600 it", key_file);
  }
  CurveKeys keys;
  std::istringstream lines(ReadText(key_file));
  for (std::string line; std::getline(lines, line);) {
    std::istringstream words(line);
    std::string what, value;
    words >> what >> value;
    if (what == "public") keys.public_key = value;
    if (what == "secret") keys.secret_key = value;
  }
  char derived[kKeyText + 1];
  if (!IsKey(keys.public_key) || !IsKey(keys.secret_key)) {
    throw Error(ErrorCode::kInvalidArgument,
                "has no lines 'public KEY' and 'secret KEY' with keys of 40 characters", key_file);
  }
  if (zmq_curve_public(derived, keys.secret_key.c_str()) != 0 || keys.public_key != derived) {
    throw Error(ErrorCode::kInvalidArgument, "its public key does not belong to its secret key",
                key_file);
  }
  return keys;
}

std::string ReadPublicKey(const std::string& file_or_key) {
  if (IsKey(file_or_key)) return file_or_key;
  const std::string text(Trim(ReadText(file_or_key)));
  if (!IsKey(text))
    throw Error(ErrorCode::kInvalidArgument, "is no public key (one line of 40 characters)",
                file_or_key);
  return text;
}

std::vector<std::string> ReadAllowedKeys(const std::string& file) {
  std::vector<std::string> keys;
  std::istringstream lines(ReadText(file));
  int number = 0;
  for (std::string line; std::getline(lines, line);) {
    ++number;
    // '#' is a character of keys as well: a comment begins a line or stands behind a space.
    const std::string text(Trim(line));
    if (text.empty() || (text[0] == '#' && !IsKey(text))) continue;
    const std::string key = text.substr(0, text.find_first_of(" \t"));
    if (!IsKey(key)) {
      throw Error(ErrorCode::kInvalidArgument,
                  "line " + std::to_string(number) + " is no public key of 40 characters", file);
    }
    keys.push_back(key);
  }
  return keys;
}

AllowedKeys::AllowedKeys(std::string file) : file_(std::move(file)) {
  const Stamp stamp = Look(file_);
  keys_ = ReadAllowedKeys(file_);
  stamp_ = stamp;
}

AllowedKeys::Stamp AllowedKeys::Look(const std::string& file) {
  struct stat info {};
  if (::stat(file.c_str(), &info) != 0) return {};
  return {info.st_ino, info.st_size,
          info.st_mtim.tv_sec * int64_t{1000000000} + info.st_mtim.tv_nsec};
}

bool AllowedKeys::Allows(const std::string& public_key) {
  MutexLock lock(mu_);
  if (const Stamp now = Look(file_); !(now == stamp_)) {
    stamp_ = now;
    try {
      keys_ = ReadAllowedKeys(file_);
    } catch (const Error&) {
      keys_.clear();
    }
  }
  return std::find(keys_.begin(), keys_.end(), public_key) != keys_.end();
}

}  // namespace plumb
