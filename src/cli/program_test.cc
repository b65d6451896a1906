// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "cli/program.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <csignal>
#include <new>
#include <stdexcept>

#include "base/error.h"
#include "cli/context.h"
#include "cli/exit_code.h"
#include "cli/parser.h"

namespace winnow::cli::program_test {
namespace {

TEST(ExitCode, IsTheOneThatScriptsRelyOn) {
  EXPECT_EQ(exit_code(ErrorCode::kUsage), 1);
  EXPECT_EQ(exit_code(ErrorCode::kBadData), 2);
  EXPECT_EQ(exit_code(ErrorCode::kBudget), 3);
  EXPECT_EQ(exit_code(ErrorCode::kSystem), 4);
  EXPECT_EQ(exit_code(ErrorCode::kInternal), 70);
  EXPECT_EQ(exit_code(ErrorCode::kInterrupted), 130);
}

class FailureTest : public testing::Test {
 protected:
  /// The code and the standard error of an action that throws `thrown`.
  template <typename Thrown>
  std::pair<int, std::string> outcome_of(const Thrown& thrown) {
    testing::internal::CaptureStderr();
    const int code = run_action([&](Context&) { throw thrown; }, {});
    return {code, testing::internal::GetCapturedStderr()};
  }
};

TEST_F(FailureTest, ReportsAnErrorWithItsMessageAndCode) {
  EXPECT_EQ(outcome_of(Error(ErrorCode::kBudget, "too small")),
            std::pair(3, std::string("winnow: too small\n")));
}

TEST_F(FailureTest, ReportsExhaustedMemoryAsARefusalOfTheSystem) {
  const auto [code, text] = outcome_of(std::bad_alloc());
  EXPECT_EQ(code, 4);
  EXPECT_THAT(text, testing::HasSubstr("out of memory"));
}

TEST_F(FailureTest, ReportsUnknownExceptionsAsInternal) {
  EXPECT_EQ(outcome_of(std::logic_error("odd")),
            std::pair(70, std::string("winnow: internal error: odd; please report this\n")));
  EXPECT_EQ(outcome_of(42).first, 70);
}

TEST_F(FailureTest, IsQuietWhenTheReaderOfTheOutputHasGone) {
  EXPECT_EQ(outcome_of(OutputClosed{}), std::pair(0, std::string()));
}

TEST_F(FailureTest, ReturnsSuccessWhenNothingIsThrown) {
  EXPECT_EQ(run_action([](Context&) {}, {}), 0);
}

TEST_F(FailureTest, ReturnsTheSignalsCodeWhenACommandStopsEarlyOnRequest) {
  EXPECT_EQ(run_action([](Context&) { ::raise(SIGTERM); }, {}), 143);
  EXPECT_EQ(run_action(
                [](Context& context) {
                  ::raise(SIGINT);
                  context.log.check_interrupt();
                },
                {.error_fd = -1}),
            130);
}

TEST(Nearest, FindsTypingErrorsAndNothingElse) {
  EXPECT_EQ(nearest("comprss", {"compress", "convert"}), "compress");
  EXPECT_EQ(nearest("quantize", {"compress", "convert"}), "");
}

}  // namespace
}  // namespace winnow::cli::program_test
