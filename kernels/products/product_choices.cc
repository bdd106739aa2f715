#include "kernels/products/product_choices.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cstdlib>
#include <filesystem>

#include "common/base/error.h"
#include "common/base/file.h"
#include "common/base/hash/crc32c.h"
#include "common/base/log.h"
#include "common/base/text.h"

namespace plumb::kernels {
namespace {

constexpr std::string_view kFormat = "plumb products 2";
constexpr size_t kMostBytes = 4 << 20;

// Narrow where a tile is the whole batch, then two an octave.
constexpr std::array<int64_t, 18> kBuckets = {8,   16,  32,   64,   96,   128,  192,  256,  384,
                                              512, 768, 1024, 1536, 2048, 3072, 4096, 6144, 8192};

[[noreturn]] void Broken(const std::string& what) {
  throw Error(ErrorCode::kCorruption, "is no file of chosen products: " + what);
}

// The text up to the next line break, which is taken away with it.
std::string_view TakeLine(std::string_view& text) {
  const size_t end = text.find('\n');
  if (end == std::string_view::npos) Broken("it ends in the middle of a line");
  const std::string_view line = text.substr(0, end);
  text.remove_prefix(end + 1);
  return line;
}

// The value of a line "NAME VALUE".
std::string_view TakeValue(std::string_view& text, std::string_view name) {
  const std::string_view line = TakeLine(text);
  if (!line.starts_with(name) || line.size() <= name.size() || line[name.size()] != ' ')
    Broken("there is no line \"" + std::string(name) + " ...\"");
  return line.substr(name.size() + 1);
}

// The next number of a line and the blank behind it.
int64_t TakeNumber(std::string_view& line, int64_t most) {
  int64_t value = 0;
  const auto [end, error] = std::from_chars(line.data(), line.data() + line.size(), value);
  if (error != std::errc() || value < 0 || value > most) Broken("a number is none, or too large");
  line.remove_prefix(static_cast<size_t>(end - line.data()));
  if (!line.empty()) {
    if (line[0] != ' ') Broken("a number is none, or too large");
    line.remove_prefix(1);
  }
  return value;
}

std::string SumOf(std::string_view text) {
  char hex[16];
  std::snprintf(hex, sizeof hex, "%08x", Crc32c(text));
  return hex;
}

}  // namespace

int64_t RowBucket(int64_t m) {
  const auto at = std::lower_bound(kBuckets.begin(), kBuckets.end(), m);
  return at == kBuckets.end() ? kBuckets.back() : *at;
}

bool KeepsBits(uint32_t algorithm) { return algorithm != 13 && algorithm != 16; }

std::string ChoicesText(const ChoicesOwner& of, const ProductChoices& choices) {
  std::string out = std::string(kFormat) + "\ndevice " + of.device + "\nlibrary " +
                    std::to_string(of.library) + "\n";
  for (const auto& [key, choice] : choices) {
    for (const int64_t number : {key.rows, key.n, key.k, int64_t{key.float_in},
                                 int64_t{key.float_out}, int64_t{key.residual}, int64_t{key.bias}})
      out += std::to_string(number) + " ";
    for (const uint32_t number : {choice.algorithm, choice.tile, choice.stages, choice.cluster,
                                  choice.inner, choice.option})
      out += std::to_string(number) + " ";
    out += std::to_string(choice.swizzle) + "\n";
  }
  return out + "sum " + SumOf(out) + "\n";
}

ProductChoices ParseChoices(std::string_view text, const ChoicesOwner& of) {
  const std::string_view all = text;
  if (TakeLine(text) != kFormat) Broken("its first line is not \"" + std::string(kFormat) + "\"");
  const std::string_view device = TakeValue(text, "device"), library = TakeValue(text, "library");
  const size_t sum_line = all.rfind("sum ");
  if (sum_line == std::string_view::npos ||
      all.substr(sum_line) != "sum " + SumOf(all.substr(0, sum_line)) + "\n")
    Broken("its checksum is not that of its lines");
  if (device != of.device || library != std::to_string(of.library)) {
    throw Error(ErrorCode::kConflict, "is of " + std::string(device) + " with cuBLASLt " +
                                          std::string(library) + "; here are " + of.device +
                                          " and " + std::to_string(of.library));
  }
  constexpr int64_t kMostSize = int64_t{1} << 40, kMostId = 0xFFFF;
  ProductChoices choices;
  text.remove_suffix(all.size() - sum_line);
  while (!text.empty()) {
    std::string_view line = TakeLine(text);
    ProductKey key;
    for (int64_t* size : {&key.rows, &key.n, &key.k}) *size = TakeNumber(line, kMostSize);
    for (bool* is : {&key.float_in, &key.float_out, &key.residual, &key.bias})
      *is = TakeNumber(line, 1) == 1;
    ProductChoice choice;
    for (uint32_t* id : {&choice.algorithm, &choice.tile, &choice.stages, &choice.cluster,
                         &choice.inner, &choice.option, &choice.swizzle})
      *id = static_cast<uint32_t>(TakeNumber(line, kMostId));
    if (!line.empty()) Broken("a line has more than its numbers");
    if (key.n < 1 || key.k < 1 || RowBucket(key.rows) != key.rows || !KeepsBits(choice.algorithm))
      Broken("a line says what is never chosen");
    choices[key] = choice;
  }
  return choices;
}

std::string ChoicesPath(const ChoicesOwner& of) {
  const char* cache = std::getenv("XDG_CACHE_HOME");
  const char* home = std::getenv("HOME");
  std::string folder;
  // The convention asks for absolute paths and for others to be ignored.
  if (cache && cache[0] == '/') folder = cache;
  else if (home && home[0] == '/') folder = std::string(home) + "/.cache";
  if (folder.empty()) return "";
  std::string name = of.device;
  for (char& c : name) {
    if (!IsLetter(c) && !IsDigit(c)) c = '_';
  }
  return folder + "/plumb/products-" + name + ".txt";
}

ProductChoices ReadChoices(const std::string& path, const ChoicesOwner& of) {
  FileSystem& files = RealFileSystem();
  if (path.empty()) return {};
  try {
    if (!files.Exists(path)) return {};
    return ParseChoices(files.ReadFile(path, kMostBytes), of);
  } catch (const Error& e) {
    LogWarningOnce(path + ": " + e.message() +
                   ". It is ignored: the products of this GPU are timed anew");
    return {};
  }
}

void AddChoices(const std::string& path, const ChoicesOwner& of, const ProductChoices& added) {
  if (path.empty()) return;
  try {
    ProductChoices all = ReadChoices(path, of);
    for (const auto& [key, choice] : added) all[key] = choice;
    RealFileSystem().CreateDirectories(std::filesystem::path(path).parent_path().string());
    RealFileSystem().WriteFileAtomic(path, ChoicesText(of, all));
  } catch (const Error& e) {
    LogWarningOnce(
        "which algorithms were found fastest for the products of this GPU is not kept, "
        "and will be timed again by the next process: " +
        std::string(e.what()));
  }
}

}  // namespace plumb::kernels
