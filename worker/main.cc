#include <cstdio>
#include <cstdlib>

#include "proto/support/flags.h"
#include "proto/support/log.h"
#include "proto/support/process.h"
#include "worker/check_model.h"
#include "worker/config.h"
#include "worker/worker.h"

namespace behemoth::worker {
namespace {

constexpr char kProcess[] = "behemoth-worker";
constexpr int kUsage = 2;

int Main(int argc, char** argv) {
  support::BlockSignals();
  Config config;
  support::Flags flags(kProcess, "Serves one model: token ids in, token ids out.");
  AddFlags(config, flags);
  if (const auto exit_code = flags.Parse(argc, argv)) return *exit_code;
  support::InitLog(kProcess, flags.log_level());
  if (const absl::Status complete = Complete(config); !complete.ok()) {
    support::Fail(kProcess, complete);
    return kUsage;
  }
  if (!config.check_model.empty()) {
    const auto report = CheckModel(config);
    if (!report.ok()) return support::Fail(kProcess, report.status());
    std::fputs(report->c_str(), stdout);
    return 0;
  }
  support::Log().info("start {}", flags.Summary());

  auto worker = Worker::Start(config);
  if (!worker.ok()) {
    const int code = support::Fail(kProcess, worker.status());
    return config.backend == "cuda" && absl::IsUnimplemented(worker.status()) ? kUsage : code;
  }
  const int signal_number = support::WaitForShutdown();
  support::Log().info("draining signal={}", signal_number);
  const bool stopped = (*worker)->Shutdown();
  const int exit_code = (*worker)->failed() ? 1 : 0;
  support::Log().info("stopped exit_code={}", exit_code);
  support::Log().flush();
  // A thread that cannot be joined is left to the end of the process.
  if (!stopped) std::_Exit(exit_code);
  return exit_code;
}

}  // namespace
}  // namespace behemoth::worker

int main(int argc, char** argv) { return behemoth::worker::Main(argc, argv); }
