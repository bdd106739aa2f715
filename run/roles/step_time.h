// How long a step of a recipe will take, by phase, before one is made: operations and bytes that
// are counted, over speeds that were measured or are known.
//
// Purpose: `plumb plan` says it beside the memory, and compares choices by it. What is counted:
// products of weights (policy_model/speed.h), scores of attention at the mean length, the prompt of
// a group once a micro-batch, and once where its answers are drawn together; answers that run at a
// time, which rollout.kv_budget_mb bounds. What is not: rewards (nobody knows what they do),
// evaluations, checkpoints, and groups that the algorithm leaves out because their rewards are
// equal; so training takes at most what is said. Answers are as long as the recipe allows unless it
// is said how long they are. Thread safety: pure functions. Units: seconds, operations and bytes a
// second, tokens.
#pragma once

#include <cstdint>
#include <string>

#include "configs/config.h"
#include "policy_model/families/model_shape.h"

namespace plumb::run {

// Of one device and one kind of model. 0: not known, which counts as no time.
struct Speeds {
  std::string source;  // "measured here in 0.4 s"
  // Times that a middling measurement of training took of the fastest; much above 1: the machine is
  // busy.
  double middling = 1;
  // Operations a second: of the layers and of the head, in a forward with its backward, in a
  // forward alone, and in a step that draws a token for `rows` answers.
  double train_layers = 0, train_head = 0;
  double forward_layers = 0, forward_head = 0;
  double decode_layers = 0, decode_head = 0;
  // Bytes a second that a decode step reads weights, keys and values at, and seconds that a layer
  // takes besides, whatever it computes; 0: the speeds above were measured with that in them.
  double decode_bytes = 0, decode_layer_s = 0;
  double update_bytes = 0;   // of weights, masters, moments and gradients, read and written
  double publish_bytes = 0;  // of weights inspected and summed
  double link_bytes = 0;     // between a GPU and its host, each way at once
};

// Of prompts and answers, or of rows: 0: as long as the recipe allows.
struct Lengths {
  double prompt = 0, answer = 0;
};

// What a step does, counted.
struct StepWork {
  int64_t groups = 0, answers = 0;              // rows and 1, offline
  double prompt = 0, answer = 0;                // tokens
  int64_t rows = 0;                             // answers that are drawn together, at most
  double trained_tokens = 0;                    // computed in a forward with backward
  double train_layers = 0, train_head = 0;      // operations, backward and recomputing included
  double forward_layers = 0, forward_head = 0;  // of passes without a gradient
  double prefill = 0, decode_layers = 0, decode_head = 0;
  // Read in steps of generation: weights, and of each answer its keys, values and logits.
  double decode_bytes = 0, decode_row_bytes = 0;
  double decode_layer_steps = 0;  // steps, times layers
  double update_bytes = 0, publish_bytes = 0;
  double link_bytes = 0;  // each way, beside the update (optimizer.offload)
};
// `recompute`: what optimizer.recompute comes to.
StepWork CountStep(const configs::Config& config, const policy_model::ModelShape& shape,
                   const Lengths& lengths, configs::Recompute recompute);

// Operations of the layers for one token that sees `context` others, forward, and of the head.
double LayerOperations(const policy_model::ModelShape& shape, double context);
double HeadOperations(const policy_model::ModelShape& shape);
// That an update of so many parameters reads and writes.
double UpdateBytes(const configs::Config& config, double trained);

struct StepTime {
  double generate = 0, train = 0, publish = 0;  // seconds
  double total() const { return generate + train + publish; }
};
StepTime TimeOf(const StepWork& work, const Speeds& speeds);

}  // namespace plumb::run
