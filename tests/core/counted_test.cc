#include "core/base/counted.h"

#include <gtest/gtest.h>

namespace kvc {
namespace {

TEST(Counted, HasThePluralOfItsNoun) {
  EXPECT_EQ(Counted(0, "turn"), "0 turns");
  EXPECT_EQ(Counted(1, "turn"), "1 turn");
  EXPECT_EQ(Counted(2, "new token"), "2 new tokens");
  EXPECT_EQ(Counted(1001, "token"), "1001 tokens");
}

}  // namespace
}  // namespace kvc
