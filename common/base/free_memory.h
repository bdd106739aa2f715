// How much of this machine's memory a program may still take.
//
// Thread safety: pure functions of what the kernel says. Errors: none; what cannot be read is taken
// for no bound.
#pragma once

#include <cstdint>
#include <string>

namespace plumb {

// The least of what is available and what the containers around this process leave (control groups,
// version 2: of their limit what is not in use, pages of files that can be let go not counted).
// INT64_MAX where neither says anything. Units: bytes. `root`: of the file system that is asked.
int64_t FreeHostBytes(const std::string& root = "");

// Of this process in memory now; 0 where it cannot be read.
int64_t ResidentBytes();

}  // namespace plumb
