// TensorBoard's event files: scalars, texts, and what its HPARAMS tab compares runs by.
//
// Purpose: `tensorboard --logdir` reads them; a new file in the folder for each start. The first
// record of a start tells TensorBoard to forget what an earlier start wrote from that step on.
// Thread safety: one thread. Ownership: borrows the file system while it is made. Errors: those of
// the file system (kNoSpace, kIo).
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <variant>

#include "common/base/file.h"
#include "common/base/metrics/metrics.h"

namespace plumb {

using HyperParameters = std::map<std::string, std::variant<bool, double, std::string>>;

class TensorBoardSink : public MetricsSink {
 public:
  // Markdown under the tab TEXT, one text a step under each tag.
  virtual void Text(int64_t step, double wall_s, const std::string& tag,
                    const std::string& markdown) = 0;
  // The row of this run under the tab HPARAMS, which shows each metric's last value beside it. Of
  // several starts of one run TensorBoard shows the first one's values, so a session is ended only
  // when the run is.
  virtual void BeginSession(int64_t step, double wall_s, const HyperParameters& values) = 0;
  virtual void EndSession(int64_t step, double wall_s) = 0;
};

std::unique_ptr<TensorBoardSink> MakeTensorBoardSink(const std::string& folder,
                                                     FileSystem& files = RealFileSystem(),
                                                     Clock& clock = RealClock());

}  // namespace plumb
