# Writes OUT, a C++ file that defines each of NAMES (functions of namespace plumb::run) as the text of the file at the same
# place of FILES, so that the program needs none of them beside it. Run at build time, when one of them has changed.
string(REPLACE "," ";" names "${NAMES}")
string(REPLACE "," ";" files "${FILES}")
set(code "#include \"run/report/page_files.h\"\n\nnamespace plumb::run {\n")
foreach(name file IN ZIP_LISTS names files)
  file(READ ${file} text)
  string(FIND "${text}" ")plumb\"" ends)
  if(NOT ends EQUAL -1)
    message(FATAL_ERROR "${file} holds the characters that end it as a C++ literal")
  endif()
  string(APPEND code "std::string_view ${name}() { return R\"plumb(${text})plumb\"; }\n")
endforeach()
file(WRITE ${OUT} "${code}}  // namespace plumb::run\n")
