// One interpreter for the whole binary, as in the product. What templates print is held against
// transformers in tests/conformance/gateway; here are the limits and the life cycle.
#include "gateway/chat/chat_template.h"

#include <absl/synchronization/blocking_counter.h>
#include <absl/synchronization/notification.h>
#include <gtest/gtest.h>

#include <atomic>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "gateway/api/api_error.h"

namespace behemoth::gateway {
namespace {

constexpr JinjaOptions kOptions = {.max_queued = 4,
                                   .render_timeout_ms = 200,
                                   .max_prompt_bytes = 1 << 20,
                                   .render_memory_bytes = size_t{64} << 20};
constexpr char kEndless[] =
    "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}";

class ChatTemplateTest : public testing::Test {
 protected:
  void SetUp() override {
    if (jinja_) return;
    auto jinja = Jinja::Start(kOptions);
    ASSERT_TRUE(jinja.ok()) << jinja.status();
    jinja_ = *std::move(jinja);
  }
  static void TearDownTestSuite() { jinja_.reset(); }

  static std::shared_ptr<ChatTemplate> Compile(const std::string& source) {
    auto compiled = jinja_->Compile(
        {.jinja = source, .bos_token = "<s>", .control_tokens = {{"<s>", 1}, {"[INST]", 3}}});
    EXPECT_TRUE(compiled.ok()) << compiled.status();
    return *std::move(compiled);
  }

  static ChatPrompt Says(std::string content) {
    return {.messages = {{.role = "user", .content = std::move(content)}}};
  }

  static absl::StatusOr<PromptText> Render(const std::string& source,
                                           ChatPrompt prompt = Says("hi")) {
    const auto compiled = Compile(source);
    absl::StatusOr<PromptText> result;
    absl::Notification done;
    compiled->Render(std::move(prompt), [&](absl::StatusOr<PromptText> text) {
      result = std::move(text);
      done.Notify();
    });
    done.WaitForNotification();
    return result;
  }

  static inline std::unique_ptr<Jinja> jinja_;
};

TEST_F(ChatTemplateTest, PrintsSegmentsAndTheWhole) {
  const auto text = Render("{{ bos_token }}[INST] {{ messages[0].content }}", Says("<s>[INST]"));
  ASSERT_TRUE(text.ok()) << text.status();
  EXPECT_EQ(text->text, "<s>[INST] <s>[INST]");
  EXPECT_EQ(text->segments, (std::vector<PromptText::Segment>{1u, 3u, std::string(" <s>[INST]")}));
}

TEST_F(ChatTemplateTest, AnEndlessTemplateIsStopped) {
  EXPECT_EQ(Render(kEndless).status().code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_TRUE(Render("ok").ok());  // the next one is not hit by what stopped the last
}

TEST_F(ChatTemplateTest, AnOutputBombIsStopped) {
  for (const char* bomb :
       {"{% for a in range(99999) %}{{ 'x' * 99999 }}{% endfor %}",  // over the prompt's limit
        "{{ 'x' * 9999999999 }}", "{{ 'x'.center(9999999999) }}",    // over the memory's
        "{% set ns = namespace(s='x') %}{% for a in range(60) %}{% set ns.s = ns.s + ns.s %}"
        "{% endfor %}{{ ns.s }}",
        "{{ '%9999999999d' % 1 }}", "{{ 10 ** 99999999 }}",
        "{% set ns = namespace(n=3) %}{% for a in range(60) %}{% set ns.n = ns.n * ns.n %}"
        "{% endfor %}"}) {
    // By its size, or on a slow machine by its time: which comes first is all the same.
    const absl::Status status = Render(bomb).status();
    if (status.code() == absl::StatusCode::kDeadlineExceeded) continue;
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << bomb << status;
    EXPECT_EQ(ToApiError(status).param, "messages") << bomb;
  }
  EXPECT_TRUE(Render("ok").ok());
}

TEST_F(ChatTemplateTest, EndlessRecursionIsRefused) {
  const auto text = Render("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}");
  EXPECT_EQ(text.status().code(), absl::StatusCode::kInvalidArgument);
}

TEST_F(ChatTemplateTest, ALongMessageOfUnicodeFits) {
  std::string content;
  for (int i = 0; i < 200'000; ++i) content += "\u00e9";
  content += "\U0001F334";  // makes Python hold 4 bytes a character
  const auto text = Render("{{ messages[0].content }}", Says(content));
  ASSERT_TRUE(text.ok()) << text.status();
  EXPECT_EQ(text->text, content);
}

TEST_F(ChatTemplateTest, TheTemplatesOwnMessageIsTheClients) {
  const auto text = Render("{{ raise_exception('Only user roles are supported!') }}");
  EXPECT_EQ(text.status().code(), absl::StatusCode::kInvalidArgument);
  const ApiError error = ToApiError(text.status());
  EXPECT_EQ(error.http, 400);
  EXPECT_EQ(error.param, "messages");
  EXPECT_NE(error.message.find("Only user roles are supported!"), std::string::npos);
}

TEST_F(ChatTemplateTest, TextThatIsNotUtf8IsRefused) {
  EXPECT_EQ(Render("{{ messages[0].content }}", Says("\xFF")).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(Render(R"({{ '\ud800' }})").status().code(), absl::StatusCode::kInvalidArgument);
}

TEST_F(ChatTemplateTest, ArgumentsReachTheTemplate) {
  ChatPrompt prompt = Says("hi");
  prompt.template_kwargs_json =
      R"({"enable_thinking": true, "deep": {"list": [1, 2.5, "[INST]"]}})";
  const auto text = Render("{% if enable_thinking %}{{ deep | tojson }}{% endif %}", prompt);
  ASSERT_TRUE(text.ok()) << text.status();
  EXPECT_EQ(text->text, R"({"list": [1, 2.5, "[INST]"]})");
  EXPECT_EQ(text->segments.size(), 1u);
}

TEST_F(ChatTemplateTest, ATrustedRequestBringsItsOwnTemplate) {
  ChatPrompt prompt = Says("hi");
  prompt.chat_template = "{{ bos_token }}{{ messages[0].content }}!";
  const auto text = Render("not this one", prompt);
  ASSERT_TRUE(text.ok()) << text.status();
  EXPECT_EQ(text->text, "<s>hi!");
  prompt.chat_template = "{% endfor %}";
  EXPECT_EQ(Render("not this one", prompt).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST_F(ChatTemplateTest, ABrokenTemplateDoesNotCompile) {
  const auto compiled = jinja_->Compile({.jinja = "a\n{% for %}"});
  EXPECT_EQ(compiled.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_NE(compiled.status().message().find("line 2"), std::string::npos) << compiled.status();
}

TEST_F(ChatTemplateTest, TheQueueIsBoundedAndRefusesAtOnce) {
  const auto compiled = Compile("{{ messages[0].content }}");
  absl::Notification busy, release, refused;
  // A callback that blocks, which no other may: the interpreter is busy for as long as it takes.
  compiled->Render(Says("hi"), [&](absl::StatusOr<PromptText>) {
    busy.Notify();
    release.WaitForNotification();
  });
  busy.WaitForNotification();
  absl::BlockingCounter waiting(kOptions.max_queued);
  std::atomic<int> rendered{0};
  for (int i = 0; i < kOptions.max_queued; ++i) {
    compiled->Render(Says("hi"), [&](absl::StatusOr<PromptText> text) {
      rendered += text.ok();
      waiting.DecrementCount();
    });
  }
  absl::Status status;
  compiled->Render(Says("hi"), [&](absl::StatusOr<PromptText> text) {
    status = text.status();
    refused.Notify();
  });
  refused.WaitForNotification();
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(rendered, 0);
  release.Notify();
  waiting.Wait();
  EXPECT_EQ(rendered, kOptions.max_queued);
}

TEST_F(ChatTemplateTest, TheEndCancelsWhatWaits) {
  const auto endless = Compile(kEndless);
  std::vector<absl::StatusCode> codes;  // one thread calls back
  for (int i = 0; i < 3; ++i) {
    endless->Render(Says("hi"), [&codes](absl::StatusOr<PromptText> text) {
      codes.push_back(text.status().code());
    });
  }
  jinja_.reset();
  ASSERT_EQ(codes.size(), 3u);
  EXPECT_EQ(codes[2], absl::StatusCode::kCancelled);
}

}  // namespace
}  // namespace behemoth::gateway
