# SPDX-FileCopyrightText: The Winnow authors
# SPDX-License-Identifier: Apache-2.0
#
# The targets that the modules up to `kernels` link, made of what the host's packages hold for any
# processor: headers of fmt and nlohmann_json, sources of googletest. The host's include folder
# itself must stay out of the search path: it also holds the host's own system headers.

function(winnow_host_headers target folder)
  set(path /usr/include/${folder})
  if(NOT EXISTS ${path})
    message(FATAL_ERROR "${path} is missing; run scripts/setup --nightly")
  endif()
  set(room ${CMAKE_BINARY_DIR}/host_headers/${folder})
  file(MAKE_DIRECTORY ${room})
  file(CREATE_LINK ${path} ${room}/${folder} SYMBOLIC)
  add_library(${target} INTERFACE IMPORTED)
  target_include_directories(${target} SYSTEM INTERFACE ${room})
endfunction()

winnow_host_headers(fmt::fmt fmt)
target_compile_definitions(fmt::fmt INTERFACE FMT_HEADER_ONLY)
winnow_host_headers(nlohmann_json::nlohmann_json nlohmann)

if(WINNOW_BUILD_TESTS)
  if(NOT EXISTS /usr/src/googletest)
    message(FATAL_ERROR "/usr/src/googletest is missing; run scripts/setup --nightly")
  endif()
  set(INSTALL_GTEST OFF CACHE BOOL "")
  add_subdirectory(/usr/src/googletest ${CMAKE_BINARY_DIR}/googletest EXCLUDE_FROM_ALL)
  foreach(library gtest gmock gtest_main)
    if(NOT TARGET GTest::${library})
      add_library(GTest::${library} ALIAS ${library})
    endif()
  endforeach()
endif()
