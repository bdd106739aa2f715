#include "run/commands/cluster/launch_scripts.h"

#include <gtest/gtest.h>
#include <sys/wait.h>

#include <cstdlib>

#include "common/base/file.h"
#include "tests/testing/paths.h"
#include "tests/testing/temp_folder.h"

namespace plumb::run {
namespace {

using plumb::testing::TempFolder;

LaunchJob Job() {
  return {.name = "toy",
          .recipe = "it's here.toml",
          .recipe_text = "[run]\nseed = 1\n\n[data]\ntrain = \"a\\\"b\"\n",
          .digest = std::string(64, 'd'),
          .overrides = {"run.roles=cluster", "data.train=a b"},
          .nodes = 4,
          .actors = 2,
          .rewards = 1,
          .cpus = 8,
          .gpus = 1,
          .port = 7777,
          .keys = "/home/me/my keys",
          .out = "runs/toy",
          .plumb = "/opt/plumb",
          .image = "registry.example/plumb:1"};
}

int Shell(const std::string& line) {
  const int status = std::system(line.c_str());
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

TEST(ShellQuoted, IsOneWordOfAShell) {
  EXPECT_EQ(ShellQuoted("run.listen=tcp://0.0.0.0:7777"), "run.listen=tcp://0.0.0.0:7777");
  EXPECT_EQ(ShellQuoted("a b"), "'a b'");
  EXPECT_EQ(ShellQuoted("it's"), "'it'\\''s'");
  EXPECT_EQ(ShellQuoted(""), "''");
}

// Run by bash with programs that say how they were called: the head with the recipe, roles with
// their names; the job's exit code is the head's.
TEST(SlurmScriptTest, StartsAHeadAndRolesAndEndsWithTheHead) {
  const TempFolder temp;
  const auto program = [&](const std::string& name, const std::string& text) {
    RealFileSystem().WriteFileAtomic(temp / name, "#!/bin/bash\n" + text);
    ASSERT_EQ(Shell("chmod +x " + (temp / name)), 0);
  };
  program("scontrol", "echo node1; echo node2\n");
  program("srun",
          "for word; do case $word in --*) [ $word != --kill-on-bad-exit=0 ] || tasks=yes ;; *) "
          "break ;; esac; shift; done\n"
          "[ \"$1\" != 1 ] || shift\n"
          "SLURM_PROCID=0 exec \"$@\"\n");
  program("plumb", "printf '%s|' \"$@\" >> " + (temp / "said") + "; echo >> " + (temp / "said") +
                       "\n[ $1 != train ] || { /bin/sleep 2; exit 5; }\nmkdir " + (temp / "once") +
                       " 2>/dev/null || exit 0\nkill -9 $$\n");
  program("sleep", "exec /bin/sleep 0.2\n");
  LaunchJob job = Job();
  job.plumb = temp / "plumb";
  job.out = temp / "out";
  RealFileSystem().WriteFileAtomic(temp / "job", SlurmScript(job));
  EXPECT_EQ(Shell("cd " + temp.path() + " && PATH=" + temp.path() +
                  ":$PATH SLURM_JOB_NODELIST=x SLURM_JOB_ID=1 timeout 60 bash job >log 2>&1"),
            5)
      << RealFileSystem().ReadFile(temp / "log", 1 << 20);
  const std::string said = RealFileSystem().ReadFile(temp / "said", 1 << 20);
  EXPECT_NE(said.find("train|it's here.toml|--out|" + (temp / "out") +
                      "|--set|run.roles=cluster|--set|data.train=a b|\n"),
            std::string::npos)
      << said;
  const std::string actor = "role|actor|--join|tcp://node1:7777|--name|actor-0|--recipe|" +
                            job.digest + "|--keys|/home/me/my keys|--wait|600|";
  EXPECT_NE(said.find(actor), std::string::npos) << said;
  EXPECT_NE(said.find("role|reward|--join|tcp://node1:7777|--name|reward-0|"), std::string::npos)
      << said;
  size_t roles = 0;
  for (size_t at = 0; (at = said.find("role|", at)) != std::string::npos; ++at) ++roles;
  EXPECT_EQ(roles, 3u) << "the one that was killed is started again: " << said;
}

// Slurm asks the script to end: the head hears of it, though an srun that is asked kills its step.
TEST(SlurmScriptTest, ASignalReachesTheHeadAndNotItsSrun) {
  const TempFolder temp;
  const auto program = [&](const std::string& name, const std::string& text) {
    RealFileSystem().WriteFileAtomic(temp / name, "#!/bin/bash\n" + text);
    ASSERT_EQ(Shell("chmod +x " + (temp / name)), 0);
  };
  program("scontrol", "echo node1\n");
  program("srun",
          "while case $1 in --*) true ;; *) false ;; esac; do shift; done\n"
          "[ \"$1\" != 1 ] || shift\n"
          "trap 'kill -9 $child; exit 137' TERM\n"
          "SLURM_PROCID=0 \"$@\" & child=$!\nwait $child\n");
  program("plumb", "[ $1 = train ] || exit 0\ntrap 'exit 7' TERM\n: > " + (temp / "trains") +
                       "\nfor i in {1..200}; do sleep 0.1; done\n");
  LaunchJob job = Job();
  job.plumb = temp / "plumb";
  job.out = temp / "out";
  RealFileSystem().WriteFileAtomic(temp / "job", SlurmScript(job));
  EXPECT_EQ(
      Shell("cd " + temp.path() + " && export TMPDIR=" + temp.path() + " PATH=" + temp.path() +
            ":$PATH SLURM_JOB_NODELIST=x SLURM_JOB_ID=1; bash job >log 2>&1 & job=$!; "
            "for i in $(seq 300); do [ -e " +
            (temp / "trains") + " ] && break; sleep 0.1; done; kill -TERM $job; wait $job"),
      7)
      << RealFileSystem().ReadFile(temp / "log", 1 << 20);
  EXPECT_FALSE(RealFileSystem().Exists(temp / "plumb-1.head"));
}

// Against the schemas of Kubernetes and of JobSet, where they are installed.
TEST(KubernetesManifestsTest, AreWhatTheSchemasOfKubernetesAndJobSetTake) {
  const char* python = std::getenv("PLUMB_TEST_KUBERNETES_PYTHON");
  const char* jobset = std::getenv("PLUMB_TEST_JOBSET_CRD");
  if (python == nullptr || jobset == nullptr) {
    GTEST_SKIP() << "SKIPPED, manifests were not validated: set PLUMB_TEST_KUBERNETES_PYTHON to a "
                    "Python with kubernetes-validate, jsonschema and pyyaml (pip), and "
                    "PLUMB_TEST_JOBSET_CRD to jobset.x-k8s.io_jobsets.yaml of JobSet's repository";
  }
  const TempFolder temp;
  LaunchJob job = Job();
  job.keys = "/keys";
  job.out = "/run/plumb";
  const std::string check =
      plumb::testing::SourcePath("tests/run/commands/cluster/check_manifests.py");
  for (const bool keys : {true, false}) {
    job.keys = keys ? "/keys" : "";
    RealFileSystem().WriteFileAtomic(temp / "manifests.yaml", KubernetesManifests(job));
    EXPECT_EQ(
        Shell(std::string(python) + " " + check + " " + jobset + " " + (temp / "manifests.yaml")),
        0);
  }
  std::string broken = KubernetesManifests(job);
  broken.replace(broken.find("backoffLimit: 0"), 15, "backoffLimit: no");
  RealFileSystem().WriteFileAtomic(temp / "manifests.yaml", broken);
  EXPECT_NE(Shell(std::string(python) + " " + check + " " + jobset + " " +
                  (temp / "manifests.yaml") + " >/dev/null 2>&1"),
            0)
      << "the check finds nothing";
}

TEST(KubernetesManifestsTest, HaveAHeadlessServiceTheRecipeAndOnlyTheKeysOfEachRole) {
  LaunchJob job = Job();
  job.keys = "/keys";
  const std::string text = KubernetesManifests(job);
  EXPECT_NE(text.find("clusterIP: None"), std::string::npos);
  EXPECT_NE(text.find("  recipe.toml: |\n    [run]\n    seed = 1\n\n    [data]\n"),
            std::string::npos);
  EXPECT_NE(text.find("--join tcp://toy-head:7777"), std::string::npos);
  EXPECT_NE(text.find("key: actor.key"), std::string::npos);
  EXPECT_EQ(text.find("key: head.key"), std::string::npos) << "no role has the head's secret";
  EXPECT_EQ(text.find('@'), std::string::npos) << "something was not filled in";
  job.rewards = 0;
  EXPECT_EQ(KubernetesManifests(job).find("plumb-role: reward"), std::string::npos);
}

TEST(RayDriverTest, IsPythonWithTheRecipeInIt) {
  const TempFolder temp;
  const std::string text = RayDriver(Job());
  RealFileSystem().WriteFileAtomic(temp / "driver.py", text);
  EXPECT_EQ(Shell("python3 -m py_compile " + (temp / "driver.py")), 0);
  EXPECT_NE(text.find("train = \\\"a\\\\\\\"b\\\"\\n"), std::string::npos) << text;
  for (const char* name : {"@PLUMB@", "@DIGEST@", "@KEYS@", "@ACTORS@", "@GPUS@"})
    EXPECT_EQ(text.find(name), std::string::npos) << name;
}

}  // namespace
}  // namespace plumb::run
