// learner/distill/teacher_folder.h: teachers that are adapters over a base.
#include "learner/distill/teacher_folder.h"

#include <gtest/gtest.h>

#include <filesystem>

#include "common/base/error.h"
#include "common/base/rng.h"
#include "tests/learner/distill/teaching_rig.h"

namespace plumb::learner {
namespace {

using policy_model::Weights;

Weights Adapted(const std::string& base, int64_t rank, uint64_t seed) {
  Weights weights(TeachingRig::Shape(32, TeachingRig::Vocab()), Device::kCpu, DType::kFloat32);
  weights.Load(base);
  weights.AddAdapter({.rank = rank}, seed);
  policy_model::FlatBuffer& flat = weights.adapters()[0]->flat;
  RandomStream random(seed, 1);  // B, too, so that it says something
  for (int64_t i = 0; i < flat.elements(); ++i) flat.f32()[i] = 0.2f * random.NextNormal();
  return weights;
}

TEST(TeacherFolderTest, AnAdapterTeachesAsItsBaseWithItDoes) {
  TeachingRig rig;
  const std::string base = rig.Folder("base", 32, 8), adapter = rig.temp / "adapter";
  const Weights trained = Adapted(base, 4, 5);
  policy_model::SaveModelDirectory(trained, adapter, "", base);
  const auto expected = rig.train.Score(trained, rig.views, 1.0f);
  Weights plain(trained.shape(), Device::kCpu, DType::kFloat32);
  plain.Load(base);
  EXPECT_GT(std::abs(rig.train.Score(plain, rig.views, 1.0f)[0][0] - expected[0][0]), 1e-3)
      << "the adapter says nothing of its own";

  const TeacherFolder folder = TeacherFolderOf(adapter);
  EXPECT_EQ(folder.base, base);
  EXPECT_EQ(folder.adapter, adapter);
  EXPECT_EQ(folder.vocabulary(), base) << "it has none of its own";
  EXPECT_EQ(TeacherFolderOf(base).adapter, "");

  // Of a student that trains all of its weights it has a base of its own; of one that trains an
  // adapter over the same folder it is the student's.
  const Weights student = Adapted(base, 2, 9);
  configs::Config over = rig.config;
  over.model.path = base;
  EXPECT_FALSE(SharesBase(folder, rig.config, rig.weights));
  EXPECT_FALSE(SharesBase(TeacherFolderOf(base), over, student));
  EXPECT_TRUE(SharesBase(folder, over, student));
  const Weights shared =
      LoadTeacher(folder, over, TeacherShape(over, adapter, student.shape()), student);
  EXPECT_EQ(shared.flat().data(), student.flat().data());
  EXPECT_EQ(shared.adapters().size(), 1u);
  for (const auto& [config, policy] :
       {std::pair<const configs::Config*, const Weights*>{&rig.config, &rig.weights},
        {&over, &student}}) {
    LocalTeacher teacher(*config, adapter, *policy, nullptr);
    const auto said = teacher.Say(rig.views, {});
    for (size_t s = 0; s < rig.views.size(); ++s) {
      ASSERT_EQ(said[s].logprob.size(), expected[s].size());
      for (size_t i = 0; i < expected[s].size(); ++i)
        EXPECT_NEAR(said[s].logprob[i], expected[s][i], 1e-5);
    }
  }
}

TEST(TeacherFolderTest, ABaseThatIsNotThereIsNamed) {
  TeachingRig rig;
  const std::string base = rig.Folder("base", 32, 8), adapter = rig.temp / "adapter";
  policy_model::SaveModelDirectory(Adapted(base, 4, 5), adapter, "", base);
  std::filesystem::rename(base, rig.temp / "moved");
  try {
    TeacherFolderOf(adapter);
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kNotFound);
    EXPECT_NE(std::string(e.what()).find(base), std::string::npos) << e.what();
    EXPECT_NE(std::string(e.what()).find("base_model_name_or_path"), std::string::npos);
  }
}

}  // namespace
}  // namespace plumb::learner
