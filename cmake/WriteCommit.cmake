# cmake -DSOURCE=folder -DOUT=file.cc -P: writes BuiltCommit() of run/commands/cli.h, for `plumb --version`; leaves the file alone when nothing
# changed. Outside a clone the commit is unknown.
execute_process(COMMAND git -C ${SOURCE} describe --always --abbrev=12 --exclude=* --dirty=-with-changes
                OUTPUT_VARIABLE commit OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
if(NOT commit)
  set(commit unknown)
endif()
file(CONFIGURE OUTPUT ${OUT} CONTENT "#include <string>\nnamespace plumb::run { std::string BuiltCommit() { return \"@commit@\"; } }\n" @ONLY)
