#include "proto/support/process_metrics.h"

#include <dirent.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <ctime>
#include <fstream>
#include <memory>
#include <optional>
#include <sstream>

namespace behemoth::support {
namespace {

using Family = prometheus::MetricFamily;

Family One(const char* name, const char* help, prometheus::MetricType type, double value) {
  Family family{.name = name, .help = help, .type = type, .metric = {{}}};
  if (type == prometheus::MetricType::Counter) {
    family.metric[0].counter.value = value;
  } else {
    family.metric[0].gauge.value = value;
  }
  return family;
}

// The fields of /proc/self/stat after the name, which may hold blanks: [0] = state, field 3.
std::vector<std::string> StatFields() {
  std::ifstream file("/proc/self/stat");
  std::string line;
  std::getline(file, line);
  std::istringstream rest(line.substr(std::min(line.size(), line.rfind(')') + 1)));
  std::vector<std::string> fields;
  for (std::string word; rest >> word;) fields.push_back(word);
  return fields;
}

double NumberAt(const std::vector<std::string>& fields, size_t field) {
  return fields.size() > field - 3 ? std::strtod(fields[field - 3].c_str(), nullptr) : 0;
}

double BootTime() {
  std::ifstream file("/proc/stat");
  for (std::string line; std::getline(file, line);) {
    if (line.rfind("btime ", 0) == 0) return std::strtod(line.c_str() + 6, nullptr);
  }
  return 0;
}

double OpenFiles() {
  DIR* folder = opendir("/proc/self/fd");
  if (folder == nullptr) return 0;
  double count = -3;  // ".", ".." and the folder itself
  while (readdir(folder) != nullptr) ++count;
  closedir(folder);
  return count;
}

double MaxFiles() {
  rlimit limit = {};
  getrlimit(RLIMIT_NOFILE, &limit);
  return static_cast<double>(limit.rlim_cur);
}

std::optional<double> ExpiryOf(const std::string& path) {
  const std::unique_ptr<FILE, int (*)(FILE*)> file(fopen(path.c_str(), "re"), fclose);
  if (file == nullptr) return std::nullopt;
  const std::unique_ptr<X509, void (*)(X509*)> certificate(
      PEM_read_X509(file.get(), nullptr, nullptr, nullptr), X509_free);
  std::tm end = {};
  if (certificate == nullptr || !ASN1_TIME_to_tm(X509_get0_notAfter(certificate.get()), &end)) {
    return std::nullopt;
  }
  return static_cast<double>(timegm(&end));
}

}  // namespace

ProcessMetrics::ProcessMetrics(std::vector<std::string> certificate_files)
    : certificate_files_(std::move(certificate_files)) {}

std::vector<Family> ProcessMetrics::Collect() const {
  constexpr auto kGauge = prometheus::MetricType::Gauge;
  constexpr auto kCounter = prometheus::MetricType::Counter;
  const std::vector<std::string> stat = StatFields();  // numbered as in proc(5)
  const auto ticks = static_cast<double>(sysconf(_SC_CLK_TCK));
  std::vector<Family> families = {
      One("process_cpu_seconds_total", "Processor time, user and system.", kCounter,
          (NumberAt(stat, 14) + NumberAt(stat, 15)) / ticks),
      One("process_threads", "Threads.", kGauge, NumberAt(stat, 20)),
      One("process_start_time_seconds", "Start, since the epoch.", kGauge,
          BootTime() + NumberAt(stat, 22) / ticks),
      One("process_virtual_memory_bytes", "Address space.", kGauge, NumberAt(stat, 23)),
      One("process_resident_memory_bytes", "Memory in use.", kGauge,
          NumberAt(stat, 24) * static_cast<double>(sysconf(_SC_PAGESIZE))),
      One("process_open_fds", "Open file descriptors.", kGauge, OpenFiles()),
      One("process_max_fds", "Descriptors that may be open.", kGauge, MaxFiles())};
  Family expiry{.name = "behemoth_certificate_expiry_timestamp_seconds",
                .help = "When the certificate of a file ends, since the epoch.",
                .type = kGauge,
                .metric = {}};
  for (const std::string& path : certificate_files_) {
    const auto end = ExpiryOf(path);
    if (!end) continue;
    prometheus::ClientMetric metric;
    metric.label = {{"file", path.substr(path.rfind('/') + 1)}};
    metric.gauge.value = *end;
    expiry.metric.push_back(std::move(metric));
  }
  if (!expiry.metric.empty()) families.push_back(std::move(expiry));
  return families;
}

}  // namespace behemoth::support
