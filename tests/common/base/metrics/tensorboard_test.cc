// TensorBoard's event files, read by a reader of our own: frames, sums, and every protobuf field;
// and by the tensorboard package where there is one. common/base/metrics/tensorboard.h
#include "common/base/metrics/tensorboard.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "common/base/hash/crc32c.h"
#include "common/base/metrics/proto_message.h"
#include "tests/testing/fake_clock.h"
#include "tests/testing/paths.h"
#include "tests/testing/temp_folder.h"

namespace plumb {
namespace {

using testing::FakeClock;
using testing::TempFolder;

// A message as its fields, numbers as they lay there, in order.
struct Field {
  uint64_t number = 0, wire_type = 0, value = 0;
  std::string bytes;
};

class Reader {
 public:
  explicit Reader(std::string bytes) : bytes_(std::move(bytes)) {}

  std::vector<Field> Fields() {
    std::vector<Field> out;
    while (at_ < bytes_.size()) {
      const uint64_t tag = Varint();
      Field field{.number = tag >> 3, .wire_type = tag & 7};
      switch (field.wire_type) {
        case 0: field.value = Varint(); break;
        case 1: field.value = Raw<uint64_t>(); break;
        case 2: {
          const uint64_t size = Varint();
          EXPECT_LE(size, bytes_.size() - at_);
          field.bytes = bytes_.substr(at_, size);
          at_ += size;
          break;
        }
        case 5: field.value = Raw<uint32_t>(); break;
        default: ADD_FAILURE() << "wire type " << field.wire_type; return out;
      }
      out.push_back(std::move(field));
    }
    return out;
  }

 private:
  uint64_t Varint() {
    uint64_t v = 0;
    for (int shift = 0; at_ < bytes_.size(); shift += 7) {
      const auto byte = static_cast<unsigned char>(bytes_[at_++]);
      v |= static_cast<uint64_t>(byte & 0x7f) << shift;
      if (byte < 0x80) return v;
    }
    ADD_FAILURE() << "a varint without an end";
    return v;
  }
  template <class T>
  T Raw() {
    T v{};
    EXPECT_LE(at_ + sizeof v, bytes_.size());
    std::memcpy(&v, bytes_.data() + at_, sizeof v);
    at_ += sizeof v;
    return v;
  }

  const std::string bytes_;
  size_t at_ = 0;
};

// The one field of this number; of a message in a message by several.
Field Only(const std::string& message, std::initializer_list<uint64_t> path) {
  Field found{.bytes = message};
  for (const uint64_t number : path) {
    int count = 0;
    Field next;
    for (Field& field : Reader(found.bytes).Fields()) {
      if (field.number != number) continue;
      next = std::move(field);
      ++count;
    }
    EXPECT_EQ(count, 1) << "fields of number " << number;
    found = std::move(next);
  }
  return found;
}

double AsDouble(uint64_t bits) {
  double v;
  std::memcpy(&v, &bits, sizeof v);
  return v;
}

// The events of the one file in `folder`; each frame's sums hold.
std::vector<std::string> Events(const std::string& folder) {
  const auto names = RealFileSystem().List(folder);
  EXPECT_EQ(names.size(), 1u);
  const std::string text = RealFileSystem().ReadFile(folder + "/" + names.at(0), size_t{1} << 24);
  std::vector<std::string> events;
  const auto unmask = [](uint32_t m) { return m -= 0xa282ead8u, (m >> 17) | (m << 15); };
  for (size_t at = 0; at < text.size();) {
    uint64_t length = 0;
    uint32_t sum = 0;
    if (at + 16 > text.size()) {
      ADD_FAILURE() << "a torn frame";
      break;
    }
    std::memcpy(&length, text.data() + at, 8);
    std::memcpy(&sum, text.data() + at + 8, 4);
    EXPECT_EQ(unmask(sum), Crc32c(text.data() + at, 8));
    if (at + 16 + length > text.size()) {
      ADD_FAILURE() << "a torn frame";
      break;
    }
    events.push_back(text.substr(at + 12, length));
    std::memcpy(&sum, text.data() + at + 12 + length, 4);
    EXPECT_EQ(unmask(sum), Crc32c(events.back()));
    at += 16 + length;
  }
  return events;
}

TEST(ProtoMessage, HasTheBytesOfTheFormat) {
  EXPECT_EQ(ProtoMessage()
                .Varint(1, 300)
                .Bytes(2, "ab")
                .Float(3, 0.25f)
                .Double(4, 1.5)
                .Message(100, ProtoMessage().Varint(1, 0))
                .bytes(),
            std::string("\x08\xac\x02\x12\x02"
                        "ab\x1d\0\0\x80\x3e\x21\0\0\0\0\0\0\xf8\x3f\xa2\x06\x02\x08\0",
                        26));
  EXPECT_EQ(ProtoMessage().Varint(1, static_cast<uint64_t>(-1)).bytes().size(), 11u);
}

TEST(TensorBoard, ScalarsOfAStepAreOneEvent) {
  TempFolder folder;
  FakeClock clock(2000);
  MakeTensorBoardSink(folder / "tb", RealFileSystem(), clock)->Write(300, 1.5, {{"ab", 0.25}});
  EXPECT_EQ(RealFileSystem().List(folder / "tb")[0].rfind("events.out.tfevents.0000000002.", 0),
            0u);
  const auto events = Events(folder / "tb");
  ASSERT_EQ(events.size(), 3u);
  EXPECT_EQ(Only(events[0], {3}).bytes, "brain.Event:2");
  const std::string head("\x09\0\0\0\0\0\0\xf8\x3f\x10\xac\x02", 12);  // 1.5 s, step 300
  EXPECT_EQ(events[1], head + "\x3a\x02\x08\x01");                     // session starts
  EXPECT_EQ(events[2], head + std::string("\x2a\x0b\x0a\x09\x0a\x02"
                                          "ab\x15\0\0\x80\x3e",
                                          13));
}

TEST(TensorBoard, TextIsAStringTensorOfThePluginText) {
  TempFolder folder;
  MakeTensorBoardSink(folder / "tb")->Text(7, 2.5, "samples", "**a**\n\u00e4");
  const auto events = Events(folder / "tb");
  ASSERT_EQ(events.size(), 3u);
  EXPECT_EQ(Only(events[1], {7, 1}).value, 1u) << "first of all, what an earlier start wrote goes";
  EXPECT_EQ(Only(events[1], {2}).value, 7u);
  EXPECT_EQ(AsDouble(Only(events[2], {1}).value), 2.5);
  EXPECT_EQ(Only(events[2], {2}).value, 7u);
  EXPECT_EQ(Only(events[2], {5, 1, 1}).bytes, "samples");
  EXPECT_EQ(Only(events[2], {5, 1, 8, 1}).value, 7u) << "DT_STRING";
  EXPECT_EQ(Only(events[2], {5, 1, 8, 2}).bytes, "") << "a shape without dimensions: a scalar";
  EXPECT_EQ(Only(events[2], {5, 1, 8, 8}).bytes, "**a**\n\u00e4");
  EXPECT_EQ(Only(events[2], {5, 1, 9, 1, 1}).bytes, "text");
  EXPECT_EQ(Only(events[2], {5, 1, 9, 4}).value, 2u) << "DATA_CLASS_TENSOR";
}

TEST(TensorBoard, ASessionHasItsValuesAndItsEnd) {
  TempFolder folder;
  {
    const auto sink = MakeTensorBoardSink(folder / "tb");
    sink->BeginSession(0, 10,
                       {{"algorithm.name", "grpo"},
                        {"data.shuffle", true},
                        {"optimizer.learning_rate", 1e-5},
                        {"policy.train", false}});
    sink->EndSession(9, 20);
  }
  const auto events = Events(folder / "tb");
  ASSERT_EQ(events.size(), 4u);
  const std::string begin = Only(events[2], {5, 1}).bytes;
  EXPECT_EQ(Only(begin, {1}).bytes, "_hparams_/session_start_info");
  EXPECT_EQ(Only(begin, {9, 1, 1}).bytes, "hparams");
  const std::string info = Only(begin, {9, 1, 2, 3}).bytes;
  EXPECT_EQ(AsDouble(Only(info, {5}).value), 10);
  std::map<std::string, Field> values;
  for (const Field& field : Reader(info).Fields()) {
    if (field.number != 1) continue;
    const auto value = Reader(Only(field.bytes, {2}).bytes).Fields();
    ASSERT_EQ(value.size(), 1u);
    values[Only(field.bytes, {1}).bytes] = value[0];
  }
  ASSERT_EQ(values.size(), 4u);
  EXPECT_EQ(values["algorithm.name"].number, 3u);
  EXPECT_EQ(values["algorithm.name"].bytes, "grpo");
  EXPECT_EQ(values["data.shuffle"].number, 4u);
  EXPECT_EQ(values["data.shuffle"].value, 1u);
  EXPECT_EQ(values["policy.train"].number, 4u) << "false is a value, not nothing";
  EXPECT_EQ(values["policy.train"].value, 0u);
  EXPECT_EQ(values["optimizer.learning_rate"].number, 2u);
  EXPECT_EQ(AsDouble(values["optimizer.learning_rate"].value), 1e-5);

  const std::string end = Only(events[3], {5, 1}).bytes;
  EXPECT_EQ(Only(end, {1}).bytes, "_hparams_/session_end_info");
  EXPECT_EQ(Only(end, {9, 1, 2, 4, 1}).value, 1u) << "STATUS_SUCCESS";
  EXPECT_EQ(AsDouble(Only(end, {9, 1, 2, 4, 2}).value), 20);
}

TEST(TensorBoard, FileOfItsOwnForEachStart) {
  TempFolder folder;
  FakeClock clock(2000);
  const auto a = MakeTensorBoardSink(folder / "tb", RealFileSystem(), clock);
  const auto b = MakeTensorBoardSink(folder / "tb", RealFileSystem(), clock);
  EXPECT_EQ(RealFileSystem().List(folder / "tb").size(), 2u);
}

// Two starts, the second from step 2 on; tests/common/base/metrics/read_events.py says what
// TensorBoard itself makes of them. PLUMB_TEST_METRICS_PYTHON names a Python that has it.
TEST(TensorBoard, TheInstalledPackageReadsTheSame) {
  TempFolder folder;
  FakeClock clock(2000);
  {
    const auto sink = MakeTensorBoardSink(folder / "run", RealFileSystem(), clock);
    sink->BeginSession(0, 10, {{"algorithm.name", "grpo"}, {"optimizer.learning_rate", 1e-5}});
    for (int64_t step = 0; step < 4; ++step)
      sink->Write(step, 10, {{"reward/mean", static_cast<double>(step)}});
    sink->Text(0, 10, "samples", "first");
    sink->Text(3, 10, "samples", "forgotten");
  }
  {
    clock.Advance(1000);
    const auto sink = MakeTensorBoardSink(folder / "run", RealFileSystem(), clock);
    sink->BeginSession(2, 20, {{"algorithm.name", "grpo"}, {"optimizer.learning_rate", 1e-5}});
    sink->Text(2, 20, "samples", "**Reward 1**\n\n```text\n<b>`a`</b>\n```\n");
    sink->Write(2, 20, {{"reward/mean", 20}, {"optim/grad_norm", std::nan("")}});
    sink->EndSession(2, 21);
  }
  const char* python = std::getenv("PLUMB_TEST_METRICS_PYTHON");
  const std::string log = folder / "log";
  const int status =
      std::system(("timeout 120 '" + std::string(python ? python : "python3") + "' '" +
                   testing::SourcePath("tests/common/base/metrics/read_events.py") + "' '" +
                   folder.path() + "' >'" + log + "' 2>&1")
                      .c_str());
  const std::string said = RealFileSystem().ReadFile(log, size_t{1} << 20);
  const int code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  if (code == 77 || code == 127) {
    GTEST_SKIP() << "SKIPPED, TensorBoard itself has not read the files (name a Python that has it "
                    "in PLUMB_TEST_METRICS_PYTHON): "
                 << said;
  }
  EXPECT_EQ(code, 0) << said;
}

}  // namespace
}  // namespace plumb
