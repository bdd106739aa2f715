/* An environment in C: kind = "plugin". The policy writes a number, the object says higher, lower or right.
 *   cc -shared -fPIC -I. -o guess_number.so examples/environments/guess_number.c */
#include <stdlib.h>
#include <string.h>

#include "environment/doors/environment_abi.h"

#define MOST 65536
static struct {
  uint64_t episode;
  long number;
  int used;
} games[MOST];

static long* game(uint64_t episode, int make) {
  int free_one = -1;
  for (int i = 0; i < MOST; ++i) {
    if (games[i].used && games[i].episode == episode) return &games[i].number;
    if (!games[i].used && free_one < 0) free_one = i;
  }
  if (!make || free_one < 0) return NULL;
  games[free_one].used = 1;
  games[free_one].episode = episode;
  return &games[free_one].number;
}

uint32_t plumb_environment_abi_version(void) { return PLUMB_ENVIRONMENT_ABI_VERSION; }

void plumb_environment_begin(void* state, const plumb_environment_turn* turn, plumb_environment_reply* reply) {
  (void)state;
  long* number = game(turn->episode, 1);
  if (number == NULL) {
    reply->error = "too many games at once";
    return;
  }
  *number = strtol(turn->ground_truth.data, NULL, 10);
  reply->observation = "I think of a number from 1 to 20.";
}

void plumb_environment_act(void* state, const plumb_environment_turn* turn, plumb_environment_reply* reply) {
  (void)state;
  const long* number = game(turn->episode, 0);
  char* end = NULL;
  const long guess = strtol(turn->text.data, &end, 10);
  if (end == turn->text.data) {
    reply->observation = "write a number";
    reply->failed = 1;
    return;
  }
  reply->observation = guess == *number ? "right" : guess < *number ? "higher" : "lower";
  reply->done = guess == *number;
  reply->reward = guess == *number ? 1.0 : 0.0;
}

void plumb_environment_end(void* state, uint64_t episode) {
  (void)state;
  for (int i = 0; i < MOST; ++i) {
    if (games[i].used && games[i].episode == episode) games[i].used = 0;
  }
}
