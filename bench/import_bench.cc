// import_bench [MB] [FILE]: how fast JSON lines get into a store, against simdjson alone on the
// same file.
//
// One core (the process pins itself), the same file in the same run, seven rounds in which three
// ways take turns: simdjson's DOM parser over the whole file (its reading included), rows cut and
// understood without a store, and the whole import into a new store (parsed, checked for twins,
// encoded, summed, written, read back, synced, sealed; opening and closing the store too). Each
// way's best round counts, by the clock and by processor time; the median of the rounds' ratios
// stands beside them. Then a file of ten times the size, for the peak of memory. Without FILE it
// makes preference pairs of about 1.4 KB.
#include <sched.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include <simdjson.h>

#include "bench/bench_program.h"
#include "replay/datasets/importer.h"
#include "replay/datasets/rows/row_parser.h"
#include "replay/datasets/rows/row_source.h"
#include "replay/store/store.h"

namespace plumb::replay {
namespace {

using bench::ProcessorSeconds;

constexpr int kRounds = 7;

struct Seconds {
  double wall = 1e9;
  // of this process, kernel included: what others do on the machine does not count
  double processor = 1e9;
};

Seconds Time(const std::function<void()>& work) {
  const auto start = std::chrono::steady_clock::now();
  const double used = ProcessorSeconds();
  work();
  return {std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count(),
          ProcessorSeconds() - used};
}

// Pairs of made-up words, no two alike. Returns the rows.
int64_t MakePairs(const std::string& path, size_t bytes, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::vector<std::string> words(4000);
  for (std::string& word : words) {
    for (size_t n = 2 + random() % 9; n > 0; --n)
      word.push_back(static_cast<char>('a' + random() % 26));
  }
  std::ofstream out(path, std::ios::binary);
  size_t written = 0;
  int64_t rows = 0;
  const auto text = [&](size_t n) {
    std::string s;
    for (; n > 0; --n)
      s.append(words[random() % words.size()])
          .append(n % 12 == 0   ? ".\\n"
                  : n % 17 == 0 ? " \\\""
                                : " ");
    return s;
  };
  while (written < bytes) {
    const std::string row =
        "{\"prompt\": [{\"role\": \"user\", \"content\": \"" + text(20 + random() % 60) +
        "\"}], \"chosen\": [{\"role\": \"assistant\", \"content\": \"" + text(20 + random() % 80) +
        "\"}], \"rejected\": [{\"role\": \"assistant\", \"content\": \"" +
        text(20 + random() % 80) + "\"}], \"source\": \"made\", \"id\": " + std::to_string(rows) +
        "}\n";
    out << row;
    written += row.size();
    ++rows;
  }
  return rows;
}

int64_t BareParse(const std::string& path) {
  simdjson::dom::parser parser;
  int64_t rows = 0;
  simdjson::dom::document_stream stream;
  if (parser.load_many(path, size_t{1} << 20).get(stream) != simdjson::SUCCESS) std::abort();
  for (auto document : stream) {
    if (document.error() != simdjson::SUCCESS) std::abort();
    ++rows;
  }
  return rows;
}

int64_t ParseOnly(const std::string& path) {
  const auto source = RowSource::Open(path);
  RowParser parser({});
  SourceRow row;
  int64_t rows = 0;
  while (source->Next(row)) {
    parser.Parse(row.text);
    ++rows;
  }
  return rows;
}

int64_t Import(const std::string& path, const std::string& folder) {
  const auto store = Store::Open(folder);
  return static_cast<int64_t>(ImportFiles(*store, {.files = {path}}).rows);
}

// MB that a child process held at most.
double PeakMb(const std::function<void()>& work) {
  const pid_t child = ::fork();
  if (child == 0) {
    work();
    ::_exit(0);
  }
  int status = 0;
  rusage usage{};
  ::wait4(child, &status, 0, &usage);
  if (status != 0) std::abort();
  return static_cast<double>(usage.ru_maxrss) / 1024;
}

void Run(size_t mb, std::string file) {
  char name[] = "/tmp/plumb_import_bench_XXXXXX";
  const std::string folder = ::mkdtemp(name);
  if (file.empty()) MakePairs(file = folder + "/pairs.jsonl", mb << 20, 1);
  const double size = static_cast<double>(std::filesystem::file_size(file)) / 1e6;
  const std::string store = folder + "/store";
  // The store of the round before is gone from the disk, too, when the clock starts.
  const auto forget = [&] {
    std::filesystem::remove_all(store);
    ::sync();
  };
  int64_t rows = 0, used = 0;
  struct Way {
    const char* name;
    std::function<void()> work;
    Seconds best{};
    std::vector<double> ratios{};  // of the rounds, by the clock
  };
  Way ways[] = {{"simdjson alone", [&] { rows = BareParse(file); }},
                {"rows cut and understood", [&] { rows = ParseOnly(file); }},
                {"imported into a store", [&] { used = Import(file, store); }}};
  for (int round = 0; round < kRounds; ++round) {
    Seconds bare;
    for (Way& way : ways) {
      forget();
      const Seconds s = Time(way.work);
      if (&way == ways) bare = s;
      way.best = {std::min(way.best.wall, s.wall), std::min(way.best.processor, s.processor)};
      way.ratios.push_back(bare.wall / s.wall);
    }
  }
  std::printf("%s: %.0f MB, %lld rows of %.0f bytes\n", file.c_str(), size,
              static_cast<long long>(rows), 1e6 * size / static_cast<double>(rows));
  for (Way& way : ways) {
    std::sort(way.ratios.begin(), way.ratios.end());
    const Seconds &s = way.best, &bare = ways[0].best;
    std::printf(
        "%-24s %7.1f MB/s %8.0f rows/s %.2fx of the bare parse (median of %d rounds %.2fx); "
        "processor time %.2f us a row, %.2fx\n",
        way.name, size / s.wall, static_cast<double>(rows) / s.wall, bare.wall / s.wall, kRounds,
        way.ratios[kRounds / 2], 1e6 * s.processor / static_cast<double>(rows),
        bare.processor / s.processor);
  }
  std::printf("rows stored: %lld\n", static_cast<long long>(used));
  forget();
  const double small = PeakMb([&] { Import(file, store); });
  forget();
  const std::string large = folder + "/large.jsonl";
  const int64_t large_rows = MakePairs(large, 10 * (mb << 20), 2);
  const double big = PeakMb([&] { Import(large, store); });
  std::printf("peak memory: %.0f MB, with a file of 10 x %zu MB (%lld rows) %.0f MB\n", small, mb,
              static_cast<long long>(large_rows), big);
  std::filesystem::remove_all(folder);
}

}  // namespace
}  // namespace plumb::replay

int main(int argc, char** argv) {
  cpu_set_t one;
  CPU_ZERO(&one);
  CPU_SET(0, &one);
  ::sched_setaffinity(0, sizeof(one), &one);
  plumb::replay::Run(argc > 1 ? static_cast<size_t>(std::atoll(argv[1])) : 256,
                     argc > 2 ? argv[2] : "");
  return 0;
}
