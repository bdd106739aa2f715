// What `plumb doctor --gpu` says: the figures of policy_model/gpu_speed.h as a table and as JSON.
//
// Thread safety, ownership: values. GpuReport measures for up to a minute; its errors are those of
// MeasureGpu, kUnsupported where there is no such GPU, and kInvalidArgument for a device that is
// none.
#pragma once

#include <string>

#include "policy_model/gpu_speed.h"

namespace plumb::run {

std::string GpuReport(const std::string& device, bool json);

std::string GpuTable(const std::string& device, const policy_model::GpuFigures& figures);
std::string GpuJson(const std::string& device, const policy_model::GpuFigures& figures);

}  // namespace plumb::run
