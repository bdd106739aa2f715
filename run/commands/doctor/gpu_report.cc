#include "run/commands/doctor/gpu_report.h"

#include <chrono>
#include <cstdarg>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <set>

#include "common/base/error.h"
#include "common/base/size_text.h"
#include "common/base/text.h"
#include "kernels/device/stream.h"

namespace plumb::run {
namespace {

using policy_model::GpuFigures;
using policy_model::ProductFigures;
using policy_model::ProductSpeed;

constexpr std::chrono::seconds kLimit{45};  // a product that has begun is still measured

std::string Line(const char* format, ...) __attribute__((format(printf, 1, 2)));
std::string Line(const char* format, ...) {
  char text[512];
  va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(text, sizeof text, format, arguments);
  va_end(arguments);
  return text;
}

std::string Numbers(const std::vector<int64_t>& numbers) {
  std::vector<std::string> words;
  for (const int64_t number : numbers) words.push_back(std::to_string(number));
  return words.empty() ? "none" : Join(words);
}

double Percent(const ProductSpeed& speed) { return 100 * (speed.exact_us / speed.default_us - 1); }

std::set<int64_t> TimedRows(const GpuFigures& figures) {
  std::set<int64_t> rows;
  for (const ProductFigures& product : figures.products) {
    for (const ProductSpeed& speed : product.speeds) rows.insert(speed.rows);
  }
  return rows;
}

}  // namespace

std::string GpuTable(const std::string& device, const GpuFigures& figures) {
  std::string out =
      Line("%s: copies %s/s (read and written), bfloat16 products %.0f TFLOP/s\n", device.c_str(),
           SizeText(static_cast<int64_t>(1e9 * figures.copy_gb_s)).c_str(), figures.tflop_s) +
      "\nProducts y[M, N] = x[M, K] w[N, K]^T, bfloat16, M of " +
      Numbers(policy_model::ComparedRows()) + ": where the first row has other bits than alone\n" +
      Line("%-16s %6s %6s  %-28s %s\n", "", "N", "K", "cuBLAS' default", "exact (1 split of K)");
  for (const ProductFigures& p : figures.products) {
    out += Line("%-16s %6lld %6lld  %-28s %s\n", p.name.c_str(), static_cast<long long>(p.n),
                static_cast<long long>(p.k), Numbers(p.default_changes).c_str(),
                Numbers(p.exact_changes).c_str());
  }
  out += Line("\n%-16s %6s %11s %9s %8s  %s\n", "", "M", "default us", "exact us", "cost",
              "exact: chosen by timing, 1 split");
  for (const ProductFigures& p : figures.products) {
    for (const ProductSpeed& s : p.speeds) {
      out += Line("%-16s %6lld %11.2f %9.2f %+7.1f%%  %s\n", p.name.c_str(),
                  static_cast<long long>(s.rows), s.default_us, s.exact_us, Percent(s),
                  s.choice.c_str());
    }
  }
  out += "\nCost of run.exact over all of them (geometric mean):";
  const std::set<int64_t> timed = TimedRows(figures);
  for (const int64_t rows : timed) {
    out += Line("%s %+.1f%% at M = %lld", rows == *timed.begin() ? "" : ",",
                policy_model::ExactCostPercent(figures, rows), static_cast<long long>(rows));
  }
  out += "\n";
  if (!figures.left_out.empty())
    out += "Not measured, for want of time: " + Join(figures.left_out) + "\n";
  return out;
}

std::string GpuJson(const std::string& device, const GpuFigures& figures) {
  nlohmann::ordered_json out = {{"device", device},
                                {"copy_gb_s", figures.copy_gb_s},
                                {"bf16_tflop_s", figures.tflop_s},
                                {"compared_rows", policy_model::ComparedRows()},
                                {"products", nlohmann::ordered_json::array()},
                                {"exact_cost_percent", nlohmann::ordered_json::object()},
                                {"left_out", figures.left_out}};
  for (const ProductFigures& p : figures.products) {
    nlohmann::ordered_json speeds = nlohmann::ordered_json::array();
    for (const ProductSpeed& s : p.speeds) {
      speeds.push_back({{"rows", s.rows},
                        {"default_us", s.default_us},
                        {"exact_us", s.exact_us},
                        {"exact_cost_percent", Percent(s)},
                        {"exact_choice", s.choice}});
    }
    out["products"].push_back({{"name", p.name},
                               {"n", p.n},
                               {"k", p.k},
                               {"exact_splits", 1},
                               {"default_changes", p.default_changes},
                               {"exact_changes", p.exact_changes},
                               {"speeds", speeds}});
  }
  for (const int64_t rows : TimedRows(figures))
    out["exact_cost_percent"][std::to_string(rows)] = policy_model::ExactCostPercent(figures, rows);
  return out.dump(1) + "\n";
}

std::string GpuReport(const std::string& name, bool json) {
  const std::optional<Device> device = ParseDevice(name);
  if (!device || device->is_cpu()) {
    throw Error(ErrorCode::kInvalidArgument, "is \"" + name + "\": use cuda or cuda:N", "--device");
  }
  kernels::CheckDevice(*device, "--device");
  const OwnedStream stream(*device);
  const GpuFigures figures = policy_model::MeasureGpu(stream, kLimit);
  const std::string shown = DeviceName(*device);
  return json ? GpuJson(shown, figures) : GpuTable(shown, figures);
}

}  // namespace plumb::run
