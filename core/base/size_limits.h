#pragma once
// Limits far beyond every model's sizes, which files are held to before anything is made of them.

namespace kvc {

// Elements of a token's queries, of all layers. Below it no product of sizes with a length leaves
// 63 bits.
inline constexpr double kMostQueryElements = 0x1p27;

}  // namespace kvc
