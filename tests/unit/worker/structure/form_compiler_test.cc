#include "worker/structure/form_compiler.h"

#include <absl/strings/str_cat.h>
#include <absl/synchronization/notification.h>
#include <absl/time/clock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace behemoth::worker {
namespace {

std::vector<std::string> Bytes() {
  std::vector<std::string> tokens;
  for (int byte = 0; byte < 256; ++byte) tokens.emplace_back(1, static_cast<char>(byte));
  return tokens;
}

class FormCompilerTest : public testing::Test {
 protected:
  absl::Status SetVocabulary(std::vector<std::string> tokens) {
    absl::Status status;
    absl::Notification done;
    const absl::Status posted = compiler_.SetVocabulary(std::move(tokens), {}, [&](absl::Status s) {
      status = std::move(s);
      done.Notify();
    });
    if (!posted.ok()) return posted;
    done.WaitForNotification();
    return status;
  }

  absl::StatusOr<FormCompiler::Forms> Make(std::string schema) {
    absl::StatusOr<FormCompiler::Forms> forms;
    absl::Notification done;
    const absl::Status posted = compiler_.Make({.text = std::move(schema)}, {}, 1,
                                               [&](absl::StatusOr<FormCompiler::Forms> made) {
                                                 forms = std::move(made);
                                                 done.Notify();
                                               });
    if (!posted.ok()) return posted;
    done.WaitForNotification();
    return forms;
  }

  static constexpr size_t kCacheBytes = 1 << 20;
  FormCompiler compiler_{{.vocabulary_size = 256, .cache_bytes = kCacheBytes}, [] {}};
};

TEST_F(FormCompilerTest, AFormNeedsAVocabularyWhichIsSetOnce) {
  EXPECT_TRUE(absl::IsFailedPrecondition(Make("{}").status()));
  EXPECT_TRUE(absl::IsInvalidArgument(SetVocabulary(std::vector<std::string>(257, "a"))));
  EXPECT_TRUE(SetVocabulary(Bytes()).ok());
  EXPECT_TRUE(SetVocabulary(Bytes()).ok());
  std::vector<std::string> other = Bytes();
  other[7] = "seven";
  EXPECT_TRUE(absl::IsInvalidArgument(SetVocabulary(other)));
  EXPECT_TRUE(Make("{}").ok());
}

FormState Settled(const Form& form) {
  while (form.state() == FormState::kWorking) absl::SleepFor(absl::Milliseconds(1));
  return form.state();
}

TEST_F(FormCompilerTest, ARestartedFormIsWhereItsTokensLead) {
  ASSERT_TRUE(SetVocabulary(Bytes()).ok());
  auto forms = Make(R"({"const":"abc"})");
  ASSERT_TRUE(forms.ok()) << forms.status();
  Form& form = *forms->front();
  form.Advance('"');
  form.Advance('a');
  ASSERT_EQ(Settled(form), FormState::kReady);
  const TokenMask before = *form.mask();
  form.Advance('b');
  ASSERT_EQ(Settled(form), FormState::kReady);
  EXPECT_NE(*form.mask(), before);
  form.Restart({'"', 'a'});
  ASSERT_EQ(Settled(form), FormState::kReady);
  EXPECT_EQ(*form.mask(), before);
  form.Advance('z');  // leaves the form
  ASSERT_EQ(Settled(form), FormState::kFailed);
  form.Restart({'"', 'a'});
  ASSERT_EQ(Settled(form), FormState::kReady);
  EXPECT_EQ(*form.mask(), before);
}

TEST_F(FormCompilerTest, ItsCacheStaysBoundedOverTenThousandSchemas) {
  ASSERT_TRUE(SetVocabulary(Bytes()).ok());
  for (int i = 0; i < 10'000; ++i) {
    ASSERT_TRUE(Make(absl::StrCat(R"({"const":")", i, R"("})")).ok());
    ASSERT_LE(compiler_.cache().bytes, kCacheBytes);
  }
  EXPECT_GT(compiler_.cache().forms, 10u);
  EXPECT_LT(compiler_.cache().forms, 10'000u);
}

TEST_F(FormCompilerTest, WhatIsOfNoFormIsRefusedWithTheField) {
  ASSERT_TRUE(SetVocabulary(Bytes()).ok());
  const absl::Status refused = Make(R"({"not":{}})").status();
  EXPECT_TRUE(absl::IsInvalidArgument(refused));
  EXPECT_TRUE(refused.message().find("structure.json_schema: ") == 0) << refused;
}

}  // namespace
}  // namespace behemoth::worker
