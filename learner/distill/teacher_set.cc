#include "learner/distill/teacher_set.h"

#include <map>
#include <utility>

#include "common/base/error.h"
#include "configs/checks/distill_check.h"
#include "learner/distill/remote_teacher.h"

namespace plumb::learner {

TeacherSet::TeacherSet(const configs::Config& config, const policy_model::Weights& policy,
                       Ranks* ranks, ReferencePolicy* self) {
  std::map<std::string, std::shared_ptr<Teacher>> made;  // a folder of two datasets is loaded once
  for (const configs::TeacherName& name : configs::ReadTeachers(config.distill.teachers)) {
    std::shared_ptr<Teacher>& teacher = made[name.where];
    if (!teacher && name.self()) {
      PLUMB_CHECK(self != nullptr, "a reference is kept where the policy teaches itself");
      teacher = std::make_shared<SelfTeacher>(*self);
    } else if (!teacher && name.remote()) {
      teacher = std::make_shared<RemoteTeacher>(config, name.where, policy.shape(), ranks);
    } else if (!teacher) {
      teacher = std::make_shared<LocalTeacher>(config, name.where, policy, ranks);
    }
    teachers_.push_back({name.dataset, teacher});
  }
}

Teacher& TeacherSet::For(const std::string& dataset) const {
  const Of* all = nullptr;
  std::string known;
  for (const Of& of : teachers_) {
    if (of.dataset == dataset) return *of.teacher;
    if (of.dataset.empty()) all = &of;
    known += (known.empty() ? "\"" : ", \"") + of.dataset + "\"";
  }
  if (all) return *all->teacher;
  throw Error(ErrorCode::kInvalidArgument,
              "no teacher is for the dataset \"" + dataset + "\", only for " + known + ": add \"" +
                  dataset + "=folder\", or one without a dataset for all others",
              "distill.teachers");
}

std::vector<TeacherRows> TeacherSet::Say(std::span<const SequenceView> sequences,
                                         std::span<const std::string> datasets,
                                         const TeacherQuestion& question) {
  PLUMB_CHECK(sequences.size() == datasets.size());
  std::vector<TeacherRows> out(sequences.size());
  std::vector<std::pair<Teacher*, std::vector<size_t>>> asked;  // in the order of their first one
  for (size_t i = 0; i < sequences.size(); ++i) {
    Teacher* const teacher = &For(datasets[i]);
    size_t at = 0;
    while (at < asked.size() && asked[at].first != teacher) ++at;
    if (at == asked.size()) asked.push_back({teacher, {}});
    asked[at].second.push_back(i);
  }
  for (const auto& [teacher, numbers] : asked) {
    std::vector<SequenceView> of_it;
    for (const size_t i : numbers) of_it.push_back(sequences[i]);
    std::vector<TeacherRows> said = teacher->Say(of_it, question);
    for (size_t k = 0; k < numbers.size(); ++k) out[numbers[k]] = std::move(said[k]);
  }
  return out;
}

void CheckTeachers(const configs::Config& config, const policy_model::ModelShape& policy) {
  for (const configs::TeacherName& name : configs::ReadTeachers(config.distill.teachers)) {
    if (!name.self() && !name.remote()) TeacherShape(config, name.where, policy);
  }
}

}  // namespace plumb::learner
