// What data.overlong says of sequences that are too long to train on.
//
// left: the prompt loses its first tokens (of a pair both sequences the same ones, so that they
// keep one prompt); right: each sequence loses its last tokens. What cannot be cut that way (no
// token of the prompt, or none of an answer, would be left; two answers that differ only behind the
// cut) is left out. Everything is counted.
// Thread safety: none. Errors: kInvalidArgument under `error`, naming the row.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "common/record/trajectory.h"
#include "configs/choices.h"

namespace plumb::run {

class Overlong {
 public:
  // `raise`: the option that allows more, for messages.
  Overlong(configs::OverlongPolicy policy, int64_t longest, std::string raise)
      : policy_(policy), raise_(std::move(raise)), longest_(static_cast<size_t>(longest)) {}

  // Cuts the sequences of one row, which begin with the same prompt, where one is too long. False:
  // the row is left out.
  bool Fit(std::span<Demonstration* const> sequences, const std::string& where);

  int64_t dropped() const { return dropped_; }
  int64_t cut() const { return cut_; }
  std::string Describe()
      const;  // "3 longer than 256 tokens left out, 5 cut to that (data.overlong = left)"

 private:
  const configs::OverlongPolicy policy_;
  const std::string raise_;
  const size_t longest_;
  int64_t dropped_ = 0, cut_ = 0;
};

}  // namespace plumb::run
