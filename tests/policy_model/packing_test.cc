// policy_model/packing.h: how sequences lie in a batch, and what neighbours share.
#include "policy_model/packing.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <tuple>
#include <vector>

#include "common/base/error.h"
#include "common/record/task_tokens.h"

namespace plumb::policy_model {
namespace {

TEST(PackingTest, WorkedExampleOfTheHeader) {
  PackedBatch batch;
  batch.Clear();
  batch.Append(std::vector<int32_t>{10, 11, 12}, std::vector<uint8_t>{0, 1, 1});
  // token 0 has nothing before it
  batch.Append(std::vector<int32_t>{20, 21}, std::vector<uint8_t>{1, 1});
  EXPECT_EQ(batch.positions, (std::vector<int32_t>{0, 1, 2, 0, 1}));
  EXPECT_EQ(batch.cu_seqlens, (std::vector<int32_t>{0, 3, 5}));
  EXPECT_EQ(batch.rows, (std::vector<int32_t>{0, 1, 3}));
  EXPECT_EQ(batch.targets, (std::vector<int32_t>{11, 12, 21}));
}

TEST(PackingTest, SharedExampleOfTheHeader) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  PackedBatch batch;
  batch.Clear();
  EXPECT_FALSE(batch.shares());
  batch.AppendPrefix(std::vector<int32_t>{10, 11});
  batch.Append(std::vector<int32_t>{10, 11, 12, 20}, std::vector<uint8_t>{0, 0, 0, 1}, 2);
  batch.Append(std::vector<int32_t>{10, 11, 12, 30, 31}, std::vector<uint8_t>{0, 0, 0, 1, 1}, 2);
  EXPECT_TRUE(batch.shares());
  EXPECT_EQ(batch.tokens, (std::vector<int32_t>{10, 11, 12, 20, 12, 30, 31}));
  EXPECT_EQ(batch.positions, (std::vector<int32_t>{0, 1, 2, 3, 2, 3, 4}));
  EXPECT_EQ(batch.cu_seqlens, (std::vector<int32_t>{0, 2, 4, 7}));
  EXPECT_EQ(batch.parents, (std::vector<int32_t>{-1, 0, 0}));
  EXPECT_EQ(batch.rows, (std::vector<int32_t>{2, 4, 5}));
  EXPECT_EQ(batch.targets, (std::vector<int32_t>{20, 30, 31}));
  EXPECT_EQ(batch.max_seqlen, 5);
  // A row inside the prefix would be one for two sequences.
  EXPECT_DEATH(batch.Append(std::vector<int32_t>{10, 11, 12}, std::vector<uint8_t>{0, 1, 1}, 2),
               "directly behind");
  EXPECT_DEATH(batch.Append(std::vector<int32_t>{10, 11, 12}, std::vector<uint8_t>{0, 0, 0}, 1),
               "all of the prefix");
}

// Where the policy learned no tokens for a task, a sequence lies as if it named none.
TEST(PackingTest, TokensOfATaskAreLaidWhereItIsSaid) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  const int32_t task = TaskToken(4, 0), next = TaskToken(4, 1);
  for (const bool laid : {false, true}) {
    PackedBatch batch;
    batch.Clear();
    batch.task_tokens = laid;
    const std::vector<int32_t> sequence = {task, next, 10, 11, 12};
    EXPECT_EQ(batch.Passed(sequence), laid ? 0 : 2);
    batch.Append(sequence, std::vector<uint8_t>{0, 0, 0, 1, 1});
    batch.Append(std::vector<int32_t>{20, 21}, std::vector<uint8_t>{0, 1});
    batch.AppendPrefix(std::vector<int32_t>{task, next, 30});
    batch.Append(std::vector<int32_t>{task, next, 30, 31, 32}, std::vector<uint8_t>{0, 0, 0, 0, 1},
                 3);
    EXPECT_EQ(batch.tasks, (std::vector<int32_t>{4, -1, 4, 4}));
    if (laid) {
      EXPECT_EQ(batch.tokens,
                (std::vector<int32_t>{task, next, 10, 11, 12, 20, 21, task, next, 30, 31, 32}));
      EXPECT_EQ(batch.positions, (std::vector<int32_t>{0, 1, 2, 3, 4, 0, 1, 0, 1, 2, 3, 4}));
      EXPECT_EQ(batch.rows, (std::vector<int32_t>{2, 3, 5, 10}));
      EXPECT_EQ(batch.max_seqlen, 5);
    } else {
      EXPECT_EQ(batch.tokens, (std::vector<int32_t>{10, 11, 12, 20, 21, 30, 31, 32}));
      EXPECT_EQ(batch.positions, (std::vector<int32_t>{0, 1, 2, 0, 1, 0, 1, 2}));
      EXPECT_EQ(batch.rows, (std::vector<int32_t>{0, 1, 3, 6}));
      EXPECT_EQ(batch.max_seqlen, 3);
    }
    EXPECT_EQ(batch.targets, (std::vector<int32_t>{11, 12, 21, 32}));
    EXPECT_EQ(batch.parents, (std::vector<int32_t>{-1, -1, -1, 2}));
  }
  // Where nothing but the task is shared, nothing is.
  PackedBatch batch;
  batch.Clear();
  batch.AppendPrefix(std::vector<int32_t>{task, next});
  batch.Append(std::vector<int32_t>{task, next, 10, 11}, std::vector<uint8_t>{0, 0, 0, 1}, 2);
  EXPECT_EQ(batch.sequences(), 1);
  EXPECT_EQ(batch.parents, std::vector<int32_t>{-1});
  EXPECT_FALSE(batch.shares());
  EXPECT_EQ(batch.rows, std::vector<int32_t>{0});
  // Before the first token that is laid there is nothing.
  EXPECT_DEATH(batch.Append(std::vector<int32_t>{task, 10}, std::vector<uint8_t>{0, 1}),
               "directly behind");
}

ExpertChoices Choices(std::initializer_list<int32_t> experts) {
  ExpertChoices out{{1, 1, 8}, {}};
  for (const int32_t e : experts) AppendExperts(out.form, std::span(&e, 1), out.bytes);
  return out;
}

TEST(PackingTest, ExpertsLieWithTheirTokensAndMinusOneWhereTheRouterChooses) {
  const std::vector<int32_t> a = {10, 11, 12, 20}, b = {10, 11, 12, 30, 31};
  const std::vector<uint8_t> one = {0, 0, 0, 1}, two = {0, 0, 0, 1, 1};
  const ExpertChoices of_a = Choices({1, 2, 3}), of_b = Choices({1, 2, 4, 5});
  PackedBatch batch;
  batch.Clear();
  batch.Append(a, one);  // recorded by nobody
  EXPECT_TRUE(batch.experts.empty());
  batch.AppendPrefix(std::span(a).first(2), &of_a);
  batch.Append(a, one, 2, {}, &of_a);
  batch.Append(b, two, 2, {}, &of_b);
  EXPECT_EQ(batch.expert_form, of_a.form);
  EXPECT_EQ(batch.experts, (std::vector<int32_t>{-1, -1, -1, -1, 1, 2, 3, -1, 4, 5, -1}));
  batch.Clear();
  EXPECT_TRUE(batch.experts.empty());
  EXPECT_FALSE(batch.expert_form.there());
}

TEST(PackingTest, WhatIsSharedWentThroughTheSameExperts) {
  const std::vector<int32_t> a = {10, 11, 12, 13, 20}, b = {10, 11, 12, 13, 30};
  const auto shared = [&](const ExpertChoices* x, const ExpertChoices* y) {
    PackPlan plan;
    plan.Add(a, 4, x);
    plan.Add(b, 4, y);
    plan.Split(100);
    PackedBatch batch;
    batch.Clear();
    return plan.Shared(0, 0, 2, batch);
  };
  const ExpertChoices same = Choices({1, 2, 3, 4}), again = same, late = Choices({1, 2, 5, 4}),
                      early = Choices({0, 2, 3, 4});
  ExpertChoices other = same;
  other.form.experts = 16;
  EXPECT_EQ(shared(nullptr, nullptr), 4);
  EXPECT_EQ(shared(&same, &again), 4);
  EXPECT_EQ(shared(&same, &late), 2);
  EXPECT_EQ(shared(&same, &early), 0);
  EXPECT_EQ(shared(&same, nullptr), 0);
  EXPECT_EQ(shared(&same, &other), 0);
}

// Sequences as text, the head looks at the tokens after '|'. Returns what the plan shares: a number
// a sequence, micro-batches apart.
std::string Plan(const std::vector<std::string>& texts, int64_t budget, int32_t together = 1,
                 int64_t* laid = nullptr) {
  std::vector<std::vector<int32_t>> sequences;
  std::vector<int32_t> first_rows;
  PackPlan plan;
  for (const std::string& text : texts) {
    first_rows.push_back(static_cast<int32_t>(text.find('|')));
    sequences.emplace_back();
    for (const char c : text) {
      if (c != '|') sequences.back().push_back(c);
    }
  }
  for (size_t i = 0; i < texts.size(); ++i) plan.Add(sequences[i], first_rows[i]);
  std::string out;
  int64_t tokens = 0;
  int32_t first = 0;
  for (const int32_t last : plan.Split(budget, together)) {
    PackedBatch batch;
    batch.Clear();
    for (int32_t s = first; s < last; ++s) {
      const auto& sequence = sequences[static_cast<size_t>(s)];
      const int32_t shared = plan.Shared(s, first, last, batch);
      const int32_t at = static_cast<int32_t>(sequence.size()) - 1;
      batch.AppendRows(sequence, std::span(&at, 1), shared);
      out += std::to_string(shared) + " ";
      // What lies before a row is the sequence.
      std::vector<int32_t> seen;
      const auto add = [&](int32_t b) {
        for (int32_t i = batch.cu_seqlens[static_cast<size_t>(b)];
             i < batch.cu_seqlens[static_cast<size_t>(b) + 1]; ++i) {
          seen.push_back(batch.tokens[static_cast<size_t>(i)]);
        }
      };
      if (batch.parents.back() >= 0) add(batch.parents.back());
      add(batch.sequences() - 1);
      EXPECT_EQ(seen, sequence) << texts[static_cast<size_t>(s)];
    }
    tokens += batch.size();
    out += "/ ";
    first = last;
  }
  if (laid) *laid = tokens;
  return out;
}

TEST(PackPlanTest, SharesWhatNeighboursBeginWith) {
  EXPECT_EQ(Plan({}, 10), "");
  EXPECT_EQ(Plan({"ab|c"}, 10), "0 / ");
  EXPECT_EQ(Plan({"|ab", "|ab"}, 10), "0 0 / ") << "a row at the first token";
  int64_t laid = 0;
  EXPECT_EQ(Plan({"abcd|x", "abcd|yy", "abcd|xz", "efg|h"}, 100, 1, &laid), "4 4 4 0 / ");
  EXPECT_EQ(laid, 4 + 1 + 2 + 2 + 4);
  EXPECT_EQ(Plan({"abcd|x", "abcdx|y"}, 100), "4 4 / ") << "the lower limit holds";
  EXPECT_EQ(Plan({"same|", "same|"}, 100), "3 3 / ") << "each keeps a token of its own";
}

TEST(PackPlanTest, ATemplateDoesNotCutAPromptShort) {
  // Two pairs that share a template of 2: sharing it among all four would spare 6 tokens, the two
  // prompts spare 5 + 6.
  EXPECT_EQ(Plan({"Tthree|a", "Tthree|b", "Tthirty|c", "Tthirty|d"}, 100), "6 6 7 7 / ");
  // Three answers that begin alike and one that does not: all four share the prompt.
  EXPECT_EQ(Plan({"prompt|aab", "prompt|aac", "prompt|b"}, 100), "6 6 6 / ");
  // Nothing but the template: it is laid once.
  EXPECT_EQ(Plan({"T1|a", "T2|b", "T3|c"}, 100), "1 1 1 / ");
}

TEST(PackPlanTest, FillsMicroBatchesWithWhatIsLaid) {
  EXPECT_EQ(Plan({"aaaa|a", "bbbb|b", "|c"}, 10), "0 0 / 0 / ");
  EXPECT_EQ(Plan({"abcdefgh|i", "abcdefgh|j", "abcdefgh|k"}, 10), "8 8 / 0 / ")
      << "a run is cut by the budget";
  EXPECT_EQ(Plan({"abcdefgh|i", "abcdefgh|j", "abcdefgh|k", "abcdefgh|l"}, 10), "8 8 / 8 8 / ");
  EXPECT_EQ(Plan({"abcdefghijklm|n", "a|b"}, 5), "0 / 0 / ")
      << "what is longer than the budget comes alone";
  EXPECT_EQ(Plan({"a|a", "b|b", "c|c", "d|d"}, 6, 2), "0 0 / 0 0 / ") << "pairs are not parted";
}

}  // namespace
}  // namespace plumb::policy_model
