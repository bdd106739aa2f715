#include "kernels/device/recorded_work.h"

#include "common/base/error.h"
#ifdef PLUMB_CUDA
#include "kernels/device/cuda_check.h"
#endif

namespace plumb::kernels {

#ifdef PLUMB_CUDA
struct RecordedWork::Impl {
  const Stream stream;
  cudaGraphExec_t graph = nullptr;

  explicit Impl(const Stream& s) : stream(s) {}
  ~Impl() {
    // Nobody to tell what fails here.
    if (graph != nullptr) cudaGraphExecDestroy(graph);
    cudaGetLastError();
  }
  cudaStream_t cuda_stream() const { return static_cast<cudaStream_t>(stream.handle()); }
};

RecordedWork::RecordedWork(const Stream& stream, const std::function<void()>& enqueue) {
  if (stream.device().is_cpu())
    throw Error(ErrorCode::kUnsupported, "work on the CPU is not recorded: it is done at once");
  const OnDevice here(stream.device());
  impl_ = std::make_unique<Impl>(stream);
  // Of this thread: other roles go on taking memory on their streams.
  CheckCuda(cudaStreamBeginCapture(impl_->cuda_stream(), cudaStreamCaptureModeThreadLocal),
            "to record a stream");
  cudaGraph_t recorded = nullptr;
  try {
    enqueue();
  } catch (...) {
    cudaStreamEndCapture(impl_->cuda_stream(), &recorded);
    if (recorded != nullptr) cudaGraphDestroy(recorded);
    cudaGetLastError();  // the exception says what it was
    throw;
  }
  CheckCuda(cudaStreamEndCapture(impl_->cuda_stream(), &recorded),
            "to end a record: something in it cannot be recorded");
  const cudaError_t made = cudaGraphInstantiate(&impl_->graph, recorded, 0);
  cudaGraphDestroy(recorded);
  CheckCuda(made, "a graph of what was recorded");
}

void RecordedWork::Replay() const {
  const OnDevice here(impl_->stream.device());
  CheckCuda(cudaGraphLaunch(impl_->graph, impl_->cuda_stream()), "to replay what was recorded");
}
#else
struct RecordedWork::Impl {};

RecordedWork::RecordedWork(const Stream&, const std::function<void()>&) {
  throw Error(ErrorCode::kUnsupported, "work on the CPU is not recorded: it is done at once");
}

void RecordedWork::Replay() const {}
#endif

RecordedWork::~RecordedWork() = default;
RecordedWork::RecordedWork(RecordedWork&&) noexcept = default;
RecordedWork& RecordedWork::operator=(RecordedWork&&) noexcept = default;

}  // namespace plumb::kernels
