#include "run/roles/cluster/role_files.h"

#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <fstream>

#include "common/base/error.h"
#include "common/base/file.h"
#include "common/base/hash/sha256.h"

namespace plumb::run {
namespace {

namespace fs = std::filesystem;

// A tokenizer with its vocabulary; what is larger lies beside weights and is none of it.
constexpr uint64_t kLargestText = uint64_t{256} << 20;

bool IsWeights(const fs::path& file) {
  static constexpr std::string_view kEndings[] = {".safetensors", ".bin", ".pt",  ".pth",
                                                  ".gguf",        ".h5",  ".npz", ".onnx"};
  const std::string ending = file.extension().string();
  return std::find(std::begin(kEndings), std::end(kEndings), ending) != std::end(kEndings);
}

void AddFile(const fs::path& path, const std::string& name, std::vector<RoleFile>& files) {
  struct stat info {};
  if (::stat(path.c_str(), &info) != 0)
    throw Error(ErrorCode::kNotFound, "a file that roles need is not there", path.string());
  files.push_back({.name = name,
                   .path = path.string(),
                   .bytes = static_cast<uint64_t>(info.st_size),
                   .digest = DigestOfFile(path.string()),
                   .runs = (info.st_mode & S_IXUSR) != 0});
}

// The files directly in a folder; sub-folders hold none that a model is read from.
void AddFolder(const std::string& folder, const std::string& name, bool weights,
               std::vector<RoleFile>& files) {
  for (const std::string& each : RealFileSystem().List(folder)) {
    const fs::path path = fs::path(folder) / each;
    if (!fs::is_regular_file(path)) continue;
    if (!weights && (IsWeights(path) || fs::file_size(path) > kLargestText)) continue;
    if (weights && IsWeights(path) && path.extension() != ".safetensors") continue;
    AddFile(path, name + "/" + each, files);
  }
}

// What an option names, where that is a file or a folder here; a program of the PATH is not.
void AddNamed(const std::string& value, const std::string& option, const std::string& folder,
              RoleFiles& out) {
  std::error_code ignored;
  if (value.empty() || !fs::exists(value, ignored)) return;
  const std::string name =
      folder + "/" + fs::absolute(value).lexically_normal().filename().string();
  if (fs::is_directory(value)) {
    AddFolder(value, name, /*weights=*/true, out.files);
  } else if (fs::is_regular_file(value)) {
    const bool there = std::any_of(out.files.begin(), out.files.end(),
                                   [&](const RoleFile& file) { return file.name == name; });
    if (!there) AddFile(value, name, out.files);
  } else {
    return;
  }
  out.paths.push_back({option, name});
}

std::string PartOption(size_t part, const std::string& name) {
  return "reward.parts." + std::to_string(part) + "." + name;
}

}  // namespace

RoleFiles FilesOf(const configs::Config& config, MemberKind kind) {
  RoleFiles out;
  if (!config.model.path.empty()) {
    AddFolder(config.model.path, "model", /*weights=*/false, out.files);
    out.paths.push_back({"model.path", "model"});
  }
  if (kind != MemberKind::kReward) return out;
  for (size_t i = 0; i < config.reward.parts.size(); ++i) {
    const configs::RewardPartConfig& part = config.reward.parts[i];
    const std::string folder = "reward/" + std::to_string(i);
    AddNamed(part.path, PartOption(i, "path"), folder, out);
    AddNamed(part.server_key, PartOption(i, "server_key"), folder, out);
    for (size_t a = 0; a < part.args.size(); ++a)
      AddNamed(part.args[a], PartOption(i, "args." + std::to_string(a)), folder + "/args", out);
  }
  return out;
}

std::string DigestOfFile(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  if (!in) ThrowFileError(errno, "cannot read a file that roles need", path);
  std::string block(size_t{1} << 20, '\0');
  Sha256 sum;
  while (in.read(block.data(), static_cast<std::streamsize>(block.size())) || in.gcount() > 0)
    sum.Update(std::string_view(block.data(), static_cast<size_t>(in.gcount())));
  if (in.bad()) ThrowFileError(errno, "cannot read a file that roles need", path);
  return sum.HexDigest();
}

std::string RecipeDigest(configs::Config config) {
  const configs::Config plain;
  config.run.out = plain.run.out;
  config.run.roles = plain.run.roles;
  config.run.threads = plain.run.threads;
  config.run.device = plain.run.device;
  config.run.memory_gb = plain.run.memory_gb;
  config.run.listen = plain.run.listen;
  config.run.keys = plain.run.keys;
  config.run.relay = plain.run.relay;
  config.run.weight_deltas = plain.run.weight_deltas;
  return Sha256Hex(configs::ToToml(config));
}

std::string RecipeDigestOfRun(const std::string& config_toml) {
  constexpr size_t kMaxBytes = size_t{16} << 20;
  return RecipeDigest(
      configs::ParseRecipe(RealFileSystem().ReadFile(config_toml, kMaxBytes), config_toml).config);
}

void CheckRoleFileName(const std::string& name) {
  const fs::path path(name);
  bool fine = !name.empty() && name.size() < 1024 && path.is_relative() &&
              name.find('\0') == std::string::npos;
  for (const fs::path& step : path) fine = fine && step != ".." && step != "." && !step.empty();
  if (!fine)
    throw Error(ErrorCode::kCorruption, "the head names a file that leads out of the role's folder",
                name.substr(0, 200));
}

void PutRoleFile(const std::string& folder, const RoleFile& file, std::string_view bytes) {
  CheckRoleFileName(file.name);
  const std::string path = folder + "/" + file.name;
  if (bytes.size() != file.bytes || Sha256Hex(bytes) != file.digest) {
    throw Error(ErrorCode::kCorruption,
                "the head sent other bytes than it promised (was the file changed during the run?)",
                file.name);
  }
  RealFileSystem().CreateDirectories(fs::path(path).parent_path().string());
  RealFileSystem().WriteFileAtomic(path, bytes);
  if (file.runs) fs::permissions(path, fs::perms::owner_exec, fs::perm_options::add);
}

configs::Config PointInto(configs::Config config, const std::vector<RolePath>& paths,
                          const std::string& folder) {
  const auto refuse = [](const std::string& option) {
    throw Error(ErrorCode::kCorruption, "the head names an option that is no file's",
                option.substr(0, 200));
  };
  for (const RolePath& path : paths) {
    CheckRoleFileName(path.name);
    const std::string value = folder + "/" + path.name;
    bool found = false;
    if (path.option == "model.path") {
      config.model.path = value;
      found = true;
    }
    for (size_t i = 0; i < config.reward.parts.size() && !found; ++i) {
      configs::RewardPartConfig& part = config.reward.parts[i];
      const auto set = [&](const std::string& name, std::string& option) {
        if (path.option != PartOption(i, name)) return;
        option = value;
        found = true;
      };
      set("path", part.path);
      set("server_key", part.server_key);
      for (size_t a = 0; a < part.args.size(); ++a) set("args." + std::to_string(a), part.args[a]);
    }
    if (!found) refuse(path.option);
  }
  return config;
}

}  // namespace plumb::run
