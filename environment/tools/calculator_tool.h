// Exact arithmetic on what a model writes: rational numbers of any size, within bounds.
//
// Grammar: + - * / // % ** ^ with Python's precedences (^ is a power, too), brackets, signs,
// decimal numbers (0.1 is one tenth), abs, min, max, round, floor, ceil, sqrt (of squares only: the
// result has to be exact). The signs × ÷ − are read as * / -. A result is written as an integer, as
// a decimal where that ends within 30 digits, else as a fraction with a decimal behind it.
// Bounds: 2,000 characters, 100 levels, numbers of 65,536 bits. Thread safety: pure functions.
// Errors: Evaluation::problem, in words for the model.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "environment/tools/tool.h"

namespace plumb::environment {

struct Evaluation {
  std::string problem;                // not empty: there is no value
  std::string shown;                  // as said above
  std::string exact;                  // "7" or "1/3", in lowest terms: equal values are equal texts
  std::vector<std::string> literals;  // the numbers that stand in it, in this form, in their order
};
Evaluation Evaluate(std::string_view expression);

std::unique_ptr<Tool> MakeCalculatorTool();

}  // namespace plumb::environment
