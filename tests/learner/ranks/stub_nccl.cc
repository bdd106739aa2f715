// A libnccl.so.2 of the tests: it computes nothing and writes down what it was asked for, a line a
// call, in the file that STUB_NCCL_LOG names (tests/learner/ranks/nccl_group_test.cc).
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace {

int Say(const char* what, size_t count, int more) {
  if (const char* path = std::getenv("STUB_NCCL_LOG")) {
    if (std::FILE* file = std::fopen(path, "a")) {
      std::fprintf(file, "%s %zu %d\n", what, count, more);
      std::fclose(file);
    }
  }
  const char* fails = std::getenv("STUB_NCCL_FAILS");
  return fails && std::strcmp(fails, what) == 0 ? 5 : 0;
}

}  // namespace

extern "C" {
struct Id {
  char bytes[128];
};
int ncclGetUniqueId(Id* id) {
  std::memset(id->bytes, 0, sizeof id->bytes);
  std::memcpy(id->bytes + 3, "drawn", 5);  // behind bytes that would end a C string
  return Say("id", 0, 0);
}
int ncclCommInitRank(void** comm, int ranks, Id id, int rank) {
  *comm = new int(rank);
  return std::memcmp(id.bytes + 3, "drawn", 5) == 0 ? Say("init", static_cast<size_t>(ranks), rank)
                                                    : 4;
}
int ncclCommDestroy(void* comm) {
  delete static_cast<int*>(comm);
  return Say("destroy", 0, 0);
}
int ncclAllReduce(const void*, void*, size_t n, int type, int, void*, void*) {
  return Say("all_reduce", n, type);
}
int ncclReduceScatter(const void*, void*, size_t n, int type, int, void*, void*) {
  return Say("reduce_scatter", n, type);
}
int ncclAllGather(const void*, void*, size_t n, int type, void*, void*) {
  return Say("all_gather", n, type);
}
int ncclReduce(const void*, void*, size_t n, int, int, int root, void*, void*) {
  return Say("reduce", n, root);
}
int ncclBroadcast(const void*, void*, size_t n, int, int root, void*, void*) {
  return Say("broadcast", n, root);
}
int ncclGroupStart() { return Say("begin", 0, 0); }
int ncclGroupEnd() { return Say("end", 0, 0); }
const char* ncclGetErrorString(int) { return "stub refuses"; }
}
