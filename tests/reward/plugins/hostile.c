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
#include <sys/socket.h>
#include <unistd.h>

#include "reward/reward_abi.h"

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
