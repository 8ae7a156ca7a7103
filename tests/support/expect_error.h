#pragma once
// EXPECT_KVC_ERROR(statement, kBadInput, "k_proj"): the statement throws kvc::Error of that kind,
// and its message contains the text.

#include <string>

#include <gtest/gtest.h>

#include "core/base/error.h"

#define EXPECT_KVC_ERROR(statement, expected_kind, text)                                          \
  do {                                                                                            \
    try {                                                                                         \
      statement;                                                                                  \
      ADD_FAILURE() << "no error from " #statement;                                               \
    } catch (const ::kvc::Error& kvc_error) {                                                     \
      EXPECT_EQ(static_cast<int>(kvc_error.kind()),                                               \
                static_cast<int>(::kvc::ErrorKind::expected_kind))                                \
          << kvc_error.what();                                                                    \
      EXPECT_NE(std::string(kvc_error.what()).find(text), std::string::npos) << kvc_error.what(); \
    }                                                                                             \
  } while (false)
