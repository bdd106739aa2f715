// How the user calls this program, for the commands that it proposes.
//
// Purpose: a proposed command runs when it is copied. It begins as the user typed it (build/plumb,
// ../plumb, plumb where the PATH finds this very file); where that is not known or leads somewhere
// else, with the file's path, from the working directory where it lies below that. Whatever prints
// in run/ writes ProgramCall(). The rooms below write `plumb VERB ...` between backticks, for they
// may be asked by tests and by processes that nobody called; the command line puts the call into
// the errors that it prints (AsCalled), log files keep `plumb`.
// Thread safety: CalledAs before there are threads; the others read what it said, the environment
// and the working directory. Errors: none; `plumb` where nothing better is known.
#pragma once

#include <string>
#include <string_view>

namespace plumb {

// What main was given as argv[0].
void CalledAs(const std::string& argv0);

std::string ProgramCall();

// The same of another program, PATH and working directory. `typed`: argv[0], empty where it is not
// known.
std::string CallOf(const std::string& program, const std::string& path, const std::string& from,
                   const std::string& typed = "");

// `text` with "`plumb VERB" written as the user calls it: "`build/plumb VERB".
std::string AsCalled(std::string_view text);

}  // namespace plumb
