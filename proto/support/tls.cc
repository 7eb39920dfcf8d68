#include "proto/support/tls.h"

#include <absl/status/status.h>
#include <absl/strings/str_cat.h>
#include <grpcpp/security/tls_certificate_provider.h>
#include <grpcpp/security/tls_credentials_options.h>

#include <fstream>
#include <sstream>

namespace behemoth::support {
namespace {

using grpc::experimental::FileWatcherCertificateProvider;

// Certificates are renewed days before they end; a minute is soon enough and costs nothing.
constexpr unsigned kRefreshSeconds = 60;

absl::Status CheckPem(const char* flag, const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::stringstream text;
  text << file.rdbuf();
  if (!file || text.str().find("-----BEGIN ") == std::string::npos) {
    return absl::InvalidArgumentError(
        absl::StrCat(flag, ": ", path, " cannot be read as a PEM file"));
  }
  return absl::OkStatus();
}

absl::Status CheckPair(const char* cert_flag, const std::string& cert_file, const char* key_flag,
                       const std::string& key_file) {
  if (cert_file.empty() != key_file.empty()) {
    return absl::InvalidArgumentError(absl::StrCat(cert_file.empty() ? cert_flag : key_flag,
                                                   ": must be given together with ",
                                                   cert_file.empty() ? key_flag : cert_flag));
  }
  if (cert_file.empty()) return absl::OkStatus();
  if (auto status = CheckPem(cert_flag, cert_file); !status.ok()) return status;
  return CheckPem(key_flag, key_file);
}

}  // namespace

absl::StatusOr<std::shared_ptr<grpc::ServerCredentials>> ServerCredentials(
    const ServerTlsConfig& config) {
  if (auto status =
          CheckPair("--tls-cert-file", config.cert_file, "--tls-key-file", config.key_file);
      !status.ok()) {
    return status;
  }
  const bool mutual = !config.client_ca_file.empty();
  if (config.cert_file.empty()) {
    if (!mutual) return grpc::InsecureServerCredentials();
    return absl::InvalidArgumentError(
        "--tls-client-ca-file: needs --tls-cert-file and --tls-key-file");
  }
  if (mutual) {
    if (auto status = CheckPem("--tls-client-ca-file", config.client_ca_file); !status.ok()) {
      return status;
    }
  }
  grpc::experimental::TlsServerCredentialsOptions options(
      std::make_shared<FileWatcherCertificateProvider>(config.key_file, config.cert_file,
                                                       config.client_ca_file, kRefreshSeconds));
  options.watch_identity_key_cert_pairs();
  if (mutual) {
    options.watch_root_certs();
    options.set_cert_request_type(GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY);
  } else {
    options.set_cert_request_type(GRPC_SSL_DONT_REQUEST_CLIENT_CERTIFICATE);
  }
  return grpc::experimental::TlsServerCredentials(options);
}

absl::StatusOr<std::shared_ptr<grpc::ChannelCredentials>> ClientCredentials(
    const ClientTlsConfig& config) {
  if (auto status = CheckPair("--tls-client-cert-file", config.cert_file, "--tls-client-key-file",
                              config.key_file);
      !status.ok()) {
    return status;
  }
  if (config.ca_file.empty()) {
    if (config.cert_file.empty()) return grpc::InsecureChannelCredentials();
    return absl::InvalidArgumentError("--tls-ca-file: needed with --tls-client-cert-file");
  }
  if (auto status = CheckPem("--tls-ca-file", config.ca_file); !status.ok()) return status;
  grpc::experimental::TlsChannelCredentialsOptions options;
  options.set_certificate_provider(std::make_shared<FileWatcherCertificateProvider>(
      config.key_file, config.cert_file, config.ca_file, kRefreshSeconds));
  options.watch_root_certs();
  if (!config.cert_file.empty()) options.watch_identity_key_cert_pairs();
  return grpc::experimental::TlsCredentials(options);
}

}  // namespace behemoth::support
