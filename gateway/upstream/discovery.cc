#include "gateway/upstream/discovery.h"

#include <absl/strings/str_cat.h>
#include <netdb.h>

#include <algorithm>
#include <utility>

namespace behemoth::gateway {
namespace {

constexpr std::string_view kDns = "dns:///";

std::vector<std::string> Lookup(const std::string& name, const std::string& port) {
  std::vector<std::string> addresses;
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  if (getaddrinfo(name.c_str(), port.c_str(), &hints, &found) != 0) return addresses;
  for (const addrinfo* entry = found; entry != nullptr; entry = entry->ai_next) {
    char host[NI_MAXHOST];
    if (getnameinfo(entry->ai_addr, entry->ai_addrlen, host, sizeof(host), nullptr, 0,
                    NI_NUMERICHOST) != 0) {
      continue;
    }
    addresses.push_back(entry->ai_family == AF_INET6 ? absl::StrCat("[", host, "]:", port)
                                                     : absl::StrCat(host, ":", port));
  }
  freeaddrinfo(found);
  return addresses;
}

}  // namespace

Discovery::Discovery(std::vector<std::string> targets, absl::Duration interval,
                     OnAddresses on_addresses)
    : targets_(std::move(targets)), interval_(interval), on_addresses_(std::move(on_addresses)) {
  on_addresses_(Resolve());
  const bool dynamic = std::any_of(targets_.begin(), targets_.end(), [](const std::string& target) {
    return target.rfind(kDns, 0) == 0;
  });
  if (!dynamic) return;
  thread_ = std::thread([this] {
    while (!stop_.WaitForNotificationWithTimeout(interval_)) on_addresses_(Resolve());
  });
}

Discovery::~Discovery() {
  stop_.Notify();
  if (thread_.joinable()) thread_.join();
}

std::vector<std::string> Discovery::Resolve() {
  std::vector<std::string> all;
  for (const std::string& target : targets_) {
    if (target.rfind(kDns, 0) != 0) {
      all.push_back(target);
      continue;
    }
    const size_t colon = target.rfind(':');
    auto& last = last_[target];
    auto fresh = Lookup(target.substr(kDns.size(), colon - kDns.size()), target.substr(colon + 1));
    if (!fresh.empty()) last = std::move(fresh);
    all.insert(all.end(), last.begin(), last.end());
  }
  std::sort(all.begin(), all.end());
  all.erase(std::unique(all.begin(), all.end()), all.end());
  return all;
}

}  // namespace behemoth::gateway
