# plumb_library(name SOURCES ... LINK ... [NUMERIC | COLD]): a folder's library with the house's warnings.
# NUMERIC: inner loops; compiled for the processor at hand and with vectorising optimisation in every preset.
# COLD: takes no time but to be compiled: -O1, which compiles options and command lines in two thirds of -O3's time.

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
  cmake_parse_arguments(ARG "NUMERIC;COLD" "" "SOURCES;LINK" ${ARGN})
  add_library(${name} STATIC ${ARG_SOURCES})
  plumb_options(${name})
  target_link_libraries(${name} PUBLIC ${ARG_LINK})
  # Kernels stay apart: what the compiler makes of a loop shall not depend on the files beside it.
  if(NOT name STREQUAL "plumb_kernels")
    plumb_unity(${name})
  endif()
  if(ARG_COLD)
    target_compile_options(${name} PRIVATE $<$<AND:$<COMPILE_LANGUAGE:CXX>,$<CONFIG:Release>>:-O1>)
  endif()
  if(ARG_NUMERIC)
    # No errno, no traps: lets loops vectorise; NaN and infinity keep their meaning (no -ffast-math).
    target_compile_options(${name} PRIVATE
      $<$<COMPILE_LANGUAGE:CXX>:-O3 -fopenmp -fno-math-errno -fno-trapping-math>)
    if(PLUMB_ARCH)
      target_compile_options(${name} PRIVATE $<$<COMPILE_LANGUAGE:CXX>:-march=${PLUMB_ARCH}>)
    elseif(PLUMB_NATIVE)
      target_compile_options(${name} PRIVATE $<$<COMPILE_LANGUAGE:CXX>:-march=native -mprefer-vector-width=512>)
    endif()
  endif()
endfunction()

# plumb_shelf(folder LINK ... [NUMERIC | COLD] [SOURCES ...] [EXCLUDE regex]): the library of a folder with all below it, named
# after it: common/net is plumb_common_net. SOURCES are added to what is found by name. LINK is the folder's row in the
# include table (docs/ARCHITECTURE.md) and the outside libraries it uses.
function(plumb_shelf folder)
  cmake_parse_arguments(ARG "NUMERIC;COLD" "EXCLUDE" "SOURCES;LINK" ${ARGN})
  string(REPLACE "/" "_" name ${folder})
  file(GLOB_RECURSE sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/${folder}/*.cc)
  if(PLUMB_CUDA)
    file(GLOB_RECURSE cuda_sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/${folder}/*.cu)
    list(APPEND sources ${cuda_sources})
  endif()
  if(ARG_EXCLUDE)
    list(FILTER sources EXCLUDE REGEX "${ARG_EXCLUDE}")
  endif()
  set(how "")
  if(ARG_NUMERIC)
    set(how NUMERIC)
  elseif(ARG_COLD)
    set(how COLD)
  endif()
  plumb_library(plumb_${name} ${how} SOURCES ${sources} ${ARG_SOURCES} LINK ${ARG_LINK})
endfunction()

# plumb_sum(name libraries...): what a room offers as a whole.
function(plumb_sum name)
  add_library(${name} INTERFACE)
  target_link_libraries(${name} INTERFACE ${ARGN})
endfunction()

# plumb_test(folder LINK ... [NAME name] [EXCLUDE folders...]): one test binary from tests/<folder>/**/*_test.cc without the
# sub-folders named, run by CTest as <name> (else <folder>).
function(plumb_test folder)
  cmake_parse_arguments(ARG "" "TIMEOUT;NAME" "LINK;EXCLUDE" ${ARGN})
  if(NOT ARG_NAME)
    set(ARG_NAME ${folder})
  endif()
  string(REPLACE "/" "_" name ${ARG_NAME})
  file(GLOB_RECURSE sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/tests/${folder}/*_test.cc)
  foreach(excluded ${ARG_EXCLUDE})
    list(FILTER sources EXCLUDE REGEX "/tests/${folder}/${excluded}/")
  endforeach()
  if(NOT sources)
    message(FATAL_ERROR "tests/${folder} has no *_test.cc: write one, or take its plumb_test out")
  endif()
  add_executable(${name}_test ${sources})
  plumb_options(${name}_test)
  plumb_unity(${name}_test)
  target_compile_definitions(${name}_test PRIVATE
    PLUMB_SOURCE_DIR="${PROJECT_SOURCE_DIR}" PLUMB_BINARY_DIR="${PROJECT_BINARY_DIR}")
  # What is tested is in the libraries, optimised; the tests themselves only have to compile soon: a third off the whole build.
  target_compile_options(${name}_test PRIVATE $<$<AND:$<COMPILE_LANGUAGE:CXX>,$<CONFIG:Release>>:-O1>)
  target_link_libraries(${name}_test PRIVATE ${ARG_LINK} plumb_testing GTest::gtest GTest::gtest_main)
  if(NOT ARG_TIMEOUT)
    set(ARG_TIMEOUT 300)
  endif()
  add_test(NAME ${ARG_NAME} COMMAND ${name}_test WORKING_DIRECTORY ${PROJECT_SOURCE_DIR})
  # A short spin: suites share their cores with other work (run/main.cc).
  set_tests_properties(${ARG_NAME} PROPERTIES TIMEOUT ${ARG_TIMEOUT} ENVIRONMENT GOMP_SPINCOUNT=1000)
endfunction()
