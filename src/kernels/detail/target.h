// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Opens and closes a region of code compiled for more than the baseline processor. Everything in
// it lives in the namespace of one ISA, so that the linker can never hand a copy of a shared
// template with wider instructions to another ISA, as it can with per-file compiler flags.
#pragma once

#define WINNOW_PRAGMA(text) _Pragma(#text)

#ifdef __clang__
#define WINNOW_BEGIN_TARGET(features) \
  WINNOW_PRAGMA(clang attribute push(__attribute__((target(features))), apply_to = function))
#define WINNOW_END_TARGET WINNOW_PRAGMA(clang attribute pop)
#else
#define WINNOW_BEGIN_TARGET(features) \
  WINNOW_PRAGMA(GCC push_options) WINNOW_PRAGMA(GCC target(features))
#define WINNOW_END_TARGET WINNOW_PRAGMA(GCC pop_options)
#endif

/// For the small functions of a vocabulary: their vectors must stay in registers.
#define WINNOW_INLINE [[gnu::always_inline]] inline
