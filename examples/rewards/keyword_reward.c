/* A reward in C: how much of the answer's key words the completion uses.
 *
 *   cc -shared -fPIC -O2 -I <plumb>/ -o keyword_reward.so keyword_reward.c
 *
 *   [[reward.parts]]
 *   name = "keywords"
 *   kind = "plugin"
 *   path = "keyword_reward.so"
 *
 * The ground truth is a list of words separated by spaces; the score is the share that occurs in the completion.
 */
#include <stddef.h>
#include <string.h>

#include "reward/doors/reward_abi.h"

uint32_t plumb_reward_abi_version(void) { return PLUMB_REWARD_ABI_VERSION; }

static int occurs(const plumb_reward_string* text, const char* word, size_t size) {
  for (uint64_t i = 0; i + size <= text->size; ++i) {
    if (memcmp(text->data + i, word, size) == 0) return 1;
  }
  return 0;
}

int64_t plumb_reward_score(void* state, const plumb_reward_batch* batch, plumb_reward_result* results) {
  (void)state;
  for (uint64_t i = 0; i < batch->count; ++i) {
    const plumb_reward_item* item = PLUMB_REWARD_ITEM(batch, i);
    const char* at = item->ground_truth.data;
    const char* end = at + item->ground_truth.size;
    int words = 0, found = 0;
    while (at < end) {
      const char* space = memchr(at, ' ', (size_t)(end - at));
      const size_t size = (size_t)((space ? space : end) - at);
      if (size > 0) {
        ++words;
        found += occurs(&item->completion, at, size);
      }
      at += size + 1;
    }
    if (words == 0) {
      /* No words to look for: say so instead of inventing a score. */
      results[i].status = PLUMB_REWARD_FAILED;
      results[i].message = "the row has no key words";
    } else {
      results[i].value = (double)found / words;
    }
  }
  return (int64_t)batch->count;
}
