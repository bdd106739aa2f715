// What of a recipe's files a role on another machine needs, and the recipe as it stands there.
//
// Purpose: no file system is shared. The head hands out the tokenizer and config of model.path
// (never its weights: these come from the learner), and to reward workers the files that
// [[reward.parts]] name, the models of reward_model and perplexity included. The role puts them
// into a folder of its own and points the options there.
// Thread safety: pure functions of their files. Ownership: plain values. Errors: kInvalidArgument
// for a file that is too large or a name that leads out of the folder; those of reading.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "configs/config.h"
#include "run/roles/cluster/member_kind.h"

namespace plumb::run {

struct RoleFile {
  std::string name;  // below the role's folder: "model/tokenizer.json"
  std::string path;  // at the head; not on the wire
  uint64_t bytes = 0;
  std::string digest;  // SHA-256, hex
  bool runs = false;   // it may be executed
};

// An option that names a file or folder, and what it is below the role's folder.
struct RolePath {
  std::string option;  // "model.path", "reward.parts.0.path", "reward.parts.0.args.1"
  std::string name;    // "model", "reward/0/rule.py"
};

struct RoleFiles {
  std::vector<RoleFile> files;
  std::vector<RolePath> paths;
};

// Reads each file once, for its digest.
RoleFiles FilesOf(const configs::Config& config, MemberKind kind);

// SHA-256 of a file's bytes, hex.
std::string DigestOfFile(const std::string& path);

// What makes two recipes one run: all options but where it lies, what machines it uses and how
// weights get to them.
std::string RecipeDigest(configs::Config config);
// Of the recipe that a run keeps in its config.toml, its paths as they stand there: the same from
// whatever folder the head is started again.
std::string RecipeDigestOfRun(const std::string& config_toml);

// Puts the bytes where the role needs them; kCorruption where they are not those of the digest.
void PutRoleFile(const std::string& folder, const RoleFile& file, std::string_view bytes);

// `config` with the options of `paths` pointing into `folder`.
configs::Config PointInto(configs::Config config, const std::vector<RolePath>& paths,
                          const std::string& folder);

// kCorruption for a name that is absolute or has "..".
void CheckRoleFileName(const std::string& name);

}  // namespace plumb::run
