// The private folder of a run's ipc sockets, under $XDG_RUNTIME_DIR or /tmp.
//
// Purpose: addresses short enough for ipc (they end at 107 bytes), readable by their owner alone,
// and gone with the run. A folder whose owner was killed is removed by the next one that is made:
// each holds a lock that ends with its process. Thread safety: one thread. Errors: kIo where no
// folder can be made.
#pragma once

#include <string>

namespace plumb::run {

class SocketFolder {
 public:
  static constexpr char kOwner[] = "owner";  // the locked file in it

  SocketFolder();
  // Under `base` instead.
  explicit SocketFolder(const std::string& base);
  ~SocketFolder();
  SocketFolder(const SocketFolder&) = delete;
  SocketFolder& operator=(const SocketFolder&) = delete;
  const std::string& path() const { return path_; }

 private:
  std::string path_;
  int owner_ = -1;
};

// Removes the folders under `base` whose owner has ended. What is no such folder, or another
// user's, stays. Returns how many.
int RemoveAbandonedSocketFolders(const std::string& base);

}  // namespace plumb::run
