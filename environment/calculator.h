// The calculator: an environment that works out what a policy writes in front of "=".
//
// Purpose: a turn that ends with "=" is a call; what stands directly in front of it, as far back as
// it consists of digits, + - * / ( ) and blanks, is computed in whole numbers of 64 bits, and the
// reply is the result. A turn that ends otherwise is the policy's last. What cannot be computed (no
// expression, a division that does not come out, too large a number) is answered with a text that
// says so, and counts as a failed call.
// Thread safety: safe. Ownership: owns its replies until they are taken. Errors: those of
// EnvironmentPort.
#pragma once

#include <cstdint>
#include <set>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "common/base/mutex.h"
#include "common/record/environment.h"

namespace plumb::environment {

// The value of a whole expression, or why it has none.
std::variant<int64_t, std::string> Calculate(std::string_view expression);
// What stands in front of the "=" that `turn` ends with; blanks around it are taken away.
std::string_view ExpressionOf(std::string_view turn);

class Calculator : public EnvironmentPort {
 public:
  // `says_why`: a failed call is answered with "error: ..."; else with "...", for a vocabulary
  // that has no letters.
  explicit Calculator(bool says_why) : says_why_(says_why) {}

  std::string ToolsJson() const override { return ""; }  // it is not called by name
  void Begin(uint64_t episode, const Prompt& prompt, uint32_t sample) override;
  void Act(uint64_t episode, const std::string& text) override;
  std::vector<EnvironmentReply> Poll(Deadline deadline) override;
  void End(uint64_t episode) override;

 private:
  void Say(EnvironmentReply reply);

  const bool says_why_;
  Mutex mu_;
  CondVar said_;
  std::set<uint64_t> episodes_ PLUMB_GUARDED_BY(mu_);
  std::vector<EnvironmentReply> replies_ PLUMB_GUARDED_BY(mu_);
};

}  // namespace plumb::environment
