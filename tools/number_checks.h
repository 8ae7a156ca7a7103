#pragma once
// Numbers at the door of every command: an option that takes a number gets a finite one, and the
// message for another says which option and what was given.

namespace CLI {
class App;
class Validator;
}  // namespace CLI

namespace kvc::tools {

// Return checks of an option: a number above 0; a number of 0 or more.
[[nodiscard]] CLI::Validator AboveZero();
[[nodiscard]] CLI::Validator ZeroOrMore();

// Checks the parsed options of `app` and of its subcommands. Throws kUsage naming the option whose
// number is NaN or infinite, which no range refuses.
void CheckFiniteOptions(const CLI::App& app);

}  // namespace kvc::tools
