// What people write: recipes, --set, addresses, keys.
#include <algorithm>

#include "common/base/error.h"
#include "common/net/curve_keys.h"
#include "common/net/endpoint.h"
#include "common/net/http_client.h"
#include "configs/config.h"
#include "configs/recipe_text.h"
#include "targets.h"

namespace plumb::fuzz {
namespace {

constexpr const char* kRecipes[] = {"arithmetic_grpo", "arithmetic_ppo",  "dpo_hh",
                                    "gsm8k_smollm2",   "mix_quality_ppo", "toy_dapo"};

// A recipe that was taken has to be written so that it reads as the same one.
void Check(const configs::Loaded& loaded) {
  const std::string toml = configs::ToToml(loaded.config);
  PLUMB_CHECK(configs::ToToml(configs::ParseRecipe(toml, "again.toml").config) == toml,
              "a recipe changed on its way:\n" + toml);
  for (const size_t width : {size_t{0}, size_t{30}, size_t{80}, size_t{300}})
    Use(configs::List(loaded, {.width = width}).size());
}

}  // namespace

void FuzzRecipe(std::string_view input) {
  Check(configs::ParseRecipe(std::string(input), "input.toml"));
}

Seeds RecipeSeeds() {
  Seeds out;
  for (const char* name : kRecipes)
    out.push_back(SourceFile("configs/" + std::string(name) + ".toml"));
  out.push_back(
      "[rollout]\ntemperature = 1e400\nstop = [\"a\", \"\\u0000\"]\n[[reward.parts]]\nname = "
      "'x'\nkind = \"answer\"\n");
  out.push_back("[run]\n\u00e9 = 1\nsteps \u0436= 1\n");
  out.push_back("[(a]\nx = 1\n");
  out.push_back(
      "[data]\nmap = {prompt = \"q\", answer = \"a\"}\n[run]\nseed = 0x7fffffffffffffff\nsteps = "
      "1_000\n");
  return out;
}

// Lines are values of --set.
void FuzzOverride(std::string_view input) {
  static const std::string recipe = SourceFile("configs/arithmetic_grpo.toml");
  std::vector<std::string> overrides;
  while (!input.empty() && overrides.size() < 8) {
    const size_t end = std::min(input.find('\n'), input.size());
    overrides.emplace_back(input.substr(0, end));
    input.remove_prefix(std::min(end + 1, input.size()));
  }
  Check(configs::ParseRecipe(recipe, "recipe.toml", overrides));
}

Seeds OverrideSeeds() {
  return {"rollout.temperature=0.5\nrun.seed=7",
          "reward.parts.0.weight=2\nreward.parts.9.weight=1",
          "rollout.stop=[\"a\"]",
          "data.train=a b.jsonl",
          "optimizer.learning_rate=nan",
          "run.steps=9223372036854775808",
          "a.b.c=1\n=\nx",
          "data.map={prompt=\"q\"}"};
}

void FuzzAddresses(std::string_view input) {
  const auto attempt = [](const auto& body) {
    try {
      body();
    } catch (const Error&) {
    }
  };
  const std::string text(input);
  for (const bool bind : {true, false}) {
    for (const bool keyed : {true, false}) attempt([&] { CheckEndpoint(text, bind, keyed); });
  }
  attempt([&] {
    const Url url = ParseUrl(text);
    PLUMB_CHECK(url.origin.starts_with("http") && url.path.starts_with("/"), url.shown);
  });
  const std::string file = InputFolder() + "/keys";
  WriteInput(file, input);
  attempt([&] { Use(ReadAllowedKeys(file).size()); });
  attempt([&] { Use(ReadPublicKey(file).size()); });
  attempt([&] { Use(ReadCurveKeys(file).secret_key.size()); });
}

Seeds AddressSeeds() {
  return {"tcp://127.0.0.1:5555",
          "tcp://[::1]:*",
          "ipc:///tmp/x/y",
          "http://user:secret@host:8000/path?query#part",
          "https://[::1]:443",
          "# keys\nrq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7\n",
          "public Yne@$w-vo<fVvi]a<NY6T1ed:M$fCG*[IaLV{hID\nsecret "
          "D:)Q[IlAW!ahhC2ac:9*A}h:p?([4%wOTJ%JR%cs\n"};
}

}  // namespace plumb::fuzz
