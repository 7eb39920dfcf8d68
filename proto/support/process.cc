#include "proto/support/process.h"

#include <signal.h>
#include <sys/resource.h>
#include <unistd.h>

#include <string>

#include "proto/support/log.h"

namespace behemoth::support {
namespace {

// Nothing else sends it, so it can stand for RequestShutdown(). SIGRTMIN is a function call.
int WakeSignal() { return SIGRTMIN; }

sigset_t ShutdownSignals() {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGTERM);
  sigaddset(&set, SIGINT);
  sigaddset(&set, WakeSignal());
  return set;
}

}  // namespace

void BlockSignals() {
  const sigset_t set = ShutdownSignals();
  pthread_sigmask(SIG_BLOCK, &set, nullptr);
  signal(SIGPIPE, SIG_IGN);
}

uint64_t RaiseFileLimit() {
  rlimit limit = {};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return 0;
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
  getrlimit(RLIMIT_NOFILE, &limit);
  return limit.rlim_cur;
}

int WaitForShutdown() {
  sigset_t set = ShutdownSignals();
  int signal_number = 0;
  sigwait(&set, &signal_number);

  struct sigaction action = {};
  action.sa_handler = [](int) { _exit(130); };
  sigaction(SIGTERM, &action, nullptr);
  sigaction(SIGINT, &action, nullptr);
  sigdelset(&set, WakeSignal());
  pthread_sigmask(SIG_UNBLOCK, &set, nullptr);
  return signal_number == WakeSignal() ? 0 : signal_number;
}

void RequestShutdown() { kill(getpid(), WakeSignal()); }

int Fail(std::string_view process, const absl::Status& status) {
  const std::string message = status.ToString();
  Log().error("failed status=\"{}\"", Escaped(message));
  PrintLine(std::string(process) + ": " + message);
  return 1;
}

}  // namespace behemoth::support
