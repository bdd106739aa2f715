#include "replay/store/log_check.h"

#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <functional>
#include <memory>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

#include "common/base/error.h"
#include "common/base/file.h"
#include "common/base/hash/crc32c.h"

namespace plumb::replay {
namespace {

constexpr size_t kBlock = 32768, kHeader = 7, kTypeAt = 6;

struct Header {
  uint32_t crc = 0;  // unmasked
  size_t length = 0;
  bool zero = false;
};

Header ReadHeader(std::string_view at) {
  const auto byte = [&](size_t i) { return static_cast<uint32_t>(static_cast<uint8_t>(at[i])); };
  const uint32_t masked = (byte(0) | byte(1) << 8 | byte(2) << 16 | byte(3) << 24) - 0xA282EAD8u;
  return {masked >> 17 | masked << 15, byte(4) | byte(5) << 8,
          at.substr(0, kHeader).find_first_not_of('\0') == at.npos};
}

bool Matches(std::string_view rest, size_t length) {
  return Crc32c(rest.substr(kTypeAt, 1 + length)) == ReadHeader(rest).crc;
}

// `rest` is the end of the file and its record claims to go further. Torn by a crash, or whole with
// a wrong length: then some other length matches, and behind it the file ends or the next record
// matches as well (one match alone may be chance).
bool LengthWasChanged(std::string_view rest) {
  uint32_t sum = Crc32c(rest.substr(kTypeAt, 1));
  const uint32_t crc = ReadHeader(rest).crc;
  for (size_t length = 0; kHeader + length <= rest.size(); ++length) {
    if (sum == crc) {
      const std::string_view behind = rest.substr(kHeader + length);
      if (behind.size() < kHeader) return true;
      const Header next = ReadHeader(behind);
      if (next.zero || kHeader + next.length > behind.size() || Matches(behind, next.length))
        return true;
    }
    if (kHeader + length < rest.size()) sum = Crc32c(rest.substr(kHeader + length, 1), sum);
  }
  return false;
}

class LogFile {
 public:
  LogFile(std::string path, std::FILE* file) : path_(std::move(path)), file_(file, &std::fclose) {}

  std::optional<LogDamage> FindDamage() {
    std::vector<char> buffer(kBlock);
    for (bool last = false; !last && !damage_ && !torn_; at_ += kBlock) {
      const std::string_view block = ReadBlock(buffer);
      last = block.size() < kBlock;
      CheckBlock(block, last);
    }
    return damage_;
  }

  void Read(uint64_t from, const std::function<void(std::string_view)>& use) {
    at_ = from / kBlock * kBlock;
    if (fseeko(file_.get(), static_cast<off_t>(at_), SEEK_SET) != 0)
      ThrowFileError(errno, "cannot read", path_);
    std::vector<char> buffer(kBlock);
    std::string gathered;  // of a record that crosses blocks
    bool begun = false;
    for (size_t at = from - at_;; at = 0) {
      const std::string_view block = ReadBlock(buffer);
      while (at < block.size() && block.size() - at >= kHeader) {
        const std::string_view rest = block.substr(at);
        const Header header = ReadHeader(rest);
        if (header.zero) break;
        const size_t next = at + kHeader + header.length;
        if (next > block.size() || !Matches(rest, header.length)) {
          begun = false;
          // Damaged: where it says that it ends another one has to begin, else its length is not
          // its own, and what is sure is the next block.
          const bool goes_on = next <= block.size() && BeginsAt(block, next);
          if (!goes_on) break;
          at = next;
          continue;
        }
        const std::string_view payload = rest.substr(kHeader, header.length);
        const char type = rest[kTypeAt];
        if (type == kWhole || type == kFirst) gathered.clear();
        begun = type == kWhole || type == kFirst || begun;
        if (begun) gathered += payload;
        if (begun && (type == kWhole || type == kLast)) {
          use(gathered);
          begun = false;
        }
        at = next;
      }
      if (block.size() < kBlock) return;
    }
  }

 private:
  static constexpr char kWhole = 1, kFirst = 2, kLast = 4;

  static bool BeginsAt(std::string_view block, size_t at) {
    if (block.size() - at < kHeader) return true;
    const std::string_view rest = block.substr(at);
    const Header header = ReadHeader(rest);
    return header.zero || (kHeader + header.length <= rest.size() && Matches(rest, header.length));
  }

  std::string_view ReadBlock(std::vector<char>& buffer) {
    const size_t size = std::fread(buffer.data(), 1, kBlock, file_.get());
    if (std::ferror(file_.get()) != 0) ThrowFileError(errno, "cannot read", path_);
    return {buffer.data(), size};
  }

  void CheckBlock(std::string_view block, bool last) {
    size_t at = 0;
    while (block.size() - at >= kHeader) {
      const std::string_view rest = block.substr(at);
      const Header header = ReadHeader(rest);
      // space that was set aside and never written: nothing comes behind it
      if (ended_ || header.zero) {
        ended_ = true;
        break;
      }
      if (kHeader + header.length > rest.size()) {
        // torn: a crash leaves that, and nobody was told that it is there
        torn_ = last && kHeader + header.length <= kBlock - at && !LengthWasChanged(rest);
        if (!torn_) Damaged(at, "has a length that is not its own");
        return;
      }
      if (!Matches(rest, header.length)) return Damaged(at, "does not match its checksum");
      at += kHeader + header.length;
    }
    const size_t stray = block.find_first_not_of('\0', at);
    // Less than a header at the end of the file is a torn one; elsewhere it is filled with zeros.
    if (stray != block.npos && (ended_ || !last))
      Damaged(stray, "is written where nothing should be");
  }

  void Damaged(size_t at, const std::string& what) { damage_ = {at_ + at, what}; }

  const std::string path_;
  const std::unique_ptr<std::FILE, int (*)(std::FILE*)> file_;
  uint64_t at_ = 0;     // of the block
  bool ended_ = false;  // zeros have begun
  bool torn_ = false;   // the last record is
  std::optional<LogDamage> damage_;
};

LogFile OpenLog(const std::string& path) {
  std::FILE* file = std::fopen(path.c_str(), "rbe");
  if (file == nullptr) ThrowFileError(errno, "cannot open", path);
  return LogFile(path, file);
}

// Empty: none that is there.
std::string NameInCurrent(const std::string& folder) {
  constexpr size_t kMaxName = 4096;
  constexpr std::string_view kPrefix = "MANIFEST-";
  std::string name = RealFileSystem().ReadFile(folder + "/CURRENT", kMaxName);
  if (name.ends_with('\n')) name.pop_back();
  const bool good = name.starts_with(kPrefix) &&
                    name.find_first_not_of("0123456789", kPrefix.size()) == name.npos;
  return good && RealFileSystem().Exists(folder + "/" + name) ? name : "";
}

}  // namespace

std::optional<LogDamage> FindLogDamage(const std::string& path) {
  return OpenLog(path).FindDamage();
}

void ReadLog(const std::string& path, uint64_t from,
             const std::function<void(std::string_view)>& use) {
  OpenLog(path).Read(from, use);
}

void CheckLogFile(const std::string& path) {
  std::FILE* file = std::fopen(path.c_str(), "rbe");
  if (file == nullptr && errno == ENOENT) return;
  if (file == nullptr) ThrowFileError(errno, "cannot open", path);
  const std::optional<LogDamage> damage = LogFile(path, file).FindDamage();
  if (!damage) return;
  throw Error(ErrorCode::kCorruption,
              "the record at byte " + std::to_string(damage->byte) + " " + damage->what +
                  ": the file was damaged after it was written, and what stands behind that byte "
                  "cannot be trusted; nothing was changed: bring the folder back from a copy "
                  "(`plumb store snapshot` makes them)" +
                  (path.ends_with(".log")
                       ? ", or see what a copy up to that byte would lack: `plumb store recover "
                         "--point-in-time`"
                       : ""),  // a MANIFEST has no copy up to a byte
              path);
}

void CheckLogs(const std::string& folder) {
  for (const std::string& name : RealFileSystem().List(folder)) {
    if (name.ends_with(".log")) CheckLogFile(folder + "/" + name);
  }
  // A store that is being written may change to another MANIFEST between the two looks.
  std::string manifest = NameInCurrent(folder);
  if (manifest.empty()) manifest = NameInCurrent(folder);
  if (manifest.empty()) {
    throw Error(ErrorCode::kCorruption,
                "does not name a MANIFEST file that is there: it was damaged after it was written; "
                "nothing was changed: bring "
                "the folder back from a copy (`plumb store snapshot` makes them)",
                folder + "/CURRENT");
  }
  CheckLogFile(folder + "/" + manifest);
}

}  // namespace plumb::replay
