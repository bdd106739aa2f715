// A resolved recipe as text for people: the listing of `plumb config show`, and a recipe in which
// every line says what it is for.
//
// Purpose: units and advice come from configs/fields.h, so that they are written once. ToToml of
// configs/config.h, the text for programs, stands in the same file. Thread safety: pure functions.
// Errors: kInvalidArgument for a part of the listing that names no option.
#pragma once

#include <map>
#include <set>
#include <string>

#include "configs/config.h"

namespace plumb::configs {

struct ListingOptions {
  size_t width = 80;  // columns that a line may have
  std::string only;   // keys that begin so: "optimizer", "run.st"; empty: all
  // only what differs from what the recipe would say without saying it (DefaultsOf)
  bool changed = false;
};

// Key, value, origin, unit and advice of each option: side by side where the width has room for a
// column of advice, else the advice below. "" where nothing is left to show.
std::string List(const Loaded& loaded, const ListingOptions& options);

// The options of `keys` ("run.seed"; "reward.parts.kind" of every part that has another value than
// by default) as TOML, unit and advice behind each. `remarks`: comments in front of a section, and
// under "" at the top, wrapped; what begins with a blank stays as it is.
std::string CommentedToml(const Config& config, const std::set<std::string>& keys,
                          const std::map<std::string, std::string>& remarks);

}  // namespace plumb::configs
