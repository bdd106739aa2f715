// A group's body part by part, so that a test can write one that nobody would seal.
#pragma once

#include <string>
#include <vector>

#include "common/record/schema/trajectory_generated.h"

namespace plumb::testing {

// One answer of three tokens to a prompt of two; all of it may be changed.
struct BodyParts {
  std::vector<int32_t> prompt = {1, 2}, tokens = {7, 8, 9};
  uint8_t own_prompt = 0;
  std::vector<wire::BodySegment> segments = {{0, 2}, {1, 3}};
  std::vector<uint32_t> mask_runs = {0, 3};
  std::vector<float> logprobs = {-0.5f, -0.25f, -1.0f};
  std::vector<wire::VersionRun> versions = {{3, 2}, {4, 1}};
  std::vector<uint8_t> kept, experts, prompt_experts;
  wire::ExpertForm form;  // of no layers: not written
  uint8_t finish = 0, purpose = 0;
  int64_t policy_version = 4;
  uint32_t prompt_sum = 77;
  size_t answers = 1;  // all of them share one table

  // As GroupBody::Open takes it where the sum was checked before.
  std::string Bytes() const {
    namespace fb = flatbuffers;
    fb::FlatBufferBuilder builder;
    builder.ForceDefaults(true);
    const auto text = builder.CreateString("text");
    const auto token_list = builder.CreateVector(tokens);
    const auto segment_list = builder.CreateVectorOfStructs(segments);
    const auto masks = builder.CreateVector(mask_runs);
    const auto logprob_list = builder.CreateVector(logprobs);
    const auto version_list = builder.CreateVectorOfStructs(versions);
    const auto kept_list =
        kept.empty() ? fb::Offset<fb::Vector<uint8_t>>() : builder.CreateVector(kept);
    const auto expert_list =
        experts.empty() ? fb::Offset<fb::Vector<uint8_t>>() : builder.CreateVector(experts);
    const auto of_prompt = prompt_experts.empty() ? fb::Offset<fb::Vector<uint8_t>>()
                                                  : builder.CreateVector(prompt_experts);
    const auto answer =
        wire::CreateBodyAnswer(builder, token_list, own_prompt, segment_list, masks, logprob_list,
                               version_list, finish, text, text, kept_list, expert_list);
    const auto prompt_tokens = builder.CreateVector(prompt);
    const auto list =
        builder.CreateVector(std::vector<fb::Offset<wire::BodyAnswer>>(answers, answer));
    builder.Finish(wire::CreateGroupBody(builder, text, text, 5, purpose, 0, -1, 0, text, 9,
                                         prompt_sum, prompt_tokens, 0, policy_version, text, list,
                                         form.layers() == 0 ? nullptr : &form, of_prompt),
                   "PGB1");
    std::string bytes("\0\0\0\0\2\0\0\0", 8);
    return bytes.append(reinterpret_cast<const char*>(builder.GetBufferPointer()),
                        builder.GetSize());
  }
};

}  // namespace plumb::testing
