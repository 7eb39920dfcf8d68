#include "proto/support/log.h"

#include <google/protobuf/stubs/logging.h>
#include <grpc/support/log.h>
#include <spdlog/pattern_formatter.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <memory>

#include "proto/support/log_sink.h"

namespace behemoth::support {
namespace {

struct ProcessLog {
  explicit ProcessLog(std::string_view process)
      : sink(std::make_shared<LogSink>(STDERR_FILENO, process)),
        logger(std::string(process), sink) {}
  const std::shared_ptr<LogSink> sink;
  spdlog::logger logger;
};

// Made by InitLog, never destroyed: threads of gRPC's log until the very end.
ProcessLog* process_log = nullptr;

// gRPC and protobuf write to stderr themselves, and wait there, unless they are told where else to.
// A caller can make them: protobuf says so each time a string is not UTF-8.
void TakeGrpcMessage(gpr_log_func_args* message) {
  const auto level = message->severity == GPR_LOG_SEVERITY_ERROR  ? spdlog::level::warn
                     : message->severity == GPR_LOG_SEVERITY_INFO ? spdlog::level::info
                                                                  : spdlog::level::debug;
  Log().log(level, "grpc at={}:{} message=\"{}\"", message->file, message->line,
            Escaped(message->message));
}

void TakeProtobufMessage(google::protobuf::LogLevel severity, const char* file, int line,
                         const std::string& message) {
  const auto level =
      severity >= google::protobuf::LOGLEVEL_WARNING ? spdlog::level::warn : spdlog::level::info;
  Log().log(level, "protobuf at={}:{} message=\"{}\"", file, line, Escaped(message));
}

}  // namespace

void InitLog(std::string_view process, std::string_view level) {
  process_log = new ProcessLog(process);
  spdlog::logger& logger = process_log->logger;
  logger.set_formatter(std::make_unique<spdlog::pattern_formatter>(
      "process=%n time=%Y-%m-%dT%H:%M:%S.%eZ level=%l %v", spdlog::pattern_time_type::utc));
  logger.set_level(spdlog::level::from_str(std::string(level)));
  std::atexit([] { process_log->logger.flush(); });
  gpr_set_log_function(TakeGrpcMessage);
  google::protobuf::SetLogHandler(TakeProtobufMessage);
}

spdlog::logger& Log() {
  return process_log == nullptr ? *spdlog::default_logger_raw() : process_log->logger;
}

void PrintLine(std::string_view text) {
  const std::string line = std::string(text) + '\n';
  if (process_log != nullptr) return process_log->sink->Write(line);
  std::fwrite(line.data(), 1, line.size(), stderr);
}

uint64_t DroppedLogLines() { return process_log == nullptr ? 0 : process_log->sink->dropped(); }

std::string Escaped(std::string_view text) {
  constexpr size_t kMaxBytes = 200;
  constexpr char kHex[] = "0123456789ABCDEF";
  std::string out;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    const bool plain = byte >= 0x20 && byte < 0x7F && c != '"' && c != '\'' && c != '\\';
    if (out.size() + (plain ? 1 : 4) > kMaxBytes) break;
    if (plain) {
      out += c;
    } else {
      out += {'\\', 'x', kHex[byte >> 4], kHex[byte & 15]};
    }
  }
  return out;
}

}  // namespace behemoth::support
