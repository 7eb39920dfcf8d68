// Keeps a pool's addresses true: a fixed list as it is, dns:///NAME:PORT as all that the name
// resolves to, asked again every `interval`. Owns one thread; destroying it joins that.
// A name that does not resolve keeps its last addresses.
#pragma once

#include <absl/synchronization/notification.h>
#include <absl/time/time.h>

#include <functional>
#include <map>
#include <string>
#include <thread>
#include <vector>

namespace behemoth::gateway {

class Discovery {
 public:
  using OnAddresses = std::function<void(std::vector<std::string>)>;
  // `on_addresses` runs once before the constructor returns, later on the discovery's thread.
  Discovery(std::vector<std::string> targets, absl::Duration interval, OnAddresses on_addresses);
  ~Discovery();

 private:
  std::vector<std::string> Resolve();

  const std::vector<std::string> targets_;
  const absl::Duration interval_;
  const OnAddresses on_addresses_;
  std::map<std::string, std::vector<std::string>> last_;  // of each dns target
  absl::Notification stop_;
  std::thread thread_;
};

}  // namespace behemoth::gateway
