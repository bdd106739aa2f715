// Every option of configs/fields.h is read by some product file: one that nobody reads is a promise
// nobody keeps.
//
// Walks Visit and looks for `section.member` in the sources: written out (config.sft.steps),
// through a variable of the section's type (const SftConfig& options; options.steps), or through a
// reference to the section (auto& s = config.sft). A header and its source are looked at as one.
// configs/ itself does not count: it checks and prints every option.
#include <cxxabi.h>
#include <gtest/gtest.h>

#include <cctype>
#include <cstdlib>
#include <filesystem>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <type_traits>
#include <typeinfo>
#include <utility>
#include <vector>

#include "common/base/file.h"
#include "configs/config.h"
#include "configs/fields.h"
#include "tests/testing/paths.h"

namespace plumb::configs {
namespace {

namespace fs = std::filesystem;
using Tokens = std::vector<std::string>;

bool IsWord(const std::string& token) {
  return std::isalpha(static_cast<unsigned char>(token[0])) != 0 || token[0] == '_';
}
bool IsMember(const std::string& token) { return token == "." || token == "->"; }

// Words and signs; comments and texts in quotes are left out, for what they say is not done.
void Tokenize(std::string_view text, Tokens& out) {
  for (size_t i = 0; i < text.size();) {
    const char c = text[i];
    if (text.substr(i, 2) == "//") {
      i = std::min(text.find('\n', i), text.size());
    } else if (text.substr(i, 2) == "/*") {
      const size_t end = text.find("*/", i);
      i = end == std::string_view::npos ? text.size() : end + 2;
    } else if (text.substr(i, 3) == "R\"(") {
      const size_t end = text.find(")\"", i);
      i = end == std::string_view::npos ? text.size() : end + 2;
    } else if (c == '"' ||
               (c == '\'' && (i == 0 || !std::isalnum(static_cast<unsigned char>(text[i - 1]))))) {
      for (++i; i < text.size() && text[i] != c; ++i) i += text[i] == '\\';
      ++i;
    } else if (std::isalnum(static_cast<unsigned char>(c)) || c == '_') {
      const size_t begin = i;
      while (i < text.size() &&
             (std::isalnum(static_cast<unsigned char>(text[i])) || text[i] == '_'))
        ++i;
      out.emplace_back(text.substr(begin, i - begin));
    } else if (text.substr(i, 2) == "->") {
      out.emplace_back("->");
      i += 2;
    } else {
      if (!std::isspace(static_cast<unsigned char>(c))) out.emplace_back(1, c);
      ++i;
    }
  }
}

// Names under which `unit` knows the section: variables of its type, and references to it.
std::set<std::string> Aliases(const Tokens& unit, const std::string& section,
                              const std::string& type) {
  std::set<std::string> names;
  for (size_t i = 1; i + 1 < unit.size(); ++i) {
    if (unit[i] == type) {
      size_t j = i + 1;
      while (j < unit.size() && (unit[j] == "&" || unit[j] == "*" || unit[j] == "const")) ++j;
      if (j < unit.size() && IsWord(unit[j])) names.insert(unit[j]);
    }
    if (unit[i] == section && IsMember(unit[i - 1]) && (unit[i + 1] == ";" || unit[i + 1] == ")")) {
      size_t j = i - 1;
      while (j > 0 && (IsWord(unit[j]) || IsMember(unit[j]) || unit[j] == "(" || unit[j] == ")"))
        --j;
      if (j > 0 && (unit[j] == "=" || unit[j] == ":") && IsWord(unit[j - 1]))
        names.insert(unit[j - 1]);
    }
  }
  return names;
}

bool Reads(const Tokens& unit, const std::string& section, const std::set<std::string>& aliases,
           const std::string& member) {
  for (size_t i = 1; i + 2 < unit.size(); ++i) {
    if (unit[i + 2] != member || !IsMember(unit[i + 1])) continue;
    if (unit[i] == section && IsMember(unit[i - 1])) return true;
    if (aliases.count(unit[i]) > 0 && !IsMember(unit[i - 1])) return true;
  }
  return false;
}

struct Option {
  std::string section, type, member;
};

template <class T>
std::string TypeName() {
  const std::unique_ptr<char, void (*)(void*)> name(
      abi::__cxa_demangle(typeid(T).name(), nullptr, nullptr, nullptr), std::free);
  const std::string whole = name.get();
  return whole.substr(whole.rfind(':') + 1);
}

struct Collector {
  std::vector<Option>& options;
  std::string section, type;
  template <class Field>
  void operator()(const FieldInfo& info, Field&) {
    options.push_back({section, type, info.name});
    if constexpr (std::is_same_v<Field, std::vector<RewardPartConfig>>) {
      RewardPartConfig part;
      Section(info.name, part);
    }
  }
  template <class Table>
  void Section(const char* name, Table& table) {
    Collector inner{options, name, TypeName<Table>()};
    table.Visit(inner);
  }
};

std::vector<Option> AllOptions() {
  std::vector<Option> options;
  Config config;
  Collector collector{options, "", ""};
  config.Visit(collector);
  return options;
}

// Options that none of `units` reads, as "section.member".
std::vector<std::string> Unread(const std::map<std::string, Tokens>& units,
                                const std::vector<Option>& options) {
  std::vector<std::string> unread;
  for (const Option& option : options) {
    bool read = false;
    for (auto unit = units.begin(); unit != units.end() && !read; ++unit) {
      read = Reads(unit->second, option.section, Aliases(unit->second, option.section, option.type),
                   option.member);
    }
    if (!read) unread.push_back(option.section + "." + option.member);
  }
  return unread;
}

TEST(OptionsReadTest, SomebodyReadsEveryOption) {
  std::map<std::string, Tokens> units;  // by path without ending
  for (const char* folder :
       {"actor", "common", "environment", "learner", "policy_model", "replay", "reward", "run"}) {
    for (const auto& entry : fs::recursive_directory_iterator(testing::SourcePath(folder))) {
      const std::string ending = entry.path().extension().string();
      if (ending != ".h" && ending != ".cc") continue;
      Tokenize(RealFileSystem().ReadFile(entry.path().string(), 1 << 20),
               units[fs::path(entry.path()).replace_extension().string()]);
    }
  }
  ASSERT_GT(units.size(), 50u);
  const std::vector<Option> options = AllOptions();
  ASSERT_GT(options.size(), 100u);
  for (const std::string& option : Unread(units, options)) {
    ADD_FAILURE()
        << option
        << " stands in configs/fields.h and no product file reads it: use it or take it out";
  }
}

TEST(OptionsReadTest, AnOptionIsReadThroughItsOwnSectionOnly) {
  const std::vector<Option> decay = {{"sft", "SftConfig", "weight_decay"}};
  const auto unread = [&](const std::string& source) {
    std::map<std::string, Tokens> units;
    Tokenize(source, units["a"]);
    return Unread(units, decay).size() == 1;
  };
  EXPECT_FALSE(unread("Update(rate, config.sft.weight_decay);"));
  EXPECT_FALSE(
      unread("void F(const configs::SftConfig& options) { Update(options.weight_decay); }"));
  EXPECT_FALSE(unread("const auto& s = session.config().sft; Update(s.weight_decay);"));
  EXPECT_FALSE(unread("const SftConfig* s = &c; Update(s->weight_decay);"));
  EXPECT_TRUE(unread("Update(config.optimizer.weight_decay);"));
  EXPECT_TRUE(unread("void F(const OptimizerConfig& options) { Update(options.weight_decay); }"));
  EXPECT_TRUE(unread("Say(\"sft.weight_decay\");  // config.sft.weight_decay"));
  EXPECT_TRUE(unread("void F(const SftConfig& options, A a) { Update(a.options.weight_decay); }"));
}

}  // namespace
}  // namespace plumb::configs
