// plumb store inspect | verify | snapshot | recover | explain | export: what lies in a store, and
// whether it is whole.
#include <cstdio>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include "common/base/file.h"
#include "common/base/output_path.h"
#include "replay/datasets/dump.h"
#include "replay/store/recover.h"
#include "replay/store/store.h"
#include "run/commands/checked_numbers.h"
#include "run/commands/cli.h"
#include "run/session/stored/run_store.h"

namespace plumb::run {
namespace {

struct Arguments {
  std::string path, to, out;
  replay::DumpOptions options;
  int64_t lease = -1;
  bool eval = false, tokens = false, json = false, overwrite = false, point_in_time = false;
};
using Shared = std::shared_ptr<Arguments>;

void AddInspect(CLI::App& store, const Shared& a) {
  CLI::App* inspect =
      store.add_subcommand("inspect", "Counts and one record; also while a run holds the store");
  inspect->add_option("store", a->path, "folder, e.g. runs/demo/store, or the run's: runs/demo")
      ->required();
  inspect->add_flag("--json", a->options.json, "one JSON object");
  inspect->add_flag("--eval", a->eval, "show an evaluation record instead of a training one");
  inspect->add_flag("--verify", a->options.verify, "read everything back");
  inspect->add_option("--lease", a->lease, "the record of this lease id")->check(WholeNumber(0));
  inspect->callback([a] {
    a->path = StoreFolderOf(a->path);
    if (a->eval) a->options.purpose = Purpose::kEval;
    if (a->lease >= 0) a->options.lease = static_cast<uint64_t>(a->lease);
    std::fputs(replay::DumpStore(a->path, a->options).c_str(), stdout);
  });
}

void AddVerify(CLI::App& store, const Shared& a, CliResult& result) {
  CLI::App* verify = store.add_subcommand(
      "verify", "Reads every record and checks sums and invariants; exit code 4 on damage");
  verify->add_option("store", a->path, "folder")->required();
  verify->add_flag("--json", a->json, "one JSON object");
  verify->callback([a, &result] {
    a->path = StoreFolderOf(a->path);
    replay::StoreOptions how;
    how.read_only = true;
    const auto known = KnownInsertsOf(a->path);
    const auto opened = replay::Store::Open(a->path, how);
    replay::VerifyReport report = opened->Verify();
    if (std::string missing = MissingInserts(known, opened->Sequence()); !missing.empty())
      report.problems.push_back(std::move(missing));
    if (!report.problems.empty()) result.exit_code = ExitCodeOf(ErrorCode::kCorruption);
    if (a->json) {
      const nlohmann::json j = {{"store", a->path},
                                {"groups", report.groups},
                                {"prompts", report.prompts},
                                {"leases", report.leases},
                                {"preferences", report.preferences},
                                {"logprobs", report.logprobs},
                                {"scores", report.scores},
                                {"problems", report.problems}};
      std::printf("%s\n", j.dump(2, ' ', false, nlohmann::json::error_handler_t::replace).c_str());
      return;
    }
    for (const std::string& problem : report.problems)
      std::printf("damaged: %s\n", problem.c_str());
    std::printf(
        "%s: %llu groups, %llu prompts, %llu leases, %llu preference rows, %llu cached log-prob "
        "lists, %llu scores read; %zu problems\n",
        a->path.c_str(), static_cast<unsigned long long>(report.groups),
        static_cast<unsigned long long>(report.prompts),
        static_cast<unsigned long long>(report.leases),
        static_cast<unsigned long long>(report.preferences),
        static_cast<unsigned long long>(report.logprobs),
        static_cast<unsigned long long>(report.scores), report.problems.size());
  });
}

void AddSnapshot(CLI::App& store, const Shared& a) {
  CLI::App* snapshot = store.add_subcommand(
      "snapshot", "A copy of the store as it is, in a folder of its own; no run may hold it");
  snapshot->add_option("store", a->path, "folder")->required();
  snapshot->add_option("to", a->to, "folder of the copy")->required();
  snapshot->callback([a] {
    a->path = StoreFolderOf(a->path);
    replay::StoreOptions how;
    how.create = false;
    replay::Store::Open(a->path, how)->Snapshot(a->to);
    std::printf("%s\n", a->to.c_str());
  });
}

// "train 3-7, 9, eval 4": ids in a row as one range.
std::string LeaseText(const std::vector<std::pair<Purpose, uint64_t>>& leases) {
  std::string text;
  const auto name = [](Purpose purpose) { return purpose == Purpose::kEval ? "eval" : "train"; };
  for (size_t i = 0, end = 0; i < leases.size(); i = end) {
    const auto [purpose, first] = leases[i];
    for (end = i + 1; end < leases.size() && leases[end] == std::pair(purpose, first + (end - i));)
      ++end;
    if (i == 0 || leases[i - 1].first != purpose)
      text += std::string(i == 0 ? "" : ", ") + name(purpose) + " ";
    else text += ", ";
    text += std::to_string(first);
    if (end - i > 1) text += "-" + std::to_string(leases[end - 1].second);
  }
  return text;
}

std::string RecoveryText(const replay::Recovery& r, const Arguments& a) {
  if (r.damaged.empty())
    return a.path + ": no log is damaged and every record reads, nothing is to be recovered" +
           (a.to.empty() ? "" : ": no copy was made (`plumb store snapshot` makes one)") + "\n";
  std::string text = "damaged:  " + r.damaged + ", the record at byte " + std::to_string(r.byte) +
                     " " + r.what + "\n";
  for (const std::string& log : r.left_out) text += "left out: " + log + ", which is newer\n";
  text += "kept:     " + std::to_string(r.kept_groups) + " groups, up to insert " +
          std::to_string(r.kept_inserts) + "\n";
  text += "missing:  " + std::to_string(r.missing.size()) + " groups that were acknowledged" +
          (r.missing.empty() ? "" : ": leases " + LeaseText(r.missing)) + "\n";
  if (r.nameless > 0) {
    text += "          " + std::to_string(r.nameless) +
            " more, whose leases stood in the damaged bytes\n";
  }
  text += "          and what the last damaged bytes of the log may have held\n";
  for (const auto& [family, rows] : r.other_rows)
    text += "behind:   " + std::to_string(rows) + " records of " + family + "\n";
  for (const std::string& problem : r.problems) text += "problem:  " + problem + "\n";
  return text + (a.to.empty() ? "nothing was changed; --to FOLDER makes the copy that ends there\n"
                              : "copy:     " + a.to + "\n");
}

void AddRecover(CLI::App& store, const Shared& a, CliResult& result) {
  CLI::App* recover = store.add_subcommand(
      "recover",
      "Of a store whose log is damaged: a copy that ends in front of the damage, and which "
      "acknowledged groups it lacks. The store itself stays as it is");
  recover->add_option("store", a->path, "folder")->required();
  recover
      ->add_flag("--point-in-time", a->point_in_time,
                 "all up to the damage and nothing behind it; there is no other way yet")
      ->required();
  recover->add_option("--to", a->to, "new folder of the copy; without it what it would lack");
  recover->add_flag("--json", a->json, "one JSON object");
  recover->callback([a, &result] {
    a->path = StoreFolderOf(a->path);
    const auto known = KnownInsertsOf(a->path);
    replay::Recovery r =
        replay::Recover(a->path, a->to.empty() ? std::nullopt : std::optional(a->to));
    // What the store itself knows to be missing the checkpoint need not say.
    if (std::string missing = MissingInserts(known, r.known_inserts); !missing.empty()) {
      if (r.damaged.empty())
        throw Error(ErrorCode::kCorruption, "no log is damaged, but " + missing, a->path);
      r.problems.push_back(std::move(missing));
      result.exit_code = ExitCodeOf(ErrorCode::kCorruption);
    }
    if (!a->json) {
      std::fputs(RecoveryText(r, *a).c_str(), stdout);
      return;
    }
    nlohmann::ordered_json missing = {{"train", nlohmann::json::array()},
                                      {"eval", nlohmann::json::array()}};
    for (const auto& [purpose, id] : r.missing)
      missing[purpose == Purpose::kEval ? "eval" : "train"].push_back(id);
    const nlohmann::ordered_json j = {{"damaged", r.damaged},
                                      {"byte", r.byte},
                                      {"what", r.what},
                                      {"left_out", r.left_out},
                                      {"kept_groups", r.kept_groups},
                                      {"kept_inserts", r.kept_inserts},
                                      {"missing", std::move(missing)},
                                      {"nameless", r.nameless},
                                      {"other_records", r.other_rows},
                                      {"problems", r.problems},
                                      {"copy", r.damaged.empty() ? "" : a->to}};
    std::printf("%s\n", j.dump(2, ' ', false, nlohmann::json::error_handler_t::replace).c_str());
  });
}

void AddExplain(CLI::App& store, const Shared& a) {
  CLI::App* explain = store.add_subcommand(
      "explain", "What keys and values are, how the folder is set up, what is how large");
  explain->add_option("store", a->path, "folder")->required();
  explain->callback(
      [a] { std::fputs(replay::ExplainStore(StoreFolderOf(a->path)).c_str(), stdout); });
}

void AddExport(CLI::App& store, const Shared& a) {
  CLI::App* out = store.add_subcommand("export", "Every stored group as one JSON object a line");
  out->add_option("store", a->path, "folder")->required();
  out->add_option("--out", a->out, "file (default: standard output)");
  out->add_flag("--overwrite", a->overwrite, "replace the file of --out that is there");
  out->add_flag("--tokens", a->tokens,
                "with tokens, masks, log-probs, versions, and how many tokens filters kept");
  out->callback([a] {
    a->path = StoreFolderOf(a->path);
    if (!a->out.empty()) {
      CheckOutput(a->out, {}, "--out");
      CheckNothingIsLost(a->out, a->overwrite, "--out");
    } else if (a->overwrite) {
      throw Error(ErrorCode::kInvalidArgument, "is for --out FILE", "--overwrite");
    }
    std::unique_ptr<AppendFile> file;
    const std::optional<std::string> out = ReplaceablePath(a->out);  // nullopt: a pipe, a device
    const std::string part = out ? *out + ".part" : a->out;
    if (!a->out.empty()) file = RealFileSystem().OpenAppend(part, /*truncate=*/out.has_value());
    const uint64_t groups =
        replay::ExportTrajectories(a->path, a->tokens, [&](const std::string& line) {
          if (file) {
            file->Append(line);
          } else {
            if (std::fputs(line.c_str(), stdout) < 0) FlushOutput();  // says why
          }
        });
    if (!file) return;
    if (out) file->Sync();
    file.reset();
    if (out) RealFileSystem().Rename(part, *out);
    std::printf("%s: %llu groups\n", a->out.c_str(), static_cast<unsigned long long>(groups));
  });
}

}  // namespace

void AddStoreCommand(CLI::App& app, CliResult& result) {
  auto a = std::make_shared<Arguments>();
  CLI::App* store =
      app.add_subcommand("store", "Look into a store, check it, copy it, write it out");
  store->require_subcommand(1);
  AddInspect(*store, a);
  AddVerify(*store, a, result);
  AddSnapshot(*store, a);
  AddRecover(*store, a, result);
  AddExplain(*store, a);
  AddExport(*store, a);
}

}  // namespace plumb::run
