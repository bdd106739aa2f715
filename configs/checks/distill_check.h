// What [distill] asks for together: who teaches what, and what does not go together.
//
// Thread safety: pure functions. Errors: kInvalidArgument for teachers that cannot be told apart;
// CheckDistill collects problems.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "configs/config.h"
#include "configs/problems.h"

namespace plumb::configs {

inline constexpr std::string_view kSelfTeacher = "self";

struct TeacherName {
  std::string dataset;  // "": of every dataset without a teacher of its own
  std::string where;    // a folder, an address, or "self"
  bool self() const { return where == kSelfTeacher; }
  bool remote() const { return where.starts_with("http://") || where.starts_with("https://"); }
};

// "folder", "dataset=folder"; an "=" behind a "/" is part of the folder.
std::vector<TeacherName> ReadTeachers(const std::vector<std::string>& teachers);

inline bool Distills(const Config& config) { return !config.distill.teachers.empty(); }
// One of the teachers is the policy's own start.
bool TeachesItself(const Config& config);
// The student's own samples stand for the divergence: reverse_k1, reverse_k3.
bool ReverseByTokens(Distance distance);

void CheckDistill(const Config& config, Problems& problems);

}  // namespace plumb::configs
