// learner/distill/teacher_set.h: what is refused before a model is loaded. Whom a teacher is asked
// for: distiller_test.cc.
#include "learner/distill/teacher_set.h"

#include <gtest/gtest.h>

#include "common/base/error.h"
#include "tests/learner/distill/teaching_rig.h"

namespace plumb::learner {
namespace {

TEST(TeacherSetTest, ATeacherThatCannotTeachIsKnownAtOnce) {
  TeachingRig rig;
  rig.config.distill.teachers = {"self", "sums=" + rig.Folder("t", 32, 8)};
  EXPECT_NO_THROW(CheckTeachers(rig.config, rig.weights.shape()));
  rig.config.distill.teachers = {rig.temp / "nowhere"};
  EXPECT_THROW(CheckTeachers(rig.config, rig.weights.shape()), Error);
}

TEST(TeacherSetTest, AFolderOfTwoDatasetsIsLoadedOnce) {
  TeachingRig rig;
  const std::string folder = rig.Folder("t", 32, 8);
  rig.config.distill.teachers = {"a=" + folder, "b=" + folder};
  TeacherSet set(rig.config, rig.weights, nullptr, nullptr);
  std::remove((folder + "/model.safetensors").c_str());
  const std::vector<std::string> datasets = {"a", "b", "a", "b", "a"};
  const auto said = set.Say(rig.views, datasets, {.picks = 1});
  for (const TeacherRows& rows : said) EXPECT_TRUE(rows.there());
}

}  // namespace
}  // namespace plumb::learner
