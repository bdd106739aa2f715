#include "learner/distill/distiller.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "common/base/rng.h"
#include "configs/checks/distill_check.h"

namespace plumb::learner {
namespace {

constexpr uint64_t kUnsureStream = 0xc07f;

double ConfidenceOf(const TeacherRows& said) {
  double sum = 0;
  for (const float logprob : said.logprob) sum += std::exp(static_cast<double>(logprob));
  return sum / static_cast<double>(said.logprob.size());
}

}  // namespace

Distiller::Distiller(const configs::Config& config, const policy_model::Weights& policy,
                     Ranks* ranks, ReferencePolicy* self)
    : options_(config.distill),
      seed_(config.run.seed),
      teachers_(config, policy, ranks, self),
      measure_(policy.stream()) {}

std::vector<TeacherRows> Distiller::Ask(std::span<const SequenceView> sequences,
                                        std::span<const std::string> datasets, float temperature,
                                        uint64_t step, bool hidden) {
  totals_ = {};
  const bool one = hidden || configs::ReverseByTokens(options_.distance);
  std::vector<TeacherRows> said = teachers_.Say(
      sequences, datasets,
      {.temperature = temperature,
       .picks = one ? 1 : options_.top_k,
       .pick_temperature = one ? temperature : static_cast<float>(options_.temperature),
       .hidden = hidden});
  std::vector<double> confidence(said.size(), -1);
  std::vector<bool> stays(said.size(), true);
  size_t surest = said.size();
  bool any = false;
  for (size_t i = 0; i < said.size(); ++i) {
    if (!said[i].there()) continue;  // nothing of it is scored
    confidence[i] = ConfidenceOf(said[i]);
    totals_.confidence += confidence[i];
    ++totals_.answers;
    if (surest == said.size() || confidence[i] > confidence[surest]) surest = i;
    stays[i] = confidence[i] >= options_.confidence ||
               RandomStream(seed_ ^ (kUnsureStream << 48), (step << 24) + i).NextUniform() <
                   options_.unsure_share;
    any = any || stays[i];
  }
  // A batch of which nothing is left would be no step: the surest answer stays.
  if (!any && surest < said.size()) stays[surest] = true;
  for (size_t i = 0; i < said.size(); ++i) {
    if (stays[i] || !said[i].there()) continue;
    said[i] = {};
    ++totals_.left_out;
  }
  return said;
}

StudentMeasure* Distiller::Compare(std::vector<const TeacherRows*> said, bool features) {
  Comparison how{.beta = options_.beta,
                 .temperature = static_cast<float>(options_.temperature),
                 .boundary_coef = options_.boundary_coef};
  if (features) how.kind = Comparison::Kind::kFeatures;
  else if (options_.distance == configs::Distance::kForwardTopK)
    how.kind = Comparison::Kind::kForwardTopK;
  else if (options_.distance == configs::Distance::kJsd) how.kind = Comparison::Kind::kJsd;
  measure_.Show(std::move(said), how);
  return &measure_;
}

void Distiller::Count(float teacher_logprob, double divergence, const float* measured) {
  totals_.teacher_logprob += static_cast<double>(teacher_logprob);
  totals_.divergence += divergence;
  totals_.boundary += static_cast<double>(measured[1]);
  totals_.agreement += static_cast<double>(measured[2]);
  ++totals_.tokens;
}

void Distiller::AddMetrics(std::map<std::string, double>& metrics) const {
  const double answers = static_cast<double>(totals_.answers);
  if (totals_.answers > 0) {
    metrics["distill/confidence"] = totals_.confidence / answers;
    if (options_.confidence > 0)
      metrics["distill/left_out"] = static_cast<double>(totals_.left_out) / answers;
  }
  if (totals_.tokens == 0) return;
  const double tokens = static_cast<double>(totals_.tokens);
  metrics["distill/kl"] = totals_.divergence / tokens;
  metrics["distill/teacher_logprob"] = totals_.teacher_logprob / tokens;
  metrics["distill/agreement"] = totals_.agreement / tokens;
  if (options_.boundary_coef > 0) metrics["distill/boundary"] = totals_.boundary / tokens;
}

}  // namespace plumb::learner
