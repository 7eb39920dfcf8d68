// The Application: finds the route, holds the caller to key and limits, makes the session.
//
// Thread-safe. Exact matches on the raw path only. Every route needs a key unless the table says
// that it is public; what is not in the table does not exist.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "gateway/api/openapi.h"
#include "gateway/http/application.h"
#include "gateway/session/services.h"
#include "gateway/session/static_document.h"

namespace behemoth::gateway {

class FrontDoor final : public Application {
 public:
  FrontDoor(const Services* services, absl::Time started);

  Verdict Begin(const RequestHead& head, Loop& loop) override;
  Response Refuse(int status, std::string_view message) override;
  void OnSlowReader() override { services_->probe->OnSlowReader(); }
  void OnConnections(int change) override { services_->probe->OnConnections(change); }

  bool Ready() const;  // what /health says

  static std::vector<DescribedRoute> Describe();  // every route, for /openapi.json

 private:
  enum class Action;
  struct Route;
  static const Route kRoutes[];

  absl::StatusOr<Caller> WhoCalls(const RequestHead& head) const;
  Verdict Open(const Route& route, std::string_view id, const RequestHead& head, Loop& loop);
  Verdict OpenBody(const Route& route, const RequestHead& head, Caller caller, Loop& loop);
  Response Control(const Route& route, std::string_view id, const Caller& caller) const;
  Response Health() const;
  Response Load() const;
  Response Models() const;
  Response Model(std::string_view id) const;
  Response FirstModel(const Route& route) const;
  Response Props() const;
  Response Counted(const Route& route, Response response) const;

  const Services* const services_;
  const absl::Time started_;
  const StaticDocument openapi_;
  const StaticDocument page_;
};

}  // namespace behemoth::gateway
