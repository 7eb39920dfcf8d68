#include "gateway/config.h"
#include "gateway/gateway.h"
#include "proto/support/flags.h"
#include "proto/support/log.h"
#include "proto/support/process.h"

#include <string>

namespace {

std::string HostOf(const std::string& listen) { return listen.substr(0, listen.rfind(':')); }

}  // namespace

int main(int argc, char** argv) {
  using namespace behemoth;  // NOLINT: the one place that names every part
  constexpr char kProcess[] = "behemoth-gateway";
  support::BlockSignals();
  gateway::Config config;
  support::Flags flags(kProcess, "Serves the OpenAI API in front of tokenizer and workers.");
  gateway::DeclareFlags(config, flags);
  if (const auto exit_code = flags.Parse(argc, argv)) return *exit_code;
  support::InitLog(kProcess, flags.log_level());
  if (const auto status = gateway::Validate(config); !status.ok()) {
    return support::Fail(kProcess, status);
  }
  support::Log().info("config {} open_files={}", flags.Summary(), support::RaiseFileLimit());
  auto gateway = gateway::Gateway::Start(config);
  if (!gateway.ok()) return support::Fail(kProcess, gateway.status());
  support::Log().info("ready listen={}:{} metrics={}:{}", HostOf(config.http.listen),
                      (*gateway)->port(), HostOf(config.metrics_listen),
                      (*gateway)->metrics_port());
  const int signal = support::WaitForShutdown();
  support::Log().info("draining signal={}", signal);
  const bool finished = (*gateway)->Drain();
  support::Log().info("drained finished={}", finished);
  return 0;
}
