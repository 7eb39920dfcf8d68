#include "proto/support/check.h"

#include <cstdlib>

#include "proto/support/log.h"

namespace behemoth::support {

void CheckFailed(const char* file, int line, const char* condition, std::string_view detail) {
  Log().critical("check failed at={}:{} condition=\"{}\" detail=\"{}\"", file, line, condition,
                 Escaped(detail));
  Log().flush();
  std::abort();
}

}  // namespace behemoth::support
