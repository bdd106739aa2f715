// Ids of texts by Plumb, and the processor time that they took.
//
//   tokenizer_bench TOKENIZER_FOLDER TEXTS IDS [decode]
//
// TEXTS: for each text its length in bytes (32 bits, little-endian) and its bytes. IDS is written:
// for each text the number of its ids and the ids, 32 bits each. Prints the seconds of processor
// time of encoding alone. A text with a character that has no token is a row of -1. With `decode`,
// IDS is read instead, and TEXTS is written: what each row of ids decodes to; a row whose
// incremental decoding differs, or gives out half a character, is an error. One thread.
// bench/tokenizers_compare.py runs this beside Hugging Face's tokenizers.
#include <cstdio>
#include <cstring>
#include <ctime>
#include <string>
#include <vector>

#include "common/base/error.h"
#include "common/base/file.h"
#include "common/text/tokenizer/text_stream.h"
#include "common/text/tokenizer/tokenizer.h"

namespace plumb {
namespace {

constexpr size_t kMost = size_t{4} << 30;

double Seconds() { return static_cast<double>(std::clock()) / CLOCKS_PER_SEC; }

class Reader {
 public:
  explicit Reader(std::string bytes) : bytes_(std::move(bytes)) {}
  bool AtEnd() const { return at_ == bytes_.size(); }
  uint32_t Number() {
    uint32_t out = 0;
    const std::string_view four = Bytes(4);
    std::memcpy(&out, four.data(), 4);
    return out;
  }
  std::string_view Bytes(size_t n) {
    PLUMB_CHECK(n <= bytes_.size() - at_, "a file that is cut short");
    at_ += n;
    return std::string_view(bytes_).substr(at_ - n, n);
  }

 private:
  const std::string bytes_;
  size_t at_ = 0;
};

void Put(uint32_t number, std::string& out) {
  out.append(reinterpret_cast<const char*>(&number), sizeof number);
}

void Encode(const Tokenizer& tokenizer, const std::string& texts, const std::string& ids) {
  Reader in(RealFileSystem().ReadFile(texts, kMost));
  std::vector<std::string_view> lines;
  while (!in.AtEnd()) {
    const uint32_t n = in.Number();
    lines.push_back(in.Bytes(n));
  }
  std::string out;
  double took = 0;
  constexpr size_t kBatch = 10000;
  for (size_t begin = 0; begin < lines.size(); begin += kBatch) {
    std::vector<std::vector<int32_t>> rows;
    rows.reserve(kBatch);
    const double start = Seconds();
    for (size_t i = begin; i < std::min(lines.size(), begin + kBatch); ++i) {
      try {
        rows.push_back(tokenizer.Encode(lines[i]));
      } catch (const Error& e) {  // a character without a token: a row of -1
        if (e.code() != ErrorCode::kInvalidArgument) throw;
        rows.push_back({-1});
      }
    }
    took += Seconds() - start;
    for (const std::vector<int32_t>& row : rows) {
      Put(static_cast<uint32_t>(row.size()), out);
      for (const int32_t id : row) Put(static_cast<uint32_t>(id), out);
    }
  }
  RealFileSystem().WriteFileAtomic(ids, out);
  std::printf("%.4f\n", took);
}

void Decode(const Tokenizer& tokenizer, const std::string& texts, const std::string& ids) {
  Reader in(RealFileSystem().ReadFile(ids, kMost));
  std::string out;
  double took = 0;
  while (!in.AtEnd()) {
    std::vector<int32_t> row(in.Number());
    for (int32_t& id : row) id = static_cast<int32_t>(in.Number());
    const double start = Seconds();
    const std::string text = tokenizer.Decode(row);
    took += Seconds() - start;
    TextStream stream(tokenizer, /*skip_special=*/false);
    std::string whole;
    for (const int32_t id : row) {
      const std::string piece = stream.Add(id);
      PLUMB_CHECK(IsUtf8(piece), "half a character");
      whole += piece;
    }
    PLUMB_CHECK(whole + stream.End() == text, "incremental decoding differs");
    Put(static_cast<uint32_t>(text.size()), out);
    out += text;
  }
  RealFileSystem().WriteFileAtomic(texts, out);
  std::printf("%.4f\n", took);
}

int Main(int argc, char** argv) {
  if (argc != 4 && !(argc == 5 && std::string_view(argv[4]) == "decode")) {
    std::fprintf(stderr, "usage: tokenizer_bench TOKENIZER_FOLDER TEXTS IDS [decode]\n");
    return 2;
  }
  try {
    const auto tokenizer = Tokenizer::Load(argv[1]);
    (argc == 5 ? Decode : Encode)(*tokenizer, argv[2], argv[3]);
  } catch (const Error& e) {
    std::fprintf(stderr, "%s\n", e.what());
    return 1;
  }
  return 0;
}

}  // namespace
}  // namespace plumb

int main(int argc, char** argv) { return plumb::Main(argc, argv); }
