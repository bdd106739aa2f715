// Sizes in bytes, as a person reads them.
//
// Purpose: one rule for all that the program prints. What is measured - files, free room, memory in
// use or needed - is in kB, MB, GB, powers of 1000, as on the label of a disk (SizeText). What an
// option or a format limits by a power of two is in KiB, MiB, GiB (LimitText), and options in such
// units say MiB in `plumb config show`. Metrics in GB are 10^9 bytes.
// Thread safety: pure functions. Units: bytes.
#pragma once

#include <cstdint>
#include <string>

namespace plumb {

// "1.6 GB", "34 MB", "6 kB", "12 bytes".
std::string SizeText(int64_t bytes);

// "2 GiB", "96 MiB", "1.5 KiB", "12 bytes".
std::string LimitText(int64_t bytes);

}  // namespace plumb
