// What Prometheus' own libraries say of a process, under their names: processor time, memory,
// threads, descriptors, start; and when the certificates in use end. Read from /proc and the files
// at each scrape. Thread-safe.
#pragma once

#include <prometheus/collectable.h>
#include <prometheus/metric_family.h>

#include <string>
#include <vector>

namespace behemoth::support {

class ProcessMetrics : public prometheus::Collectable {
 public:
  // `certificate_files`: PEM; the first certificate of each counts, empty names are left out.
  explicit ProcessMetrics(std::vector<std::string> certificate_files);
  std::vector<prometheus::MetricFamily> Collect() const override;

 private:
  const std::vector<std::string> certificate_files_;
};

}  // namespace behemoth::support
