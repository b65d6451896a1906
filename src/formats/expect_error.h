// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// For tests only: runs something that must fail, and hands over the message.
#pragma once

#include <gtest/gtest.h>

#include <string>

#include "base/error.h"

namespace winnow::formats::testing {

/// The message of the Error that `body` throws; a test failure when it throws none, or one of
/// another code.
template <typename Body>
std::string error_of(Body&& body, ErrorCode code = ErrorCode::kBadData) {
  try {
    body();
  } catch (const Error& error) {
    EXPECT_EQ(static_cast<int>(error.code()), static_cast<int>(code)) << error.message();
    return error.message();
  }
  ADD_FAILURE() << "no error was thrown";
  return "";
}

}  // namespace winnow::formats::testing
