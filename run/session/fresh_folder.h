// A folder that a command makes: gone again where the command fails before anything lies in it.
//
// Purpose: a failed import leaves no empty store behind. What was there before stays, whatever
// happens.
// Thread safety: one caller. Ownership: declare it before whatever holds the folder open, which is
// then closed first. Errors: none; what cannot be removed stays.
#pragma once

#include <filesystem>
#include <string>

namespace plumb::run {

class FreshFolder {
 public:
  // Before the folder is made.
  explicit FreshFolder(const std::string& path);
  FreshFolder(const FreshFolder&) = delete;
  FreshFolder& operator=(const FreshFolder&) = delete;
  // Removes the folder, and parents that were made with it and are empty, unless it is kept.
  ~FreshFolder();
  void Keep() { kept_ = true; }

 private:
  const std::filesystem::path path_;
  const bool was_there_;
  std::filesystem::path first_made_;  // the uppermost folder that was not there
  bool kept_ = false;
};

}  // namespace plumb::run
