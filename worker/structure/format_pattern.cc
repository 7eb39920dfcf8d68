#include "worker/structure/format_pattern.h"

#include <utility>

namespace behemoth::worker {

std::string_view FormatPattern(std::string_view format) {
  constexpr std::string_view kDate =
      "([1-9][0-9]{3})-((0[13578]|1[02])-(0[1-9]|[12][0-9]|3[01])|(0[469]|11)-(0[1-9]|[12][0-9]|30)"
      "|02-(0[1-9]|1[0-9]|2[0-8]))";
  constexpr std::string_view kTime =
      "([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\\.[0-9]{1,6})?(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9]"
      ")";
  constexpr std::string_view kDateTime =
      "([1-9][0-9]{3})-((0[13578]|1[02])-(0[1-9]|[12][0-9]|3[01])|(0[469]|11)-(0[1-9]|[12][0-9]|30)"
      "|02-(0[1-9]|1[0-9]|2[0-8]))T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\\.[0-9]{1,6})?"
      "(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])";
  constexpr std::pair<std::string_view, std::string_view> kFormats[] = {
      {"date", kDate},
      {"time", kTime},
      {"date-time", kDateTime},
      {"uuid", "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"},
      {"ipv4",
       "((25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])\\.){3}"
       "(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"},
      {"email",
       "[a-zA-Z0-9_+-]{1,32}(\\.[a-zA-Z0-9_+-]{1,16})?@[a-z0-9]{1,32}(\\.[a-z]{2,16}){1,3}"},
      {"hostname", "[a-z0-9]{1,32}(-[a-z0-9]{1,16})?(\\.[a-z][a-z0-9]{1,31}){0,3}"},
      {"uri", "https?://[a-z0-9]{1,32}(\\.[a-z]{2,16}){1,3}(/[a-zA-Z0-9_-]{0,64}){0,8}"}};
  for (const auto& [name, pattern] : kFormats) {
    if (name == format) return pattern;
  }
  return {};
}

}  // namespace behemoth::worker
