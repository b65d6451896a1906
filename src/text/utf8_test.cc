// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Well-formedness at its edges (Unicode 15, table 3-7), and the alphabet of bytes.
#include "text/utf8.h"

#include <gtest/gtest.h>

#include <set>
#include <string>

#include "text/byte_alphabet.h"
#include "text/nfc.h"

namespace winnow::text::utf8_test {
namespace {

TEST(Utf8, AcceptsEveryCodePointAndNoSurrogate) {
  for (char32_t c = 0; c <= 0x10FFFF; ++c) {
    std::string bytes;
    append_code_point(c, bytes);
    const bool is_surrogate = c >= 0xD800 && c < 0xE000;
    ASSERT_EQ(sequence_length(bytes), is_surrogate ? 0 : bytes.size())
        << std::hex << std::uint32_t{c};
    if (is_surrogate) continue;
    ASSERT_EQ(decode_code_point(bytes, bytes.size()), c);
  }
}

TEST(Utf8, RefusesOverlongFormsAndWhatLiesBeyondTheLastCodePoint) {
  for (const char* bytes :
       {"\x80", "\xBF", "\xC0\x80", "\xC1\xBF", "\xE0\x80\x80", "\xE0\x9F\xBF", "\xF0\x80\x80\x80",
        "\xF0\x8F\xBF\xBF", "\xF4\x90\x80\x80", "\xF5\x80\x80\x80", "\xFE", "\xFF", "\xC3",
        "\xE2\x82", "\xF0\x9F\x98", "\xC3\x28", "\xE2\x28\xA1"}) {
    EXPECT_EQ(sequence_length(bytes), 0U) << bytes;
  }
  EXPECT_EQ(sequence_length(""), 0U);
}

TEST(Utf8, ValidPrefixEndsBeforeTheFirstBadByte) {
  EXPECT_EQ(valid_prefix(""), 0U);
  EXPECT_EQ(valid_prefix("a\xC3\xA9z"), 4U);
  EXPECT_EQ(valid_prefix("a\xC3\xA9\xFFz"), 3U);
  EXPECT_EQ(valid_prefix("ab\xE2\x82"), 2U);
}

TEST(Utf8, IncompleteSuffixIsOnlyWhatMoreBytesCouldComplete) {
  EXPECT_EQ(incomplete_suffix(""), 0U);
  EXPECT_EQ(incomplete_suffix("abc"), 0U);
  EXPECT_EQ(incomplete_suffix("\xC3\xA9"), 0U);
  EXPECT_EQ(incomplete_suffix("a\xC3"), 1U);
  EXPECT_EQ(incomplete_suffix("a\xE2\x82"), 2U);
  EXPECT_EQ(incomplete_suffix("a\xF0\x9F\x98"), 3U);
  EXPECT_EQ(incomplete_suffix("a\xF0\x9F\x98\x80"), 0U);
  EXPECT_EQ(incomplete_suffix("\xE0\x80"), 0U);  // overlong, whatever follows
  EXPECT_EQ(incomplete_suffix("\xED\xA0"), 0U);  // a surrogate
  EXPECT_EQ(incomplete_suffix("\x80\x80"), 0U);
  EXPECT_EQ(incomplete_suffix("\xFF"), 0U);
}

TEST(ByteAlphabet, GivesEveryByteItsOwnVisibleCharacter) {
  std::set<char32_t> characters;
  for (int byte = 0; byte < 256; ++byte) {
    const char32_t character = byte_to_char(static_cast<std::uint8_t>(byte));
    EXPECT_GT(character, 32U);
    characters.insert(character);
    const std::string bytes(1, static_cast<char>(byte));
    EXPECT_EQ(from_byte_alphabet(to_byte_alphabet(bytes)), bytes);
  }
  EXPECT_EQ(characters.size(), 256U);
  EXPECT_EQ(to_byte_alphabet(" "), "\u0120");  // the known one
  EXPECT_EQ(to_byte_alphabet("A\n\xFF"), "A\u010A\u00FF");
}

TEST(ByteAlphabet, HasNoOtherCharacters) {
  EXPECT_EQ(from_byte_alphabet("a b"), std::nullopt);
  EXPECT_EQ(from_byte_alphabet("\u0144"), std::nullopt);  // one after the last
  EXPECT_EQ(from_byte_alphabet("\u4e2d"), std::nullopt);
  EXPECT_EQ(from_byte_alphabet("\xFF"), std::nullopt);
}

TEST(NormalizeNfc, ComposesAndOrdersMarks) {
  EXPECT_EQ(normalize_nfc("e\u0301"), "\u00e9");
  EXPECT_EQ(normalize_nfc("a\u0307\u0323"), "\u1ea1\u0307");  // dot below first, and composed
  EXPECT_EQ(normalize_nfc("\u212b"), "\u00c5");               // Angstrom sign
  EXPECT_EQ(normalize_nfc("\u1100\u1161\u11a8"), "\uac01");
  EXPECT_EQ(normalize_nfc("\u0958"), "\u0915\u093c");  // excluded from composition
  EXPECT_EQ(normalize_nfc("\ufb01"), "\ufb01");        // compatibility forms stay
}

TEST(NormalizeNfc, LeavesInvalidBytesWhereTheyAre) {
  EXPECT_EQ(normalize_nfc("\xFF"
                          "e\u0301\xCC"),
            "\xFF\u00e9\xCC");
}

TEST(NormalizeNfc, SortsALongRunOfMarksWithoutQuadraticTime) {
  std::string marks = "a";
  std::string below, above;
  for (int i = 0; i < 200'000; ++i) {
    marks += "\u0301\u0316";  // classes 230 and 220: every pair is out of order
    below += "\u0316";
    above += "\u0301";
  }
  EXPECT_EQ(normalize_nfc(marks), "\u00e1" + below + above.substr(2));
}

TEST(Utf8, CountsBytesThatBelongToNoSequence) {
  EXPECT_EQ(stray_bytes(""), 0U);
  EXPECT_EQ(stray_bytes("Gr\xC3\xBC\xC3\x9F"
                        "e \xF0\x9F\x98\x80"),
            0U);
  EXPECT_EQ(stray_bytes("Gr\xFC\xDF"
                        "e"),
            2U);
  EXPECT_EQ(stray_bytes("cut off: \xF0\x9F\x98"), 3U);
}

}  // namespace
}  // namespace winnow::text::utf8_test
