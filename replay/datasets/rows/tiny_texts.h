// Generated rows of a small world: sixteen animals, what each eats, where it lives, its colour.
//
//   text      The goat is black. The goat eats leaves. The goat lives in the mountains.
//   code      def food(animal):  return {"goat": "leaves", "lion": "zebras"}[animal]
//   dialogue  What does the goat eat?
//             The goat eats leaves. <answer>leaves</answer>
//
// Purpose: data for a whole course of training (data.train = "tiny_texts") that a model of some
// hundred thousand parameters can learn from nothing: demonstrations of three sources, pairs, and
// questions with the right answer. Demonstrations are as careless as found text: a share of the
// dialogues says another animal's fact, or calls the animal silly; pairs say which of two answers
// is better. Each of the 48 facts is asked in six ways, of which one, drawn by the seed, is held
// out: no set that is trained on has such a question (checked each time), held-out rows have no
// other.
// Thread safety: pure functions; the same options give the same rows everywhere. Errors:
// kInvalidArgument for more held-out questions than there are.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "common/record/preference.h"
#include "common/record/trajectory.h"
#include "replay/datasets/rows/dataset_import.h"

namespace plumb::replay {

inline constexpr char kTinyTexts[] = "tiny_texts";

struct TinyTextOptions {
  uint64_t seed = 1;
  int64_t rows = 0;     // 0: kTinyTextRows
  int64_t heldout = 0;  // the last of them, about held-out questions
};
inline constexpr int64_t kTinyTextRows = 3000;

// A third of each source: "source" of their other columns says which, "text", "code", "dialogue".
// Dialogues ask, the others continue nothing.
std::vector<TextDemonstration> TinyDemonstrations(const TinyTextOptions& options);

// kPair: the better answer is right, polite and whole. Pairs of another `draw` are others.
std::vector<PreferenceRecord> TinyPairs(const TinyTextOptions& options, uint64_t draw);

// Questions with the right answer as ground truth: dataset "train", what is not held out, in an
// order drawn by the seed; dataset "eval", the others. `limit`: at most so many; 0: all.
std::vector<Prompt> TinyPrompts(uint64_t seed, bool heldout, int64_t limit);

}  // namespace plumb::replay
