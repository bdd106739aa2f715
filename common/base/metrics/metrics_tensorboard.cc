// TensorBoard's event files: TFRecord frames around hand-encoded protobuf messages.
//
//   frame    uint64 length | masked crc of the length | length bytes | masked crc of the bytes
//   Event    1: double wall_time   2: int64 step   3: string file_version   5: Summary   7:
//                                                  SessionLog {1: status}
//   Summary  1: repeated Value {1: string tag   2: float simple_value}
#include <unistd.h>

#include <cmath>
#include <cstring>

#include "common/base/hash/crc32c.h"
#include "common/base/metrics/metrics.h"

namespace plumb {
namespace {

constexpr uint64_t kSessionStart = 1;  // SessionLog.START: forget everything from this step on

void AppendVarint(std::string& out, uint64_t v) {
  for (; v >= 0x80; v >>= 7) out.push_back(static_cast<char>(v | 0x80));
  out.push_back(static_cast<char>(v));
}
template <class T>
void AppendRaw(std::string& out, T v) {
  char bytes[sizeof(T)];
  std::memcpy(bytes, &v, sizeof(T));
  out.append(bytes, sizeof(T));
}
enum WireType : uint64_t { kVarint = 0, kFixed64 = 1, kBytes = 2, kFixed32 = 5 };
void AppendTag(std::string& out, uint64_t field, WireType type) {
  AppendVarint(out, field << 3 | type);
}
void AppendBytes(std::string& out, uint64_t field, std::string_view bytes) {
  AppendTag(out, field, kBytes);
  AppendVarint(out, bytes.size());
  out.append(bytes);
}

std::string EventHead(double wall_s, int64_t step) {
  std::string event;
  AppendTag(event, 1, kFixed64);
  AppendRaw(event, wall_s);
  AppendTag(event, 2, kVarint);
  AppendVarint(event, static_cast<uint64_t>(step));
  return event;
}

// A sum over data that holds sums is weak: hence the mask.
uint32_t Masked(std::string_view bytes) {
  const uint32_t crc = Crc32c(bytes);
  return ((crc >> 15) | (crc << 17)) + 0xa282ead8u;
}

class TensorBoardSink final : public MetricsSink {
 public:
  TensorBoardSink(const std::string& folder, FileSystem& files, Clock& clock) {
    files.CreateDirectories(folder);
    char host[256] = "localhost";
    ::gethostname(host, sizeof host - 1);
    // TensorBoard reads the files of a folder in the order of their names: seconds first, then what
    // tells starts within one second apart.
    const int64_t now_ms = clock.WallMs();
    std::string path;
    for (int n = 0; path.empty() || files.Exists(path); ++n) {
      char name[96];
      std::snprintf(name, sizeof name, "/events.out.tfevents.%010lld.%03lld.%03d.",
                    static_cast<long long>(now_ms / 1000), static_cast<long long>(now_ms % 1000),
                    n);
      path = folder + name + host + ".plumb";
    }
    file_ = files.OpenAppend(path);
    std::string event = EventHead(static_cast<double>(now_ms) / 1000.0, 0);
    AppendBytes(event, 3, "brain.Event:2");
    WriteRecord(event);
  }

  void Write(int64_t step, double wall_s, const std::map<std::string, double>& values) override {
    if (!started_) {
      std::string event = EventHead(wall_s, step), session;
      AppendTag(session, 1, kVarint);
      AppendVarint(session, kSessionStart);
      AppendBytes(event, 7, session);
      WriteRecord(event);
      started_ = true;
    }
    std::string summary;
    for (const auto& [name, value] : values) {
      std::string entry;
      AppendBytes(entry, 1, name);
      AppendTag(entry, 2, kFixed32);
      AppendRaw(entry, static_cast<float>(value));  // NaN is shown as a gap
      AppendBytes(summary, 1, entry);
    }
    std::string event = EventHead(wall_s, step);
    AppendBytes(event, 5, summary);
    WriteRecord(event);
  }

 private:
  void WriteRecord(std::string_view data) {
    std::string frame;
    AppendRaw(frame, static_cast<uint64_t>(data.size()));
    AppendRaw(frame, Masked(frame));
    frame.append(data);
    AppendRaw(frame, Masked(data));
    file_->Append(frame);
  }

  std::unique_ptr<AppendFile> file_;
  bool started_ = false;
};

}  // namespace

std::unique_ptr<MetricsSink> MakeTensorBoardSink(const std::string& folder, FileSystem& files,
                                                 Clock& clock) {
  return std::make_unique<TensorBoardSink>(folder, files, clock);
}

}  // namespace plumb
