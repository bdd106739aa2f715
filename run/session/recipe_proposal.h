// A first recipe for somebody's model and data: what `plumb config new` writes.
//
// Purpose: the recipe runs as it is. Sizes fit the algorithm, the size of the model and the number
// and length of the rows, which are read as a run would read them; the reward fits what the rows
// know. What each line is for comes from configs/fields.h.
// Thread safety: one caller (it sets the process' thread count as a session does). Errors: those of
// the model folder and of the import; kInvalidArgument where the data is not of the kind that the
// algorithm trains on, with what it is.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "configs/config.h"

namespace plumb::run {

struct RecipeRequest {
  configs::AlgorithmName algorithm = configs::AlgorithmName::kGrpo;
  std::string model;  // folder; empty: a new small model of sums
  std::string data;   // file or a store's folder, or "arithmetic"
  // Reward functions of the user's own, FILE.py or FILE.py:FUNCTION, a part each, in the place of
  // one that the rows suggest.
  std::vector<std::string> rewards;
  std::map<std::string, std::string> map;  // data.map: names of columns that have others
  // file that the recipe is written to (configs/paths.h, PathInRecipe); empty: none, then model and
  // data stand in it in full
  std::string recipe;
};

struct RecipeProposal {
  std::string text;                // TOML, checked: LoadRecipe takes it
  std::vector<std::string> notes;  // what of the data the recipe leaves aside, a line each
};
RecipeProposal ProposeRecipe(const RecipeRequest& request);

}  // namespace plumb::run
