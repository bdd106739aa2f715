/* Environments that misbehave, by what is defined. */
#include <stddef.h>
#include <unistd.h>

#include "environment/doors/environment_abi.h"

#ifndef ABI
#define ABI PLUMB_ENVIRONMENT_ABI_VERSION
#endif

uint32_t plumb_environment_abi_version(void) { return ABI; }

void plumb_environment_begin(void* state, const plumb_environment_turn* turn,
                             plumb_environment_reply* reply) {
  (void)state, (void)turn, (void)reply;
}

#ifndef NO_ACT
void plumb_environment_act(void* state, const plumb_environment_turn* turn,
                           plumb_environment_reply* reply) {
  (void)state, (void)turn;
#ifdef CRASH
  *(volatile int*)NULL = 1;
#endif
#ifdef HANG
  while (1) sleep(1);
#endif
  reply->done = 1;
}
#endif
