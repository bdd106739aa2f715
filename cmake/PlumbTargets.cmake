# plumb_library(name SOURCES ... LINK ... [NUMERIC]): a folder's library with the house's warnings.
# NUMERIC: inner loops; compiled for the processor at hand and with vectorising optimisation in every preset.

function(plumb_options target)
  target_include_directories(${target} PUBLIC ${PROJECT_SOURCE_DIR})
  target_compile_options(${target} PRIVATE
    # -Wno-restrict: GCC 12 warns of it wrongly on string concatenation.
    $<$<COMPILE_LANGUAGE:CXX>:-Wall -Wextra -Werror -Wno-missing-field-initializers>
    $<$<COMPILE_LANG_AND_ID:CXX,GNU>:-Wno-restrict>)
  if(CMAKE_CXX_COMPILER_ID STREQUAL "Clang" AND CMAKE_CXX_COMPILER_VERSION VERSION_LESS 15)
    target_include_directories(${target} SYSTEM BEFORE PRIVATE ${PROJECT_SOURCE_DIR}/tests/fuzz/clang14)
  endif()
  if(PLUMB_SANITIZE)
    # Warnings are errors in the plain builds: the instrumentation makes GCC see values that are not set.
    target_compile_options(${target} PRIVATE
      $<$<COMPILE_LANGUAGE:CXX>:-fsanitize=${PLUMB_SANITIZE} -fno-sanitize-recover=all -fno-omit-frame-pointer -Wno-error>)
    target_compile_definitions(${target} PRIVATE _GLIBCXX_ASSERTIONS)
    target_link_options(${target} PUBLIC -fsanitize=${PLUMB_SANITIZE})
  endif()
endfunction()

function(plumb_library name)
  cmake_parse_arguments(ARG "NUMERIC" "" "SOURCES;LINK" ${ARGN})
  add_library(${name} STATIC ${ARG_SOURCES})
  plumb_options(${name})
  target_link_libraries(${name} PUBLIC ${ARG_LINK})
  if(ARG_NUMERIC)
    # No errno, no traps: lets loops vectorise; NaN and infinity keep their meaning (no -ffast-math).
    target_compile_options(${name} PRIVATE
      $<$<COMPILE_LANGUAGE:CXX>:-O3 -fopenmp -fno-math-errno -fno-trapping-math>)
    if(PLUMB_NATIVE)
      target_compile_options(${name} PRIVATE $<$<COMPILE_LANGUAGE:CXX>:-march=native -mprefer-vector-width=512>)
    endif()
  endif()
endfunction()

# plumb_test(folder LINK ...): one test binary a folder from tests/<folder>/*_test.cc, run by CTest as <folder>.
function(plumb_test folder)
  cmake_parse_arguments(ARG "" "TIMEOUT" "LINK" ${ARGN})
  string(REPLACE "/" "_" name ${folder})
  file(GLOB sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/tests/${folder}/*_test.cc)
  if(NOT sources)
    return()
  endif()
  add_executable(${name}_test ${sources})
  plumb_options(${name}_test)
  target_compile_definitions(${name}_test PRIVATE
    PLUMB_SOURCE_DIR="${PROJECT_SOURCE_DIR}" PLUMB_BINARY_DIR="${PROJECT_BINARY_DIR}")
  # What is tested is in the libraries, optimised; the tests themselves only have to compile soon: a third off the whole build.
  target_compile_options(${name}_test PRIVATE $<$<AND:$<COMPILE_LANGUAGE:CXX>,$<CONFIG:Release>>:-O1>)
  target_link_libraries(${name}_test PRIVATE ${ARG_LINK} plumb_testing GTest::gtest GTest::gtest_main)
  if(NOT ARG_TIMEOUT)
    set(ARG_TIMEOUT 300)
  endif()
  add_test(NAME ${folder} COMMAND ${name}_test WORKING_DIRECTORY ${PROJECT_SOURCE_DIR})
  # A short spin: suites share their cores with other work (run/main.cc).
  set_tests_properties(${folder} PROPERTIES TIMEOUT ${ARG_TIMEOUT} ENVIRONMENT GOMP_SPINCOUNT=1000)
endfunction()
