// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "cli/console_log.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <array>

namespace winnow::cli::console_log_test {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using testing::HasSubstr;
using testing::IsEmpty;

/// A log that writes into a pipe, with a clock that the test moves.
class ConsoleLogTest : public testing::Test {
 protected:
  ConsoleLogTest() {
    if (::pipe(pipe_.data()) != 0) ADD_FAILURE() << "no pipe";
    options_.fd = pipe_[1];
    options_.now = [this] { return now_; };
  }
  ~ConsoleLogTest() override {
    ::close(pipe_[0]);
    ::close(pipe_[1]);
  }
  /// What was written since the last call.
  std::string written() {
    constexpr char kEnd = '\0';
    EXPECT_EQ(::write(pipe_[1], &kEnd, 1), 1);
    std::string out;
    char c = kEnd;
    while (::read(pipe_[0], &c, 1) == 1 && c != kEnd) out += c;
    return out;
  }

  std::array<int, 2> pipe_{};
  ConsoleLog::Clock::time_point now_{};
  ConsoleLog::Options options_;
};

TEST_F(ConsoleLogTest, WritesPlainLinesAFewSecondsApartWhenNobodyWatches) {
  ConsoleLog log(options_);
  log.progress("profile", 0, 1000, "tokens");
  now_ += seconds(4);
  log.progress("profile", 100, 1000, "tokens");
  EXPECT_THAT(written(), IsEmpty());
  now_ += seconds(1);
  log.progress("profile", 250, 1000, "tokens");
  EXPECT_EQ(written(), "profile:  25 %, 250 of 1000 tokens, 50 tokens/s, 0:15 left\n");
  log.progress("profile", 260, 1000, "tokens");
  EXPECT_THAT(written(), IsEmpty());
}

TEST_F(ConsoleLogTest, EndsAStageThatWasShownAndIsSilentAboutAShortOne) {
  ConsoleLog log(options_);
  log.progress("short", 0, 10, "layers");
  log.progress("short", 10, 10, "layers");
  EXPECT_THAT(written(), IsEmpty());
  log.progress("long", 0, 10, "layers");
  now_ += seconds(6);
  log.progress("long", 6, 10, "layers");
  now_ += seconds(4);
  log.progress("long", 10, 10, "layers");
  EXPECT_THAT(written(), HasSubstr("100 %, 10 of 10 layers, 1 layers/s, took 0:10\n"));
}

TEST_F(ConsoleLogTest, RedrawsOneLineOnATerminalAndClearsItBeforeAMessage) {
  options_.terminal = true;
  ConsoleLog log(options_);
  log.progress("write", 0, 4096, "bytes");
  now_ += milliseconds(500);
  log.progress("write", 2048, 4096, "bytes");
  EXPECT_EQ(written(),
            "\r\x1b[2Kwrite [##########..........]  50 %, 2.00 KiB of 4.00 KiB, 4.00 KiB/s, "
            "0:01 left");
  log.info("done");
  EXPECT_EQ(written(), "\r\x1b[2Kdone\n");
}

TEST_F(ConsoleLogTest, CutsALineThatWouldWrap) {
  options_.terminal = true;
  options_.columns = 20;
  ConsoleLog log(options_);
  log.progress("write", 0, 4, "layers");
  now_ += seconds(1);
  log.progress("write", 1, 4, "layers");
  EXPECT_EQ(written(), "\r\x1b[2Kwrite [#####.......");
}

TEST_F(ConsoleLogTest, ShowsCountAndRateWhenTheTotalIsUnknown) {
  ConsoleLog log(options_);
  log.progress("read", 0, 0, "tokens");
  now_ += seconds(5);
  log.progress("read", 6000, 0, "tokens");
  EXPECT_EQ(written(), "read: 6000 tokens, 1.20 k tokens/s\n");
}

TEST_F(ConsoleLogTest, KeepsWarningsAndErrorsWhenQuiet) {
  options_.verbosity = Verbosity::kQuiet;
  ConsoleLog log(options_);
  log.info("nothing");
  log.plain("nothing");
  log.progress("nothing", 0, 10, "tokens");
  now_ += seconds(60);
  log.progress("nothing", 5, 10, "tokens");
  log.warn("careful");
  log.error("broken");
  EXPECT_EQ(written(), "warning: careful\nwinnow: broken\n");
}

TEST_F(ConsoleLogTest, ColoursOnlyWhenAsked) {
  options_.colour = true;
  ConsoleLog coloured(options_);
  coloured.warn("careful");
  EXPECT_EQ(written(), "\x1b[33mwarning: \x1b[0mcareful\n");
}

TEST_F(ConsoleLogTest, PutsTheTimeBeforeMessagesWhenVerbose) {
  options_.verbosity = Verbosity::kVerbose;
  ConsoleLog log(options_);
  now_ += milliseconds(1500);
  log.info("loaded");
  EXPECT_EQ(written(), "[    1.50] loaded\n");
}

TEST(FormatCount, UsesThreeDigitsAndDecimalPrefixes) {
  EXPECT_EQ(format_count(812), "812");
  EXPECT_EQ(format_count(0.5), "0.50");
  EXPECT_EQ(format_count(1234), "1.23 k");
  EXPECT_EQ(format_count(45.6e6), "45.6 M");
}

TEST(FormatDuration, WritesMinutesAndHours) {
  EXPECT_EQ(format_duration(7), "0:07");
  EXPECT_EQ(format_duration(750), "12:30");
  EXPECT_EQ(format_duration(11100), "3:05:00");
}

}  // namespace
}  // namespace winnow::cli::console_log_test
