// The composition root: builds every part of the gateway and takes them down in reverse order.
//
// Life: Start -> serving (503 until tokenizer and a worker are there) -> Drain -> destroyed.
#pragma once

#include <absl/status/statusor.h>

#include <memory>

#include "gateway/config.h"

namespace behemoth::gateway {

class Gateway {
 public:
  static absl::StatusOr<std::unique_ptr<Gateway>> Start(const Config& config);
  ~Gateway();

  int port() const;
  int metrics_port() const;
  // Readiness off and 503 for what is new, while admitted requests run to their end within the
  // drain timeout; then the door closes and what is left is cut. False: something was cut.
  bool Drain();

 private:
  struct Parts;
  explicit Gateway(std::unique_ptr<Parts> parts);
  std::unique_ptr<Parts> parts_;
};

}  // namespace behemoth::gateway
