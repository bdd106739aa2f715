// TFRecord frames around hand-written protobuf messages, of which these fields are written:
//
//   frame            uint64 length | masked crc of the length | bytes | masked crc of the bytes
//   Event            1 double wall_time  2 int64 step  3 file_version  5 Summary  7 SessionLog
//   SessionLog       1 status
//   Summary          1 repeated Value
//   Value            1 tag  2 float simple_value  8 TensorProto  9 SummaryMetadata
//   TensorProto      1 dtype  2 TensorShapeProto  5 repeated float  8 repeated bytes
//   TensorShapeProto 2 repeated Dim {1 size}
//   SummaryMetadata  1 PluginData {1 plugin_name, 2 content}  4 data_class
//   the content of "hparams":
//   HParamsPluginData  3 SessionStartInfo  4 SessionEndInfo
//   SessionStartInfo   1 map of name (1) to Value (2)  5 double start_time_secs
//   Value              2 double  3 string  4 bool
//   SessionEndInfo     1 status  2 double end_time_secs
#include "common/base/metrics/tensorboard.h"

#include <unistd.h>

#include <cstdio>
#include <cstring>

#include "common/base/hash/crc32c.h"
#include "common/base/metrics/proto_message.h"

namespace plumb {
namespace {

constexpr uint64_t kSessionStart = 1;      // SessionLog.START: forget everything from this step on
constexpr uint64_t kTensorClass = 2;       // DataClass.DATA_CLASS_TENSOR
constexpr uint64_t kFloat = 1, kText = 7;  // DataType.DT_FLOAT, DT_STRING
constexpr uint64_t kSuccess = 1;           // hparams.Status.STATUS_SUCCESS

// A sum over data that holds sums is weak: hence the mask.
uint32_t Masked(std::string_view bytes) {
  const uint32_t crc = Crc32c(bytes);
  return ((crc >> 15) | (crc << 17)) + 0xa282ead8u;
}

template <class T>
void AppendRaw(std::string& out, T v) {
  char bytes[sizeof(T)];
  std::memcpy(bytes, &v, sizeof(T));
  out.append(bytes, sizeof(T));
}

ProtoMessage Event(double wall_s, int64_t step) {
  return ProtoMessage().Double(1, wall_s).Varint(2, static_cast<uint64_t>(step));
}

ProtoMessage Metadata(std::string_view plugin, const ProtoMessage& content) {
  return ProtoMessage()
      .Message(1, ProtoMessage().Bytes(1, plugin).Message(2, content))
      .Varint(4, kTensorClass);
}

ProtoMessage ValueOf(const HyperParameters::mapped_type& value) {
  ProtoMessage out;
  if (const bool* flag = std::get_if<bool>(&value)) out.Varint(4, *flag ? 1 : 0);
  else if (const double* number = std::get_if<double>(&value)) out.Double(2, *number);
  else out.Bytes(3, std::get<std::string>(value));
  return out;
}

class EventFile final : public TensorBoardSink {
 public:
  EventFile(const std::string& folder, FileSystem& files, Clock& clock) {
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
    WriteRecord(Event(static_cast<double>(now_ms) / 1000.0, 0).Bytes(3, "brain.Event:2"));
  }

  void Write(int64_t step, double wall_s, const std::map<std::string, double>& values) override {
    Start(step, wall_s);
    ProtoMessage summary;
    for (const auto& [name, value] : values) {
      // NaN is shown as a gap
      summary.Message(1, ProtoMessage().Bytes(1, name).Float(2, static_cast<float>(value)));
    }
    WriteRecord(Event(wall_s, step).Message(5, summary));
  }

  void Text(int64_t step, double wall_s, const std::string& tag,
            const std::string& markdown) override {
    Start(step, wall_s);
    const ProtoMessage tensor =
        ProtoMessage().Varint(1, kText).Message(2, ProtoMessage()).Bytes(8, markdown);
    WriteTensor(step, wall_s, tag, tensor, Metadata("text", ProtoMessage()));
  }

  void BeginSession(int64_t step, double wall_s, const HyperParameters& values) override {
    Start(step, wall_s);
    ProtoMessage begin;
    for (const auto& [name, value] : values)
      begin.Message(1, ProtoMessage().Bytes(1, name).Message(2, ValueOf(value)));
    begin.Double(5, wall_s);
    WriteSession(step, wall_s, "_hparams_/session_start_info", ProtoMessage().Message(3, begin));
  }

  void EndSession(int64_t step, double wall_s) override {
    Start(step, wall_s);
    const ProtoMessage end = ProtoMessage().Varint(1, kSuccess).Double(2, wall_s);
    WriteSession(step, wall_s, "_hparams_/session_end_info", ProtoMessage().Message(4, end));
  }

 private:
  void Start(int64_t step, double wall_s) {
    if (started_) return;
    WriteRecord(Event(wall_s, step).Message(7, ProtoMessage().Varint(1, kSessionStart)));
    started_ = true;
  }

  void WriteTensor(int64_t step, double wall_s, const std::string& tag, const ProtoMessage& tensor,
                   const ProtoMessage& metadata) {
    const ProtoMessage value = ProtoMessage().Bytes(1, tag).Message(8, tensor).Message(9, metadata);
    WriteRecord(Event(wall_s, step).Message(5, ProtoMessage().Message(1, value)));
  }

  // What is said stands in the metadata; the tensor has to be there and is one 0.
  void WriteSession(int64_t step, double wall_s, const std::string& tag,
                    const ProtoMessage& content) {
    const ProtoMessage shape = ProtoMessage().Message(2, ProtoMessage().Varint(1, 1));
    const ProtoMessage nothing = ProtoMessage().Varint(1, kFloat).Message(2, shape).Float(5, 0);
    WriteTensor(step, wall_s, tag, nothing, Metadata("hparams", content));
  }

  void WriteRecord(const ProtoMessage& message) {
    const std::string& data = message.bytes();
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

std::unique_ptr<TensorBoardSink> MakeTensorBoardSink(const std::string& folder, FileSystem& files,
                                                     Clock& clock) {
  return std::make_unique<EventFile>(folder, files, clock);
}

}  // namespace plumb
