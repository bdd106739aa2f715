#include "run/report/line_wrap.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <string_view>

namespace plumb::run {
namespace {

constexpr std::string_view kIndent = "  ";
constexpr size_t kLeast = 20;  // of a narrower terminal nothing is expected

}  // namespace

std::string WrapLine(const std::string& line, size_t width) {
  std::string_view rest = line;
  std::string out;
  for (size_t room = width;; room = width - kIndent.size()) {
    size_t columns = 0, semicolon = 0, blank = 0;
    for (size_t i = 0; i < rest.size() && (columns <= room || blank == 0); ++i) {
      if (rest[i] == ' ' && i > 0) {
        blank = i;
        if (rest[i - 1] == ';' && 2 * columns >= room) semicolon = i;
      }
      columns += (static_cast<unsigned char>(rest[i]) & 0xC0) != 0x80 ? 1 : 0;
    }
    if (columns <= room || blank == 0) return out += rest;
    const size_t cut = semicolon > 0 ? semicolon : blank;
    out += rest.substr(0, cut);
    out += '\n';
    out += kIndent;
    rest.remove_prefix(cut + 1);
  }
}

std::string FitLine(const std::string& line, std::FILE* out) {
  winsize size{};
  if (isatty(fileno(out)) == 0 || ioctl(fileno(out), TIOCGWINSZ, &size) != 0 ||
      size.ws_col < kLeast)
    return line;
  return WrapLine(line, size.ws_col);
}

}  // namespace plumb::run
