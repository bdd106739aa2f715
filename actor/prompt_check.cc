#include "actor/prompt_check.h"

#include <algorithm>
#include <string>

#include "common/record/task_tokens.h"

namespace plumb::actor {

Problem TakeTask(GenerateRequest& request, int32_t tasks, int32_t task_tokens) {
  const auto front = static_cast<int64_t>(LeadingTaskTokens(request.tokens));
  request.task = TaskOf(request.tokens);
  const int64_t wanted = tasks > 0 ? task_tokens : 0;
  if (tasks > 0 && (request.task < 0 || request.task >= tasks)) {
    return "the prompt names none of the policy's " + std::to_string(tasks) + " tasks";
  }
  if (wanted > 0) {
    const std::vector<int32_t> all = TaskFront(request.task, wanted);
    if (front != wanted || !std::equal(all.begin(), all.end(), request.tokens.begin()))
      return "the prompt begins with " + std::to_string(front) +
             " tokens of a task, not with the " + std::to_string(wanted) + " of one";
  }
  if (wanted == 0) request.tokens.erase(request.tokens.begin(), request.tokens.begin() + front);
  if (static_cast<int64_t>(request.tokens.size()) == wanted && front > 0)
    return std::string("the prompt has no token but those of its task");
  return std::nullopt;
}

Problem ForeignToken(const GenerateRequest& request, int64_t vocab) {
  const size_t front = LeadingTaskTokens(request.tokens);  // those that are left are computed
  for (size_t i = front; i < request.tokens.size(); ++i) {
    if (request.tokens[i] >= 0 && request.tokens[i] < vocab) continue;
    return "prompt token " + std::to_string(i) + " is " + std::to_string(request.tokens[i]) +
           ", the model's vocabulary has " + std::to_string(vocab);
  }
  return std::nullopt;
}

}  // namespace plumb::actor
