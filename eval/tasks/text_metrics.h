#pragma once
// LongBench's marks of an answer [LongBench]: 0 to 1, higher is better. Words, digits, small
// letters and characters are those of LongBench's own code, which is Python's
// (core/tokenizer/python_text.h): a no-break space separates words, and characters are code points.

#include <string>
#include <string_view>
#include <vector>

namespace kvc::eval {

// Returns the F1 of the words that answer and truth share, counted with multiplicity, after
// normalising: lower case, no ASCII punctuation, no articles.
[[nodiscard]] double QuestionF1(std::string_view answer, std::string_view truth);

// Returns ROUGE-L over sentences, as the PyPI package `rouge` (1.0) computes its "f": sentences end
// at full stops, and the longest common subsequences of each pair are united.
[[nodiscard]] double RougeL(std::string_view answer, std::string_view truth);

// Returns 1 / n when the truth is among the n class names that occur in the answer, otherwise 0.
// Names that are part of the truth's name without being it do not count.
[[nodiscard]] double ClassScore(std::string_view answer,
                                std::string_view truth,
                                const std::vector<std::string>& classes);

// Returns the share of the numbers in the answer that equal the number in the truth (a paragraph's,
// a count); 0 without any.
[[nodiscard]] double NumberScore(std::string_view answer, std::string_view truth);

// Returns the similarity of the answer's first line of code (neither comment nor fence) to the
// truth: 2 LCS of the characters / their total, in whole percent, like fuzzywuzzy's ratio (a half
// percent goes to the even one).
[[nodiscard]] double CodeSimilarity(std::string_view answer, std::string_view truth);

// Returns the runs of digits, in order.
[[nodiscard]] std::vector<std::string> NumbersIn(std::string_view text);

}  // namespace kvc::eval
