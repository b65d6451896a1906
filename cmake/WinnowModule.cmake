# SPDX-FileCopyrightText: The Winnow authors
# SPDX-License-Identifier: Apache-2.0
#
# One CMake target per module. The DEPS of a module are its row in the layer table of
# docs/design.md; tools/check_layers.py compares the #includes with them.

add_library(winnow_options INTERFACE)
target_include_directories(winnow_options INTERFACE ${CMAKE_SOURCE_DIR}/src ${CMAKE_SOURCE_DIR}/include)
target_compile_features(winnow_options INTERFACE cxx_std_20)
target_compile_options(winnow_options INTERFACE -Wall -Wextra -Wpedantic -Wshadow -Wnon-virtual-dtor)
if(WINNOW_WARNINGS_AS_ERRORS)
  target_compile_options(winnow_options INTERFACE -Werror)
endif()
if(CMAKE_CXX_COMPILER_ID STREQUAL "Clang")
  # Checks the annotations of os::Mutex and of the members that it guards.
  target_compile_options(winnow_options INTERFACE -Wthread-safety)
endif()
# The scalar code is the definition of the numbers: no contraction of a*b+c that would make them
# depend on the compiler. Kernels that want fused multiply-adds say so with intrinsics.
target_compile_options(winnow_options INTERFACE -ffp-contract=off)
set(WINNOW_SANITIZE "" CACHE STRING "Value for -fsanitize=, for example address,undefined")
if(WINNOW_SANITIZE)
  target_compile_options(winnow_options INTERFACE -fsanitize=${WINNOW_SANITIZE}
                         -fno-sanitize-recover=all -fno-omit-frame-pointer)
  target_link_options(winnow_options INTERFACE -fsanitize=${WINNOW_SANITIZE})
endif()
if(WINNOW_BUILD_FUZZERS)
  target_compile_options(winnow_options INTERFACE -fsanitize=fuzzer-no-link)
endif()

# The processor family: part of a file's name when its code is for one only (cpu_features_x86.cc), and
# of kernels/dispatch_<family>.def, whose ISA folders are the only ones of kernels/ to be compiled.
if(CMAKE_SYSTEM_PROCESSOR MATCHES "^(aarch64|arm64)$")
  set(winnow_family aarch64)
  set(winnow_other_family x86)
else()
  set(winnow_family x86)
  set(winnow_other_family aarch64)
endif()

# Sets <out> to the folders of kernels/ that dispatch_<family>.def lists.
function(winnow_isa_folders family out)
  set(list ${CMAKE_SOURCE_DIR}/src/kernels/dispatch_${family}.def)
  set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${list})
  file(STRINGS ${list} folders REGEX "^ISA\\(")
  list(TRANSFORM folders REPLACE "^ISA\\(([a-z0-9_]+).*" "\\1")
  set(${out} ${folders} PARENT_SCOPE)
endfunction()

# Removes from the list of sources or headers named <files> those of the other processor family.
function(winnow_remove_other_family files)
  winnow_isa_folders(${winnow_family} own)
  winnow_isa_folders(${winnow_other_family} other)
  list(REMOVE_ITEM other ${own})
  list(JOIN other "|" folders)
  set(kept ${${files}})
  list(FILTER kept EXCLUDE REGEX "kernels/(${folders})/")
  list(FILTER kept EXCLUDE REGEX "[/_]${winnow_other_family}[._][^/]*$")
  set(${files} ${kept} PARENT_SCOPE)
endfunction()

# With CMAKE_UNITY_BUILD, sources are compiled in batches, which takes about half the time of a build from
# nothing; the presets asan and tsan and .ci/run do. Names of anonymous namespaces must then differ
# within a module's folder. Files in folders below it are extensions with the same names by design,
# and the kernels' names depend on the instruction set: these stay on their own. Each test has a
# namespace of its own.
set(CMAKE_UNITY_BUILD_BATCH_SIZE 10 CACHE STRING "Sources compiled together with CMAKE_UNITY_BUILD")
if(CMAKE_UNITY_BUILD AND CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  # To g++ a batch is the file, and what it includes are headers.
  target_compile_options(winnow_options INTERFACE -Wno-subobject-linkage)
endif()
function(winnow_batch_sources dir apart)
  foreach(source ${ARGN})
    file(RELATIVE_PATH path ${dir} ${source})
    set(is_extension FALSE)
    if(path MATCHES "/" AND NOT path MATCHES "_test\\.cc$")
      set(is_extension TRUE)
    endif()
    if(is_extension OR dir MATCHES "/kernels$" OR path MATCHES "${apart}")
      set_source_files_properties(${source} PROPERTIES SKIP_UNITY_BUILD_INCLUSION ON)
    endif()
  endforeach()
endfunction()

# All programs of tests labelled unit or fuzz.
add_custom_target(winnow_unit_tests)

# winnow_module(<name> DEPS <modules...> [LIBRARIES <external targets...>]
#               [EXCLUDE <regex>] [SOURCES <files...>] [APART <regex>])
# Sources are globbed: an extension is a new file and a line in a registry, never a build line.
# EXCLUDE leaves out sources that are chosen among, SOURCES adds the one that was; APART are those
# that no other may be compiled with.
# A module `<name>` becomes library winnow_<name> and test program winnow_<name>_test.
function(winnow_module name)
  cmake_parse_arguments(ARG "" "EXCLUDE;APART" "DEPS;LIBRARIES;SOURCES" ${ARGN})
  set(dir ${CMAKE_CURRENT_SOURCE_DIR}/${name})
  file(GLOB_RECURSE sources CONFIGURE_DEPENDS ${dir}/*.cc)
  winnow_remove_other_family(sources)
  if(ARG_EXCLUDE)
    list(FILTER sources EXCLUDE REGEX "${ARG_EXCLUDE}")
  endif()
  list(TRANSFORM ARG_SOURCES PREPEND ${dir}/)
  list(APPEND sources ${ARG_SOURCES})
  set(tests ${sources})
  list(FILTER sources EXCLUDE REGEX "_test\\.cc$")
  list(FILTER sources EXCLUDE REGEX "/main\\.cc$")
  list(FILTER tests INCLUDE REGEX "_test\\.cc$")
  if(NOT ARG_APART)
    set(ARG_APART "^$")
  endif()
  winnow_batch_sources(${dir} ${ARG_APART} ${sources} ${tests})
  if(sources)
    add_library(winnow_${name} STATIC ${sources})
    set(scope PUBLIC)
  else()
    add_library(winnow_${name} INTERFACE)
    set(scope INTERFACE)
  endif()
  target_link_libraries(winnow_${name} ${scope} winnow_options ${ARG_LIBRARIES})
  foreach(dep ${ARG_DEPS})
    target_link_libraries(winnow_${name} ${scope} winnow_${dep})
  endforeach()
  if(WINNOW_BUILD_TESTS AND tests)
    add_executable(winnow_${name}_test ${tests})
    target_link_libraries(winnow_${name}_test PRIVATE winnow_${name} GTest::gtest GTest::gmock GTest::gtest_main)
    add_dependencies(winnow_unit_tests winnow_${name}_test)
    # What tests spend their time in is the library; compiling them is a third of a build.
    target_compile_options(winnow_${name}_test PRIVATE $<$<CONFIG:Release>:-O1>)
    target_compile_definitions(winnow_${name}_test PRIVATE WINNOW_SOURCE_DIR="${CMAKE_SOURCE_DIR}")
    gtest_discover_tests(winnow_${name}_test TEST_PREFIX "${name}." DISCOVERY_TIMEOUT 60
                         PROPERTIES LABELS unit)
  endif()
endfunction()
