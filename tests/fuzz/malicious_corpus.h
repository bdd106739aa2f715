// Files that lie, made when asked for: what reliability row 16 is run over.
// Thread safety: pure functions.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <vector>

namespace plumb::fuzz {

enum class Kind {
  kSafetensors,
  kGguf,
  kTokenizer,
  kConfig,
  kTemplate,
  kRecord,
  kPrompt,
  kRows,
  kRecipe,
  kManifest,
  kAdapter
};
inline constexpr Kind kKinds[] = {Kind::kSafetensors, Kind::kGguf,     Kind::kTokenizer,
                                  Kind::kConfig,      Kind::kTemplate, Kind::kRecord,
                                  Kind::kPrompt,      Kind::kRows,     Kind::kRecipe,
                                  Kind::kManifest,    Kind::kAdapter};
const char* KindName(Kind kind);
const char* FileName(Kind kind);  // the one that readers of this kind are given

using Files = std::map<std::string, std::string>;  // name -> content, of one folder

struct Malicious {
  std::string name;
  std::function<Files()> files;
};

std::vector<Malicious> CorpusOf(Kind kind);
Files WellFormed(Kind kind);  // what the same readers take

}  // namespace plumb::fuzz
