// configs/checks/distill_check.h: who teaches whom, and what does not go together.
#include "configs/checks/distill_check.h"

#include <gtest/gtest.h>

#include "common/base/error.h"

namespace plumb::configs {
namespace {

constexpr char kRollouts[] =
    "[data]\ntrain = \"arithmetic\"\n[[reward.parts]]\nkind = \"answer\"\n";
constexpr char kRows[] = "[data]\ntrain = \"arithmetic\"\n[algorithm]\nname = \"sft\"\n";
constexpr char kTeacher[] = "distill.teachers=[\"/m/teacher\"]";

std::string Refused(const std::string& text, const std::vector<std::string>& set) {
  try {
    ParseRecipe(text, "r.toml", set);
    return "";
  } catch (const Error& e) {
    return e.what();
  }
}

struct Case {
  std::vector<std::string> set;
  const char* named;  // a part of the sentence; nullptr: it is fine
};

void Check(const std::string& text, const std::vector<Case>& cases) {
  for (const Case& c : cases) {
    const std::string refused = Refused(text, c.set);
    const std::string what = c.set.back();
    if (c.named == nullptr) EXPECT_EQ(refused, "") << what;
    else EXPECT_NE(refused.find(c.named), std::string::npos) << what << ": " << refused;
  }
}

TEST(DistillCheckTest, TeachersAreFoldersAddressesOrThePolicyItself) {
  const auto names = ReadTeachers({"maths=/m/a", "code=http://host:8000", "/m/b=c", "texts=self"});
  ASSERT_EQ(names.size(), 4u);
  EXPECT_EQ(names[0].dataset, "maths");
  EXPECT_EQ(names[0].where, "/m/a");
  EXPECT_TRUE(names[1].remote());
  EXPECT_EQ(names[2].dataset, "") << "behind a \"/\" it is a part of the folder";
  EXPECT_EQ(names[2].where, "/m/b=c");
  EXPECT_TRUE(names[3].self());
  EXPECT_THROW(ReadTeachers({"a", "b"}), Error);
  EXPECT_THROW(ReadTeachers({"x=a", "x=b"}), Error);
  EXPECT_THROW(ReadTeachers({"x="}), Error);
  Config config;
  EXPECT_FALSE(Distills(config) || TeachesItself(config));
  config.distill.teachers = {"a=m", "b=self"};
  EXPECT_TRUE(Distills(config) && TeachesItself(config));
}

TEST(DistillCheckTest, ContradictionsOfRolloutsAreNamed) {
  Check(kRollouts,
        {{{kTeacher}, nullptr},
         {{"distill.teachers=[\"self\"]", "algorithm.reference_sync_every=5"}, nullptr},
         {{kTeacher, "algorithm.reference_sync_every=5"}, "teaches itself"},
         {{"distill.only=true"}, "set distill.teachers"},
         {{"distill.perturb=0.1"}, "set distill.teachers"},
         {{"distill.teachers=[\"a\", \"b\"]"}, "two teachers without a dataset"},
         {{kTeacher, "distill.beta=0.3"}, "distill.beta is of"},
         {{kTeacher, "distill.distance=jsd", "distill.beta=0.3"}, nullptr},
         {{kTeacher, "distill.temperature=2"}, "drawn at rollout.temperature"},
         {{kTeacher, "distill.distance=jsd", "rollout.top_p=0.9"}, "cut the student's"},
         {{kTeacher, "rollout.top_p=0.9"}, nullptr},
         {{"distill.teachers=[\"http://h:1\"]", "rollout.top_p=0.9"}, "behind a server"},
         {{kTeacher, "distill.feature_steps=3"}, "is of algorithm.name = \"sft\""},
         {{kTeacher, "algorithm.objective=vespo"}, "weighs whole answers"},
         {{kTeacher, "distill.distance=jsd", "distill.student_share=0.5"}, nullptr},
         {{kTeacher, "distill.student_share=0.5"}, "lets the data's in"},
         {{kTeacher, "distill.distance=jsd", "distill.student_share=0"}, "above 0"},
         {{"distill.teachers=[\"a=/m/t\"]", "distill.distance=jsd", "distill.student_share=0.5"},
          "are of no dataset"},
         {{"distill.student_share=0.5"}, "set distill.teachers"}});
}

TEST(DistillCheckTest, ContradictionsOfDemonstrationsAreNamed) {
  Check(kRows,
        {{{kTeacher, "distill.distance=reverse_k1"}, "measured on the student's own samples"},
         {{kTeacher, "distill.distance=jsd", "distill.perturb=0.1"}, nullptr},
         {{kTeacher, "distill.distance=jsd", "distill.boundary_coef=1", "distill.top_k=1"},
          "two likeliest"},
         {{"distill.teachers=[\"http://h:1\"]", "distill.distance=jsd", "distill.feature_steps=2"},
          "hidden states"},
         {{kTeacher, "distill.distance=jsd", "distill.student_share=0.5"}, "use that without it"},
         {{"distill.teachers=[\"self\"]", "distill.distance=jsd"}, "name its folder"},
         {{kTeacher, "distill.distance=jsd", "sft.syntax_penalty=0.3"}, "sft.syntax_penalty"}});
}

TEST(DistillCheckTest, NamesOfOtherSystems) {
  const Config c = ParseRecipe(kRollouts, "r.toml",
                               {"distill.teacher_model_name_or_path=[\"/m/t\"]",
                                "distill.loss_mode=jsd", "distill.loss_top_k=32",
                                "distill.distillation_loss_coef=2", "distill.lmbda=0.25"})
                       .config;
  EXPECT_EQ(c.distill.teachers, std::vector<std::string>{"/m/t"});
  EXPECT_EQ(c.distill.distance, Distance::kJsd);
  EXPECT_EQ(c.distill.top_k, 32);
  EXPECT_EQ(c.distill.coef, 2);
  EXPECT_EQ(c.distill.student_share, 0.25);
  Check(kRollouts, {{{"distill.distance=k1"}, "reverse_k1"},
                    {{"distill.distance=forward_kl_topk"}, "forward_top_k"}});
}

}  // namespace
}  // namespace plumb::configs
