// grpc.health.v1 with a true Watch: every change of a service's state is pushed to its watchers.
//
// Thread-safe. Owned by the composition root, outlives the server it is registered with.
// Service "" is the process. Check of an unknown name: NOT_FOUND. Watch of one: SERVICE_UNKNOWN,
// and the stream stays open. Source: gRPC health checking protocol document.
#pragma once

#include <grpcpp/impl/service_type.h>

#include <memory>
#include <string>

namespace behemoth::support {

class Health {
 public:
  Health();
  ~Health();
  Health(const Health&) = delete;
  Health& operator=(const Health&) = delete;

  // Adds the service if it is new; wakes its watchers if the value changed.
  void Set(const std::string& service, bool serving);
  // All services to NOT_SERVING, and later Set() calls have no effect: the process is going.
  void Shutdown();
  // What GrpcServer registers.
  grpc::Service* service();

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace behemoth::support
