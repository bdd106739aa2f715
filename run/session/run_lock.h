// Who runs in a folder: one process at a time.
//
// Purpose: held from before a run writes anything until its process ends, however it ends; it lies
// on the file, so it moves with the folder when that is renamed. What a killed process leaves (the
// file, its number in it) holds nobody up. Thread safety: one thread. Ownership: the lock goes with
// the object; processes started meanwhile do not inherit it. Errors: kConflict naming the folder
// and the process that holds it; those of the file system.
#pragma once

#include <string>

namespace plumb::run {

class RunLock {
 public:
  static constexpr char kFile[] = "lock";  // in the run folder

  RunLock() = default;  // holds nothing
  // REQUIRES: the folder exists.
  explicit RunLock(const std::string& folder);
  ~RunLock();
  RunLock(RunLock&& other) noexcept;
  RunLock& operator=(RunLock&& other) noexcept;

  // Whether a process holds the lock of that folder now; false where there is none. For who looks
  // at runs: it asks with a shared lock of an instant, which a run that begins just then waits out.
  static bool IsHeld(const std::string& folder);

  // That folder is the one it was taken in: not another that lies there since it was moved.
  bool IsOf(const std::string& folder) const;

 private:
  int file_ = -1;
};

}  // namespace plumb::run
