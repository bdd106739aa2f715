#include "actor/state_rows.h"

#include <sys/mman.h>

#include <cerrno>
#include <cstring>
#include <string>

#include "common/base/error.h"
#include "common/base/size_text.h"
#include "kernels/device/device_memory.h"

namespace plumb::actor {

StateRows::StateRows(const Stream& stream, int64_t row_bytes, int32_t rows)
    : stream_(stream), row_bytes_(row_bytes), rows_(rows) {
  PLUMB_CHECK(row_bytes >= 0 && row_bytes % 4 == 0 && rows >= 1);
  if (row_bytes == 0) return;
  if (stream.device().is_cuda()) {
    device_memory_ = policy_model::FlatBuffer(stream, DType::kFloat32, row_bytes / 4 * rows);
    data_ = device_memory_.f32();
    return;
  }
  const size_t bytes = static_cast<size_t>(row_bytes) * static_cast<size_t>(rows);
  void* mapped = mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (mapped == MAP_FAILED) {
    throw Error(ErrorCode::kUnavailable, "cannot map " + LimitText(static_cast<int64_t>(bytes)) +
                                             " of states of " + std::to_string(rows) +
                                             " sequences: " + std::strerror(errno) +
                                             "; lower rollout.max_batch");
  }
  data_ = static_cast<float*>(mapped);
  mapped_bytes_ = bytes;
}

StateRows::~StateRows() {
  if (mapped_bytes_ > 0) munmap(data_, mapped_bytes_);
}

void StateRows::Copy(int32_t from, int32_t to) {
  PLUMB_CHECK(from >= 0 && from < rows_ && to >= 0 && to < rows_,
              "row " + std::to_string(from) + " or " + std::to_string(to));
  if (row_bytes_ == 0 || from == to) return;
  const int64_t floats = row_bytes_ / 4;
  kernels::Copy(stream_, data_ + to * floats, data_ + from * floats,
                static_cast<size_t>(row_bytes_));
}

}  // namespace plumb::actor
