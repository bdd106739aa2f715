// Teachers and the answers that a step trains on, whatever the algorithm keeps of an answer: a
// Sample has `trajectory` and `teacher`.
//
// Thread safety: one thread. Ownership: none. Errors: those of the teachers.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "learner/distill/distiller.h"
#include "learner/update/train_step.h"

namespace plumb::learner {

template <class Samples>
std::vector<SequenceView> ViewsOf(const Samples& samples) {
  std::vector<SequenceView> views;
  for (const auto& sample : samples) views.push_back(ViewOf(*sample.trajectory));
  return views;
}

// Asks the teachers about the samples, of which `datasets` has one name each. What they say is
// added to the advantages where the recipe wants it there. `tokens` of a sample: references to its
// advantages and to the log-probs that these are of.
template <class Sample, class Tokens>
void AskTeachers(Distiller& distiller, std::span<Sample> samples,
                 std::span<const std::string> datasets, float temperature, int64_t step,
                 const Tokens& tokens) {
  const configs::DistillConfig& options = distiller.options();
  auto said = distiller.Ask(ViewsOf(samples), datasets, temperature, static_cast<uint64_t>(step));
  for (size_t i = 0; i < samples.size(); ++i) {
    TeacherRows& teacher = samples[i].teacher = std::move(said[i]);
    auto [advantages, old] = tokens(samples[i]);
    if (options.only) advantages.assign(advantages.size(), 0.0);
    if (!distiller.by_advantage() || !teacher.there()) continue;
    for (size_t k = 0; k < advantages.size(); ++k) {
      advantages[k] +=
          options.coef * (static_cast<double>(teacher.logprob[k]) - static_cast<double>(old[k]));
    }
  }
}

// The measure of a pass over the samples; nullptr without a distiller.
template <class Samples>
RowMeasure* MeasureOf(Distiller* distiller, const Samples& samples) {
  if (!distiller) return nullptr;
  std::vector<const TeacherRows*> said;
  for (const auto& sample : samples) said.push_back(&sample.teacher);
  return distiller->Compare(std::move(said));
}

}  // namespace plumb::learner
