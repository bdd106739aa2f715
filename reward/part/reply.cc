#include "reward/part/reply.h"

#include <cmath>

#include "common/record/json_text.h"

namespace plumb::reward {

Failure FailureOf(std::string_view name) {
  for (uint8_t f = 1; f < static_cast<uint8_t>(Failure::kCount); ++f) {
    if (name == FailureName(static_cast<Failure>(f))) return static_cast<Failure>(f);
  }
  return Failure::kReported;
}

PartScore ScoreFromJson(const nlohmann::json& value) {
  const auto bad = [&](const std::string& what) {
    return PartScore::Failed(Failure::kBadReply, what + ": " + Shown(DumpJson(value)));
  };
  if (value.is_null()) return PartScore::Skipped();
  if (value.is_number()) {
    const double number = value.get<double>();
    if (!std::isfinite(number))
      return PartScore::Failed(Failure::kNotFinite, "answered with a number that is not finite");
    return PartScore::Of(number);
  }
  if (!value.is_object()) return bad("a score that is neither number, null nor object");
  if (const auto error = value.find("error"); error != value.end()) {
    const std::string why = error->is_string() ? error->get<std::string>() : error->dump();
    const auto kind = value.find("kind");
    const Failure failure = kind != value.end() && kind->is_string()
                                ? FailureOf(kind->get<std::string>())
                                : Failure::kReported;
    return PartScore::Failed(failure, why.empty() ? "it could not score this" : Shown(why, 500));
  }
  if (const auto skip = value.find("skip");
      skip != value.end() && skip->is_boolean() && skip->get<bool>()) {
    return PartScore::Skipped();
  }
  const auto score = value.find("score");
  const auto scores = value.find("scores");
  if (score == value.end() && scores == value.end())
    return bad("a reply without score, scores, skip or error");
  PartScore out;
  double sum = 0;
  bool finite = true;
  if (scores != value.end()) {
    if (!scores->is_object() || scores->size() > 64 || (scores->empty() && score == value.end())) {
      return bad("'scores' has to be an object of 1 to 64 numbers");
    }
    for (const auto& [name, part] : scores->items()) {
      if (!part.is_number()) return bad("'" + Shown(name, 100) + "' is no number");
      const double number = part.get<double>();
      finite = finite && std::isfinite(number);
      out.details.emplace_back(name.substr(0, 100), number);
      sum += number;
    }
  }
  if (score != value.end() && !score->is_number()) return bad("'score' is no number");
  out.value = score != value.end() ? score->get<double>() : sum;
  if (!finite || !std::isfinite(out.value)) {
    return PartScore::Failed(Failure::kNotFinite, "answered with a number that is not finite");
  }
  return out;
}

}  // namespace plumb::reward
