/* The plain C interface of an environment in a shared object. Version 1.
 *
 * Write begin and act, compile them into a shared object, name it in the recipe:
 *
 *   [environment]
 *   kind = "plugin"
 *   path = "build/my_game.so"
 *   args = ["level=3"]
 *
 * The object is never loaded into the training process. Plumb starts `workers` host processes,
 * loads it there, and calls it from one thread of each; a process holds many conversations, told
 * apart by `episode`. What happens in there (a crash, a hang, exit(), printing) ends the process's
 * conversations with a reason, and no others.
 *
 * Compatibility: fields are only appended; `struct_size` says how much of a struct the caller
 * knows. Ownership: what is passed in belongs to Plumb and is valid during the call only; texts
 * passed out belong to the object and stay valid until its next call. Texts are UTF-8; data[size]
 * is always '\0'.
 */
#ifndef PLUMB_ENVIRONMENT_ABI_H_
#define PLUMB_ENVIRONMENT_ABI_H_

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define PLUMB_ENVIRONMENT_ABI_VERSION 1u
#define PLUMB_ENVIRONMENT_EXPORT __attribute__((visibility("default")))

typedef struct plumb_environment_string {
  const char* data; /* never null */
  uint64_t size;    /* bytes, without the closing '\0' */
} plumb_environment_string;

typedef struct plumb_environment_turn {
  uint64_t struct_size;
  uint64_t episode;
  /* of begin */
  plumb_environment_string prompt; /* text, or the chat messages as a JSON array */
  plumb_environment_string ground_truth;
  plumb_environment_string extra_json; /* the row's other columns as one JSON object */
  uint64_t sample;                     /* number of the answer within its group */
  /* of act */
  plumb_environment_string text; /* what the policy wrote */
  plumb_environment_string
      calls_json; /* [{"id","name","arguments"}], "[]" where it called nothing */
  int32_t last;   /* 1: no turn comes behind this one */
  int32_t reserved;
} plumb_environment_turn;

typedef struct plumb_environment_reply {
  uint64_t struct_size;
  const char* observation;  /* said to the policy as the user's turn; null: nothing */
  const char* results_json; /* JSON array of texts, one for each call; null where there was none */
  double reward;            /* of the turn; arrives as NaN: none */
  int32_t done;             /* 1: the conversation is over */
  int32_t failed;           /* 1: the action could not be done */
  const char* error;        /* not null: the conversation cannot go on, and why */
} plumb_environment_reply;

/* Required. Returns PLUMB_ENVIRONMENT_ABI_VERSION of the header it was compiled with. */
PLUMB_ENVIRONMENT_EXPORT uint32_t plumb_environment_abi_version(void);

/* Optional. Called once after loading, with the recipe's `args`. Returns 0, or anything else to
 * refuse to start. *state comes back in the other calls. */
PLUMB_ENVIRONMENT_EXPORT int32_t plumb_environment_open(int32_t argc, const char* const* argv,
                                                        void** state);

/* Optional. The tools that the policy may call, as a JSON array of schemas; null: none. */
PLUMB_ENVIRONMENT_EXPORT const char* plumb_environment_tools(void* state);

/* Required. A conversation begins; a turn of the policy. */
PLUMB_ENVIRONMENT_EXPORT void plumb_environment_begin(void* state,
                                                      const plumb_environment_turn* turn,
                                                      plumb_environment_reply* reply);
PLUMB_ENVIRONMENT_EXPORT void plumb_environment_act(void* state, const plumb_environment_turn* turn,
                                                    plumb_environment_reply* reply);

/* Optional. The conversation is over or given up: its state can go. */
PLUMB_ENVIRONMENT_EXPORT void plumb_environment_end(void* state, uint64_t episode);

/* Optional. Called before the host process ends in order; not called when it is killed. */
PLUMB_ENVIRONMENT_EXPORT void plumb_environment_close(void* state);

#ifdef __cplusplus
}
#endif
#endif /* PLUMB_ENVIRONMENT_ABI_H_ */
