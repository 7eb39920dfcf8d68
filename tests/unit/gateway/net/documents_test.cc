// What is served as it is: /openapi.json over the real route table, the page, and who has it
// already.
#include <absl/strings/str_replace.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "gateway/page/page.h"
#include "gateway/session/front_door.h"
#include "gateway/session/static_document.h"

namespace behemoth::gateway {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

TEST(OpenApiRoutesTest, EveryRouteIsThereWithWordsOfItsOwn) {
  const auto document = nlohmann::json::parse(OpenApiJson(FrontDoor::Describe(), "0"));
  ASSERT_GT(FrontDoor::Describe().size(), 15u);
  for (const DescribedRoute& route : FrontDoor::Describe()) {
    const std::string path = absl::StrReplaceAll(std::string(route.pattern), {{"*", "{id}"}});
    const std::string method = route.method == "GET" ? "get" : "post";
    ASSERT_TRUE(document["paths"][path].contains(method)) << path;
    const auto& operation = document["paths"][path][method];
    EXPECT_NE(operation["summary"], route.name) << "openapi_parts.json has no summary";
    EXPECT_FALSE(operation["responses"]["200"]["content"].empty()) << path;
  }
}

TEST(StaticDocumentTest, WhoHasItAlreadyGetsNoBody) {
  const StaticDocument document("text", "text/plain");
  const Response whole = document.Reply({});
  EXPECT_EQ(whole.body, "text");
  const std::string tag(FindHeader(whole.headers, "ETag").value());
  for (const std::string& known : {tag, "W/" + tag, "\"other\", " + tag, std::string("*")}) {
    const Response same = document.Reply({.headers = {{"If-None-Match", known}}});
    EXPECT_EQ(same.status, 304);
    const std::string bytes = Serialize(same, true);
    EXPECT_THAT(bytes, Not(HasSubstr("Content-Length")));
    EXPECT_THAT(bytes, HasSubstr(tag));
    EXPECT_TRUE(bytes.ends_with("\r\n\r\n"));
  }
  EXPECT_EQ(document.Reply({.headers = {{"If-None-Match", "\"other\""}}}).status, 200);
  EXPECT_NE(FindHeader(StaticDocument("text2", "").Reply({}).headers, "ETag"), tag);
}

// The hash of the empty text and of "abc": FIPS 180-4's own examples.
TEST(PagePolicyTest, NamesEachInlineElementByItsHash) {
  const std::string policy = PagePolicy("<style></style><script>abc</script>");
  EXPECT_THAT(policy,
              HasSubstr("script-src 'sha256-ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0=';"));
  EXPECT_THAT(policy,
              HasSubstr("style-src 'sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=';"));
  EXPECT_THAT(policy, Not(HasSubstr("unsafe")));
}

TEST(PageTest, AsksNobodyElse) {
  const std::string page(PageHtml());
  for (const char* foreign : {"src=\"http", "href=\"http", "url(http", "@import", " style=\""}) {
    EXPECT_THAT(page, Not(HasSubstr(foreign)));
  }
}

}  // namespace
}  // namespace behemoth::gateway
