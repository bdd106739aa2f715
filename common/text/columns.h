// How wide text is on a terminal, and text from outside made safe to print there.
//
// A character takes 0, 1 or 2 columns (utf8proc's data of Unicode 15): marks and joiners none, East
// Asian wide characters and emoji two. A terminal that joins a sequence of emoji into one picture
// shows it narrower than is said here, never wider. Thread safety: pure functions.
#pragma once

#include <string>
#include <string_view>

namespace plumb {

int ColumnsOf(char32_t code);
int ColumnsOf(std::string_view text);  // a byte that is not UTF-8 takes one

// One line that a terminal obeys nothing of: control characters become their pictures (a line break
// U+23CE), those that turn the direction of writing and bytes that are not UTF-8 become U+FFFD, and
// variation selectors, about whose width terminals disagree, are left out.
std::string PrintableLine(std::string_view text);
// The same of each of several lines: of errors and notes, in which names from files stand.
std::string PrintableLines(std::string_view text);

// Exactly `columns` wide: what is longer is cut and ends in an ellipsis, what is shorter gets
// blanks behind it (in front where `right`). REQUIRES: a printable line.
std::string Padded(std::string_view text, int columns, bool right = false);
// At most `columns` wide.
std::string Shortened(std::string_view text, int columns);

}  // namespace plumb
