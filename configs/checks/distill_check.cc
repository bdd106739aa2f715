#include "configs/checks/distill_check.h"

#include <algorithm>
#include <set>
#include <utility>

#include "common/base/error.h"

namespace plumb::configs {

std::vector<TeacherName> ReadTeachers(const std::vector<std::string>& teachers) {
  std::vector<TeacherName> out;
  std::set<std::string> datasets;
  for (const std::string& text : teachers) {
    const size_t equals = text.find('=');
    const bool named = equals != std::string::npos && equals < text.find('/');
    TeacherName name{.dataset = named ? text.substr(0, equals) : "",
                     .where = named ? text.substr(equals + 1) : text};
    if (name.where.empty() || (named && name.dataset.empty())) {
      throw Error(ErrorCode::kInvalidArgument,
                  "holds \"" + text + "\": write \"folder\" or \"dataset=folder\"",
                  "distill.teachers");
    }
    if (!datasets.insert(name.dataset).second) {
      throw Error(ErrorCode::kInvalidArgument,
                  name.dataset.empty()
                      ? "holds two teachers without a dataset: write \"dataset=folder\" for all "
                        "but one"
                      : "holds two teachers of the dataset \"" + name.dataset + "\": keep one",
                  "distill.teachers");
    }
    out.push_back(std::move(name));
  }
  return out;
}

bool TeachesItself(const Config& config) {
  const std::string of_dataset = "=" + std::string(kSelfTeacher);
  return std::any_of(
      config.distill.teachers.begin(), config.distill.teachers.end(),
      [&](const std::string& text) { return text == kSelfTeacher || text.ends_with(of_dataset); });
}

bool ReverseByTokens(Distance distance) {
  return distance == Distance::kReverseK1 || distance == Distance::kReverseK3;
}

void CheckDistill(const Config& c, Problems& p) {
  const DistillConfig& d = c.distill;
  const DistillConfig none;
  const bool sft = c.algorithm.name == AlgorithmName::kSft;
  if (d.teachers.empty()) {
    for (const auto& [option, set] : {std::pair("only", d.only),
                                      {"confidence", d.confidence != none.confidence},
                                      {"feature_steps", d.feature_steps != 0},
                                      {"boundary_coef", d.boundary_coef != 0},
                                      {"perturb", d.perturb != 0},
                                      {"student_share", d.student_share != 1}})
      p.Require(!set, std::string("distill.") + option +
                          " is about a teacher: set distill.teachers, or take it out.");
    return;
  }
  std::vector<TeacherName> names;
  try {
    names = ReadTeachers(d.teachers);
  } catch (const Error& e) {
    p.Require(false, e.where() + " " + e.message() + ".");
    return;
  }
  const bool remote =
      std::any_of(names.begin(), names.end(), [](const auto& name) { return name.remote(); });
  p.Require(sft || !IsOffline(c),
            "distill.teachers goes with rollouts and with algorithm.name = \"sft\": preferences "
            "and reward models have no teacher.");
  p.Require(c.policy.tasks.empty(),
            "distill.teachers and policy.tasks do not go together: a teacher's tokens have no "
            "task in front of them.");
  p.Require(d.beta == none.beta || d.distance == Distance::kJsd,
            "distill.beta is of distill.distance = \"jsd\": set that, or take it out.");
  if (ReverseByTokens(d.distance)) {
    p.Require(!sft || d.feature_steps >= c.run.steps,
              "distill.distance = \"" + NameOf(d.distance) +
                  "\" is measured on the student's own samples, and algorithm.name = \"sft\" has "
                  "none: use \"forward_top_k\" or \"jsd\" (with beta = 1 the reverse KL).");
    p.Require(d.temperature == none.temperature,
              "distill.temperature is of distributions: distill.distance = \"" +
                  NameOf(d.distance) +
                  "\" goes by the tokens that were drawn at rollout.temperature. Take it out.");
  } else if (!sft) {
    p.Require(c.rollout.top_k == 0 && c.rollout.top_p >= 1 && c.rollout.min_p == 0,
              "distill.distance = \"" + NameOf(d.distance) +
                  "\" compares whole distributions, and rollout.top_k, top_p and min_p cut the "
                  "student's: take these out, or use \"reverse_k1\".");
  }
  for (const auto& [option, set] : {std::pair("feature_steps", d.feature_steps > 0),
                                    {"boundary_coef", d.boundary_coef > 0},
                                    {"perturb", d.perturb > 0}})
    p.Require(!set || sft,
              std::string("distill.") + option + " is of algorithm.name = \"sft\": take it out.");
  if (d.student_share != 1) {
    p.Require(!sft && d.student_share > 0,
              "distill.student_share is of answers that the student writes, and a run of the "
              "data's alone is algorithm.name = \"sft\": use that without it, or set a share above "
              "0 beside rollouts.");
    p.Require(!ReverseByTokens(d.distance),
              "distill.distance = \"" + NameOf(d.distance) +
                  "\" is measured on the student's own samples, and distill.student_share lets the "
                  "data's in: use \"forward_top_k\" or \"jsd\".");
    p.Require(std::any_of(names.begin(), names.end(),
                          [](const auto& name) { return name.dataset.empty(); }),
              "distill.student_share lets demonstrations in, which are of no dataset: name a "
              "teacher without one in distill.teachers.");
  }
  p.Require(d.boundary_coef == 0 || d.top_k >= 2,
            "distill.boundary_coef is about the teacher's two likeliest tokens: set distill.top_k "
            "to 2 at least.");
  p.Require(!remote || d.feature_steps == 0,
            "distill.feature_steps compares hidden states, which a server does not tell: name a "
            "folder in distill.teachers, or take it out.");
  p.Require(
      !remote || sft || (c.rollout.top_k == 0 && c.rollout.top_p >= 1 && c.rollout.min_p == 0),
      "rollout.top_k, top_p and min_p cut the student's distribution, and a teacher behind a "
      "server speaks of all tokens: take them out, or name a folder in distill.teachers.");
  p.Require(c.sft.syntax_penalty == 0 || !sft,
            "sft.syntax_penalty is not reckoned beside distill.teachers: take one out.");
  p.Require(!TeachesItself(c) || !sft,
            "distill.teachers = [\"self\"] is the policy's own start, which rollouts keep: for "
            "algorithm.name = \"sft\" name its folder.");
  p.Require(c.algorithm.advantage != Advantage::kGreedy || !d.only,
            "distill.only teaches every answer, and algorithm.advantage = \"greedy\" leaves one "
            "out: take one out.");
  p.Require(!(d.distance == Distance::kReverseK1) || c.algorithm.objective != Objective::kVespo,
            "algorithm.objective = \"vespo\" weighs whole answers, and distill.distance = "
            "\"reverse_k1\" gives every token its own advantage: choose another.");
  p.Require(!(d.distance == Distance::kReverseK1) || c.algorithm.objective != Objective::kGeometric,
            "algorithm.objective = \"geometric\" weighs whole answers, and distill.distance = "
            "\"reverse_k1\" gives every token its own advantage: choose another.");
}

}  // namespace plumb::configs
