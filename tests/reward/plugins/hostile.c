/* One source, many ways to misbehave: compiled once for each value of BEHAVIOUR. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sched.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "reward/doors/reward_abi.h"

#ifndef ABI
#define ABI PLUMB_REWARD_ABI_VERSION
#endif
#ifndef NO_VERSION
uint32_t plumb_reward_abi_version(void) { return ABI; }
#endif

#ifdef SLOW_OPEN
int32_t plumb_reward_open(int32_t argc, const char* const* argv, void** state) {
  (void)argc, (void)argv, (void)state;
  for (;;) pause();
}
#endif

/* An answer is only punished when it says "bad", so that one group can be quarantined and another served. */
static int is_bad(const plumb_reward_item* item) { return strstr(item->completion.data, "good") == NULL; }

#ifndef NO_SCORE
int64_t plumb_reward_score(void* state, const plumb_reward_batch* batch, plumb_reward_result* results) {
  (void)state;
  int bad = 0;
  for (uint64_t i = 0; i < batch->count; ++i) {
    results[i].value = 0.25;
    bad |= is_bad(PLUMB_REWARD_ITEM(batch, i));
  }
  const char* what = BEHAVIOUR;
  if (!bad) return (int64_t)batch->count;
  if (!strcmp(what, "segv")) raise(SIGSEGV);
  if (!strcmp(what, "abort")) abort();
  if (!strcmp(what, "loop")) {
    for (volatile int x = 0;; ++x) {
    }
  }
  if (!strcmp(what, "exit")) exit(0);
  if (!strcmp(what, "nan")) results[0].value = NAN;
  if (!strcmp(what, "inf")) results[0].value = INFINITY;
  if (!strcmp(what, "unwritten")) memset(&results[0].value, 0xff, sizeof(double)); /* a NaN too */
  if (!strcmp(what, "count")) return (int64_t)batch->count + 1;
  if (!strcmp(what, "negative")) return -7;
  if (!strcmp(what, "status")) results[0].status = 42;
  if (!strcmp(what, "reported")) {
    results[0].status = PLUMB_REWARD_FAILED;
    results[0].message = "cannot read this";
  }
  if (!strcmp(what, "print")) { /* noise on stdout must neither forge nor break a reply */
    for (int i = 0; i < 20000; ++i) printf("PLR1 noise\n");
    fflush(stdout);
    dprintf(1, "PLR1");
  }
  if (!strcmp(what, "fork")) { /* 1: it could fork, 0.5: it was refused */
    const pid_t child = fork();
    if (child == 0) {
      for (;;) pause();
    }
    for (uint64_t i = 0; i < batch->count; ++i) results[i].value = child > 0 ? 1 : 0.5;
  }
  if (!strcmp(what, "connect")) {
    const int fd = socket(AF_INET, SOCK_STREAM, 0);
    for (uint64_t i = 0; i < batch->count; ++i) results[i].value = fd >= 0 ? 1 : 0.5;
  }
  if (!strcmp(what, "network")) { /* with sockets allowed: is there a way out? loopback must not reach our listener */
    const int fd = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(PLUMB_REWARD_ITEM(batch, 0)->ground_truth.data))};
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    const int failed = fd < 0 || connect(fd, (struct sockaddr*)&to, sizeof to) != 0;
    for (uint64_t i = 0; i < batch->count; ++i) results[i].value = failed ? 0.5 : 1;
  }
  if (!strcmp(what, "write")) { /* the file named by the ground truth */
    const int fd = open(PLUMB_REWARD_ITEM(batch, 0)->ground_truth.data, O_WRONLY | O_CREAT, 0600);
    for (uint64_t i = 0; i < batch->count; ++i) results[i].value = fd >= 0 ? 1 : 0.5;
  }
  /* From here on: 1 if it got through, 0.5 if a wall stood in the way. */
  const char* truth = PLUMB_REWARD_ITEM(batch, 0)->ground_truth.data;
  int through = -1;
  if (!strcmp(what, "kill")) through = kill(atoi(truth), SIGKILL) == 0; /* a process of the same user */
  if (!strcmp(what, "trace")) { /* the call is refused (EPERM), or answered: there is nobody traced (ESRCH) */
    errno = 0;
    ptrace(PTRACE_CONT, 1, 0, 0);
    through = errno != EPERM;
  }
  if (!strcmp(what, "peek")) { /* memory of a process by its id, here our own */
    char from = 'x', to = 0;
    struct iovec a = {&to, 1}, b = {&from, 1};
    through = process_vm_readv(getpid(), &a, 1, &b, 1, 0) == 1;
  }
  if (!strcmp(what, "unshare")) through = unshare(CLONE_NEWUSER) == 0;
  if (!strcmp(what, "mount")) { /* refused (EPERM) by the filter; without it the arguments are looked at */
    errno = 0;
    syscall(SYS_mount, 0, 0, 0, 0, 0);
    through = errno != EPERM;
  }
  if (!strcmp(what, "exec")) { /* EPERM, or there is no such program */
    errno = 0;
    execl("/nonexistent/program", "program", (char*)0);
    through = errno != EPERM;
  }
  if (!strcmp(what, "read")) through = access(truth, R_OK) == 0;
  if (!strcmp(what, "shm")) through = shmget((key_t)atoi(truth), 0, 0) >= 0;
  if (!strcmp(what, "bigfile")) {
    signal(SIGXFSZ, SIG_IGN);
    const int fd = open("/tmp/plumb_big_file", O_RDWR | O_CREAT, 0600);
    unlink("/tmp/plumb_big_file");
    through = fd >= 0 && ftruncate(fd, 100 << 20) == 0;
    close(fd);
  }
  if (!strcmp(what, "descriptors")) {
    int opened = 0, fds[400];
    while (opened < 400 && (fds[opened] = dup(2)) >= 0) ++opened;
    through = opened == 400;
    while (opened > 0) close(fds[--opened]);
  }
  if (!strcmp(what, "allocate")) { /* 256 MiB of address space */
    void* block = mmap(NULL, 256u << 20, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    through = block != MAP_FAILED;
    if (through) munmap(block, 256u << 20);
  }
  if (!strcmp(what, "privileges")) { /* 0.5: no_new_privs is set and no capability is left */
    char line[256];
    int held = 1, caps = 1;
    FILE* status = fopen("/proc/self/status", "r");
    while (status && fgets(line, sizeof line, status)) {
      if (!strncmp(line, "NoNewPrivs:\t1", 13)) held = 0;
      if (!strncmp(line, "CapEff:\t0000000000000000", 24)) caps = 0;
    }
    if (status) fclose(status);
    through = held || caps;
  }
  for (uint64_t i = 0; through >= 0 && i < batch->count; ++i) results[i].value = through ? 1 : 0.5;
  if (!strcmp(what, "flood")) { /* stderr without end, until the deadline */
    char noise[4096];
    memset(noise, 'x', sizeof noise);
    for (;;) {
      if (write(2, noise, sizeof noise) < 0) break;
    }
  }
  if (!strcmp(what, "memory")) { /* 10 GB, touched as far as it goes */
    for (int i = 0; i < 160; ++i) {
      char* block = malloc(64u << 20);
      if (block == NULL) abort();
      memset(block, 1, 64u << 20);
    }
    for (uint64_t i = 0; i < batch->count; ++i) results[i].value = 1;
  }
  return (int64_t)batch->count;
}
#endif
