// Two games with numbers, to try training over several turns on.
//
//   countdown     tool countdown(expression): each of the row's numbers used at most once ("all" in
//                 the column "use": each exactly once) with + - * / and brackets has to give the
//                 row's target. The row has "nums" or "numbers" (a list of integers) and "target"
//                 (an integer; without it the ground truth). Right: reward 1, the end.
//   guess_number  tool guess_number(number): "higher", "lower" or "right". The number is the row's
//                 ground truth. Right: reward 1, the end.
// A wrong try is an answer to learn from, no failed call. Thread safety, errors: as Tool; a row
// without the columns is a problem of Begin.
#pragma once

#include <memory>

#include "environment/tools/tool.h"

namespace plumb::environment {

std::unique_ptr<Tool> MakeCountdown();
std::unique_ptr<Tool> MakeGuessNumber();

}  // namespace plumb::environment
