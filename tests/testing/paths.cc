#include "tests/testing/paths.h"

namespace plumb::testing {

std::string SourcePath(const std::string& under) { return PLUMB_SOURCE_DIR "/" + under; }
std::string BinaryPath(const std::string& under) { return PLUMB_BINARY_DIR "/" + under; }

}  // namespace plumb::testing
