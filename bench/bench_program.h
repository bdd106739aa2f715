// What the programs of this folder have in common: options that are numbers, processor time and
// medians.
//
// Thread safety: pure functions, but Fail. Units: seconds. Errors: a command line that says nothing
// ends the program with exit code 2 and the reason.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

namespace plumb::bench {

[[noreturn]] inline void Fail(const std::string& program, const std::string& why) {
  std::fprintf(stderr, "%s: %s\n", program.c_str(), why.c_str());
  std::exit(2);
}

struct Number {
  std::string_view name;
  int64_t* value;
  int64_t least = 1;
};

// Reads pairs of a name and a number from argv[first] on; `other` takes names that are no numbers
// and says whether it knows them.
inline void ReadOptions(
    const std::string& program, int argc, char** argv, int first,
    const std::vector<Number>& numbers,
    const std::function<bool(std::string_view name, const char* value)>& other = nullptr) {
  if ((argc - first) % 2 != 0) Fail(program, "the last option has no value");
  for (int i = first; i + 1 < argc; i += 2) {
    const std::string_view name = argv[i];
    if (other && other(name, argv[i + 1])) continue;
    const auto found = std::find_if(numbers.begin(), numbers.end(),
                                    [&](const Number& n) { return n.name == name; });
    if (found == numbers.end()) Fail(program, "no option " + std::string(name));
    char* end = nullptr;
    *found->value = std::strtoll(argv[i + 1], &end, 10);
    if (*end != 0 || end == argv[i + 1] || *found->value < found->least) {
      Fail(program, std::string(name) + " takes a number from " + std::to_string(found->least) +
                        " on, not '" + argv[i + 1] + "'");
    }
  }
}

// Of this process, kernel included: what others do on the machine does not count.
inline double ProcessorSeconds() {
  timespec t{};
  ::clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}

inline double Median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

}  // namespace plumb::bench
