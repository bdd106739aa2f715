#include "learner/ranks/nccl_library.h"

#include <dlfcn.h>
#include <link.h>

#include <filesystem>

#include "common/base/error.h"

namespace plumb::learner {
namespace {

constexpr const char* kName = "libnccl.so.2";

// The folder that LibTorch was loaded from; empty: it is linked in another way.
std::string TorchFolder() {
  std::string folder;
  dl_iterate_phdr(
      [](dl_phdr_info* info, size_t, void* into) {
        const std::filesystem::path path = info->dlpi_name;
        if (path.filename() != "libtorch_cpu.so") return 0;
        *static_cast<std::string*>(into) = path.parent_path().string();
        return 1;
      },
      &folder);
  return folder;
}

// The first of its functions that is missing; empty: all are there.
std::string Bind(void* handle, NcclLibrary& library) {
  std::string missing;
  const auto bind = [&](const char* name, auto& function) {
    function = reinterpret_cast<std::remove_reference_t<decltype(function)>>(dlsym(handle, name));
    if (!function && missing.empty()) missing = name;
  };
  bind("ncclGetUniqueId", library.GetUniqueId);
  bind("ncclCommInitRank", library.CommInitRank);
  bind("ncclCommDestroy", library.CommDestroy);
  bind("ncclAllReduce", library.AllReduce);
  bind("ncclReduceScatter", library.ReduceScatter);
  bind("ncclAllGather", library.AllGather);
  bind("ncclReduce", library.Reduce);
  bind("ncclBroadcast", library.Broadcast);
  bind("ncclGroupStart", library.GroupStart);
  bind("ncclGroupEnd", library.GroupEnd);
  bind("ncclGetErrorString", library.GetErrorString);
  return missing;
}

}  // namespace

std::vector<std::string> NcclPlaces(const std::string& wanted) {
  if (!wanted.empty()) return {wanted};
  std::vector<std::string> places = {kName};
  if (const std::string torch = TorchFolder(); !torch.empty()) {
    places.push_back(torch + "/" + kName);
    const auto packages = std::filesystem::path(torch).parent_path().parent_path();
    places.push_back((packages / "nvidia/nccl/lib" / kName).string());
  }
  return places;
}

NcclLibrary OpenNccl(const std::string& wanted) {
  std::string tried;
  for (const std::string& place : NcclPlaces(wanted)) {
    NcclLibrary library;
    void* const handle = dlopen(place.c_str(), RTLD_NOW | RTLD_LOCAL);
    const char* const why = handle ? nullptr : dlerror();
    const std::string missing = handle ? Bind(handle, library) : "";
    if (handle && missing.empty()) {
      library.path = place;
      return library;
    }
    if (handle) dlclose(handle);
    tried += (tried.empty() ? "" : "; ") +
             (handle ? place + " has no " + missing : std::string(why ? why : place.c_str()));
  }
  throw Error(ErrorCode::kUnsupported,
              "several ranks on GPUs add up by NCCL, which is not here (" + tried +
                  "): pip install nvidia-nccl-cu12 beside LibTorch, install the system's libnccl2, "
                  "or set PLUMB_NCCL to the file; one rank needs none",
              "run.device");
}

}  // namespace plumb::learner
