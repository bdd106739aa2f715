# cmake -DSOURCE=folder -DVERSION=0.1.0 -DOUT=file.cc -P: writes what run/session/built.h declares, for `plumb --version` and run.json; leaves
# the file alone when nothing changed. Outside a clone the commit is unknown.
execute_process(COMMAND git -C ${SOURCE} describe --always --abbrev=12 --exclude=* --dirty=-with-changes
                OUTPUT_VARIABLE commit OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
if(NOT commit)
  set(commit unknown)
endif()
file(CONFIGURE OUTPUT ${OUT} CONTENT "#include \"run/session/built.h\"\nnamespace plumb::run {\nstd::string BuiltCommit() { return \"@commit@\"; }\nstd::string BuiltVersion() { return \"@VERSION@\"; }\n}\n" @ONLY)
