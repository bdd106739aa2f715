#include "policy_model/memory/threads.h"

#include <ATen/Parallel.h>
#include <dlfcn.h>
#include <omp.h>

namespace plumb::policy_model {

void UseThreads(int threads) {
  // LibTorch's own setting is one for the process, which each thread takes over when it first
  // computes: here, and not behind this.
  at::get_num_threads();
  omp_set_num_threads(threads);
  // Of the MKL inside LibTorch's CPU library, where it is exported.
  static const auto mkl =
      reinterpret_cast<int (*)(int)>(dlsym(RTLD_DEFAULT, "MKL_Set_Num_Threads_Local"));
  if (mkl != nullptr) mkl(threads);
}

}  // namespace plumb::policy_model
