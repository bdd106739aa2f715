/* The plain C interface of a reward shared object. Version 1.
 *
 * Write a function that scores a batch of answers, compile it into a shared object, name it in the
 * recipe:
 *
 *   [[reward.parts]]
 *   name = "code"
 *   kind = "plugin"
 *   path = "build/my_reward.so"
 *   args = ["strict=1"]
 *
 * The object is never loaded into the training process. Plumb starts `workers` host processes,
 * loads it there, and calls plumb_reward_score() from one thread of each. What happens in them (a
 * crash, a hang, exit(), printing) ends as "unscored, with a reason"; it cannot change a score or
 * stop generation.
 *
 * Goals: usable from any language with a C ABI; nothing but this header; no allocation passes the
 * border. Non-goals: callbacks into Plumb, tensors, streaming. Compatibility: fields are only
 * appended; `struct_size` / `item_size` say how much of a struct the caller knows. An object built
 * for another major version is refused with a message.
 *
 * Ownership: everything passed in belongs to Plumb and is valid during the call only. Messages
 * passed out belong to the object and must stay valid until its next call. Strings are UTF-8 (a
 * model can produce U+FFFD, embedded NUL bytes included: trust `size`); data[size] is always '\0'.
 */
#ifndef PLUMB_REWARD_ABI_H_
#define PLUMB_REWARD_ABI_H_

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define PLUMB_REWARD_ABI_VERSION 1u
#define PLUMB_REWARD_EXPORT __attribute__((visibility("default")))

typedef struct plumb_reward_string {
  const char* data; /* UTF-8, never null */
  uint64_t size;    /* bytes, without the closing '\0' */
} plumb_reward_string;

typedef struct plumb_reward_item {
  plumb_reward_string prompt; /* text, or the chat messages as a JSON array */
  plumb_reward_string
      completion; /* the answer; special tokens such as <eos> may stand at its end */
  plumb_reward_string ground_truth; /* what the data set says is right; may be empty */
  plumb_reward_string
      extra_json;  /* the row's other columns as one JSON object, "{}" if there are none */
  uint64_t sample; /* number of the answer within its group */
} plumb_reward_item;

typedef struct plumb_reward_batch {
  uint32_t struct_size; /* sizeof(plumb_reward_batch) of the caller */
  uint32_t item_size;   /* stride of `items` in bytes: use PLUMB_REWARD_ITEM() */
  uint64_t count;       /* number of items: the answers of one prompt */
  const plumb_reward_item* items;
} plumb_reward_batch;

#define PLUMB_REWARD_ITEM(batch, i) \
  ((const plumb_reward_item*)((const char*)(batch)->items + (uint64_t)(i) * (batch)->item_size))

/* Do not change the values of existing entries. */
#define PLUMB_REWARD_OK 0     /* value holds */
#define PLUMB_REWARD_SKIP 1   /* this function does not apply to this answer */
#define PLUMB_REWARD_FAILED 2 /* could not be scored: `message` says why */

typedef struct plumb_reward_result {
  double value;   /* finite. Arrives as NaN: a result that is not written is an error, not a 0 */
  int32_t status; /* arrives as PLUMB_REWARD_OK */
  int32_t reserved;
  const char* message; /* with PLUMB_REWARD_FAILED: '\0'-terminated, the first 500 bytes are kept;
                          may be null */
} plumb_reward_result;

/* Required. Returns PLUMB_REWARD_ABI_VERSION of the header it was compiled with. */
PLUMB_REWARD_EXPORT uint32_t plumb_reward_abi_version(void);

/* Optional. Called once after loading, with the recipe's `args`. Returns 0, or anything else to
 * refuse to start. *state comes back in the other calls. */
PLUMB_REWARD_EXPORT int32_t plumb_reward_open(int32_t argc, const char* const* argv, void** state);

/* Required. Fills results[0 .. batch->count) and returns how many were filled; a negative number or
 * any other count makes the whole batch unscored. */
PLUMB_REWARD_EXPORT int64_t plumb_reward_score(void* state, const plumb_reward_batch* batch,
                                               plumb_reward_result* results);

/* Optional. Called before the host process ends in order; not called when it is killed. */
PLUMB_REWARD_EXPORT void plumb_reward_close(void* state);

#ifdef __cplusplus
}
#endif
#endif /* PLUMB_REWARD_ABI_H_ */
